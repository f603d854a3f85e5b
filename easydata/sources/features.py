"""The HuggingFace features of kept fields, which say more than Arrow types: class labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from easydata.sources.blocks import Block
from easydata.sources.peeking import MAX_ROWS, transform_block
from easydata.sources.source import Source
from easydata.sources.tableblock import TableBlock, column_types
from easydata.sources.transform import RowTransform

__all__ = ["kept_features"]


def kept_features(
    sources: Sequence[Source],
    keep: Mapping[str, pa.DataType],
    transform: RowTransform | None = None,
) -> dict[str, object]:
    """The features that the first source which declares any gives to kept fields.

    After a transform these are the fields that it passes on unchanged in the first rows of that
    source, and whose agreed type is the one that they have there.

    Args:
        sources: where the rows come from.
        keep: the agreed types of the kept fields (`infer_types`).
        transform: makes the rows that have these fields.

    Returns:
        Features as JSON objects of `datasets`, by field.
    """
    for source in sources if keep else ():
        features = source.features
        if features:
            names = dict(zip(keep, keep, strict=True))
            if transform is not None:
                names = _passed_on(source.peek(None, MAX_ROWS), keep, transform)
            return {new: features[old] for new, old in names.items() if old in features}
    return {}


def _passed_on(
    blocks: Sequence[Block], keep: Mapping[str, pa.DataType], transform: RowTransform
) -> dict[str, str]:
    """The old names of the kept fields that the transform leaves as they are."""
    samples = [found for block in blocks if (found := transform_block(block, transform)).after]
    types = column_types(blocks[0]) if blocks and isinstance(blocks[0], TableBlock) else {}
    old_names = {}
    for name, kind in keep.items():
        old = samples[0].old_name(name) if samples else name
        is_same_type = types.get(old, kind) == kind
        if samples and is_same_type and all(found.passes_on(name) for found in samples):
            old_names[name] = old
    return old_names
