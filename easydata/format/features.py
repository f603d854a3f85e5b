"""The `huggingface` schema metadata: the features JSON that HuggingFace `datasets` writes.

Made here from Arrow types, because importing `datasets` takes longer than a small build. A test
compares every type with what `datasets` itself writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from easydata.errors import UsageError

__all__ = ["HUGGINGFACE_KEY", "features_of", "huggingface_metadata"]

HUGGINGFACE_KEY = b"huggingface"
_NAMES = {
    pa.float16(): "float16",
    pa.float32(): "float32",
    pa.float64(): "float64",
    pa.string(): "string",
    pa.large_string(): "large_string",
    pa.string_view(): "string_view",
    pa.binary(): "binary",
    pa.large_binary(): "large_binary",
    pa.binary_view(): "binary_view",
    pa.date32(): "date32",
    pa.date64(): "date64",
}


def huggingface_metadata(
    schema: pa.Schema, fingerprint: str, known: Mapping[str, Any] | None = None
) -> bytes:
    """The value of the `huggingface` key for a schema.

    Args:
        schema: schema of the shard.
        fingerprint: 16 hexadecimal digits that follow from the content.
        known: features of columns that are richer than their Arrow types say (class labels,
            images), as JSON objects of `datasets`, by column.

    Raises:
        UsageError: a column has a type that `datasets` cannot represent.
    """
    features = {item.name: features_of(item.type, item.name) for item in schema}
    features.update({name: value for name, value in (known or {}).items() if name in features})
    return json.dumps({"info": {"features": features}, "fingerprint": fingerprint}).encode()


def features_of(kind: pa.DataType, column: str) -> dict[str, Any]:
    """The features JSON of one Arrow type.

    Raises:
        UsageError: `datasets` has no such type; the message names the column.

    >>> features_of(pa.list_(pa.uint16()), "input_ids")
    {'feature': {'dtype': 'uint16', '_type': 'Value'}, '_type': 'List'}
    """
    if pa.types.is_struct(kind):
        return {item.name: features_of(item.type, column) for item in kind}
    if pa.types.is_fixed_size_list(kind):
        inner = features_of(kind.value_type, column)
        return {"feature": inner, "length": kind.list_size, "_type": "List"}
    if pa.types.is_list(kind):
        return {"feature": features_of(kind.value_type, column), "_type": "List"}
    if pa.types.is_large_list(kind):
        return {"feature": features_of(kind.value_type, column), "_type": "LargeList"}
    if (
        pa.types.is_nested(kind)
        or pa.types.is_dictionary(kind)
        or pa.types.is_interval(kind)
        or pa.types.is_decimal32(kind)
        or pa.types.is_decimal64(kind)
    ):
        raise UsageError(
            f"Column {column!r} has the type {kind}, which HuggingFace datasets cannot represent. "
            "Give another type with schema=, or leave the column out."
        )
    return {"dtype": _NAMES.get(kind, str(kind)), "_type": "Value"}
