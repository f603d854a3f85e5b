"""What the text field holds: text, or lists of messages that a chat template makes text of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from easydata.sources.blocks import Fields
from easydata.sources.objects import RowsSource
from easydata.sources.peeking import spread, transform_block
from easydata.sources.source import Source
from easydata.sources.text_field import is_messages
from easydata.sources.transform import RowTransform

__all__ = ["TextKind", "sample_text_kind"]

_MAX_ROWS = 100

TextKind = Literal["text", "messages"]


def sample_text_kind(sources: Sequence[Source], fields: Fields) -> TextKind:
    """What the text field holds in the first good rows, after the transform without rendering.

    The first 100 rows are looked at of the first source that has a good one among them; one
    list of messages there is enough, because rendering leaves text as it is. "text" where no
    sampled row is good.
    """
    transform = replace(fields.transform or RowTransform(text=fields.text), render=None)
    # Rows of an iterable may hold objects that nobody asks for, and that cannot be read.
    needed = [fields.text] if fields.transform is None else None
    for source in spread(sources):
        names = needed if isinstance(source, RowsSource) else None
        values = [
            row.get(fields.text)
            for block in source.peek(names, _MAX_ROWS)
            for row in transform_block(block, transform).after
        ]
        if any(map(is_messages, values)):
            return "messages"
        if any(isinstance(value, str) for value in values):
            return "text"
    return "text"
