"""The text of a row: found under its name, and refused when it is no text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from easydata.sources.describe import describe_misfit, describe_names

__all__ = ["NEEDS_TEMPLATE", "BadRecordError", "is_messages", "text_of"]

NEEDS_TEMPLATE = "a list of messages needs a tokenizer with a chat template"


class BadRecordError(Exception):
    """Why a record is no good row."""


def is_messages(value: object) -> bool:
    """Whether `value` is a list of messages: dicts, such as {"role": …, "content": …}."""
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


def text_of(
    row: Mapping[str, Any], name: str, *, maybe_surrogates: bool = True, after: str = ""
) -> str:
    """The text in field `name` of a row.

    Args:
        row: the fields.
        name: of the field.
        maybe_surrogates: False where it is known that the text has no lone surrogate.
        after: what made the row, for messages: "the transform clean".

    Raises:
        BadRecordError: the row has no such field, or it holds no text.
    """
    so_far = f"after {after} " if after else ""
    if name not in row:
        others = list(row)
        guess = next((other for other in others if isinstance(row[other], str)), "NAME")
        raise BadRecordError(
            f"{so_far}field {name!r} is missing; the row has {describe_names(others)}. "
            f"Pass text_field={guess!r} (--text-field {guess})"
        )
    text = row[name]
    if not isinstance(text, str):
        hint = f"; {NEEDS_TEMPLATE}" if is_messages(text) else ""
        raise BadRecordError(so_far + describe_misfit(name, text, "text") + hint)
    if maybe_surrogates and not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise BadRecordError(
                f"{so_far}field {name!r} has the lone surrogate \\u{ord(text[error.start]):04x} at "
                f"character {error.start}, which is no text"
            ) from error
    return text
