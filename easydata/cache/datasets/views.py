"""Arrow's string and binary views, for which Arrow has no `take`: the large types instead."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["without_views"]


def without_views(kind: pa.DataType) -> pa.DataType:
    """The type with large strings and binaries where it has views of them.

    >>> without_views(pa.list_(pa.string_view()))
    ListType(list<item: large_string>)
    """
    if pa.types.is_string_view(kind):
        return pa.large_string()
    if pa.types.is_binary_view(kind):
        return pa.large_binary()
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, without_views(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([_field(item) for item in kind])
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(_field(kind.value_field), kind.list_size)
    if pa.types.is_large_list(kind):
        return pa.large_list(_field(kind.value_field))
    if pa.types.is_list(kind):
        return pa.list_(_field(kind.value_field))
    return kind


def _field(item: pa.Field) -> pa.Field:
    return item.with_type(without_views(item.type))
