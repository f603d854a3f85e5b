"""Metadata as bytes: what comes back is equal, of the same types, and nobody else's."""

from __future__ import annotations

import json
import math
import struct
from collections import OrderedDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easydata.cache import stored_metadata
from easydata.cache.stored_metadata import pack, unpack
from easydata.errors import DatasetError, UnsupportedValueError, UsageError
from easydata.metadata import CacheMetadata

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
)


def same(left: Any, right: Any) -> bool:
    """Equal, of the same types, in the same order, to the last bit but those of NaNs."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and same(list(left.values()), list(right.values()))
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        nans = math.isnan(left), math.isnan(right)
        return nans == (True, True) or struct.pack("d", left) == struct.pack("d", right)
    return bool(left == right)


@given(
    st.builds(
        CacheMetadata,
        version=TEXT,
        created_at=st.floats(),
        source_hash=st.none() | TEXT,
        num_examples=st.none() | st.integers(),
        extra=st.dictionaries(TEXT, JSON, max_size=4),
    )
)
def test_what_comes_back_is_the_same_and_new_each_time(metadata: CacheMetadata) -> None:
    packed = pack(metadata)
    first, second = unpack(packed), unpack(packed)
    assert type(first) is CacheMetadata
    assert same(vars(metadata), vars(first))
    assert same(vars(metadata), vars(second))
    assert first is not second
    assert packed.isascii()
    assert same(vars(CacheMetadata.from_json(packed)), vars(metadata))


def test_none() -> None:
    assert pack(None) == b""
    assert unpack(b"") is None


def test_equal_metadata_gives_equal_bytes() -> None:
    packed = [pack(CacheMetadata(created_at=1.5, extra={"a": [1]})) for _ in range(2)]
    assert packed[0] == packed[1]


@pytest.mark.parametrize("extra", [{}, {"a": {"b": [1, {"c": 2}]}}])
def test_changing_what_came_back_changes_nothing_else(extra: dict[str, Any]) -> None:
    packed = pack(CacheMetadata(created_at=1.5, extra=extra))
    expected = json.loads(packed)["extra"]
    for _ in range(2):
        metadata = unpack(packed)
        assert metadata is not None
        assert metadata.extra == expected
        if metadata.extra:
            metadata.extra["a"]["b"][1]["c"] = 3
            metadata.extra["a"]["b"].append(4)
            metadata.extra["a"]["new"] = 5
        metadata.extra["new"] = 6  # type: ignore[index]


def test_any_mapping_is_a_dict_when_it_comes_back() -> None:
    for extra in (MappingProxyType({"a": 1}), OrderedDict(a=1)):
        back = unpack(pack(CacheMetadata(extra=extra)))
        assert back is not None
        assert same(back.extra, {"a": 1})


@dataclass(frozen=True)
class More(CacheMetadata):
    more: int = 0


DEEP: list[Any] = []
for _ in range(100):
    DEEP = [DEEP]
CYCLE: list[Any] = []
CYCLE.append(CYCLE)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"extra": {"a": [0, 1, 2, (3,)]}}, r"metadata\.extra\['a'\]\[3\] is a tuple,"),
        ({"extra": {"a": {"b": {1: 2}}}}, r"metadata\.extra\['a'\]\['b'\] has the key 1;"),
        ({"extra": {None: 2}}, r"metadata\.extra has the key None;"),
        ({"extra": {"a": {1}}}, r"metadata\.extra\['a'\] is a set,"),
        ({"extra": {"a": b"b"}}, r"metadata\.extra\['a'\] is a bytes,"),
        ({"extra": {"a": np.float64(1)}}, r"metadata\.extra\['a'\] is a numpy\.float64,"),
        ({"extra": {"a": [OrderedDict()]}}, r"metadata\.extra\['a'\]\[0\] is a collections\."),
        ({"extra": {"a": "\ud800"}}, r"metadata\.extra\['a'\] has the string '\\ud800'"),
        ({"extra": {"a": {"\udc00": 1}}}, r"metadata\.extra\['a'\] has the string '\\udc00'"),
        ({"extra": {"a": 10**5000}}, r"metadata\.extra\['a'\] is an int of more than 10000 bits"),
        ({"extra": {"a": DEEP[0]}}, r"metadata\.extra\['a'\](\[0\]){11}… lies deeper than 100"),
        ({"extra": {"a": CYCLE}}, r"metadata\.extra\['a'\](\[0\]){11}… lies deeper than 100"),
        ({"extra": None}, r"metadata\.extra is None; pass a dict"),
        ({"extra": [1]}, r"metadata\.extra is \[1\]; pass a dict"),
        ({"num_examples": np.int64(5)}, r"metadata\.num_examples is a numpy\.int64,"),
        ({"source_hash": b"ab"}, r"metadata\.source_hash is a bytes,"),
        ({"version": (1, 2)}, r"metadata\.version is a tuple,"),
    ],
)
def test_what_json_would_change_is_refused_by_place(fields: dict[str, Any], place: str) -> None:
    with pytest.raises(UnsupportedValueError, match=f"^{place}"):
        pack(CacheMetadata(**fields))


@pytest.mark.parametrize("metadata", [{"version": "1"}, "1.0", More(more=1)])
def test_what_is_no_metadata_is_refused(metadata: Any) -> None:
    with pytest.raises(UsageError, match=rf"metadata is a {type(metadata).__name__}; pass an"):
        pack(metadata)


def test_the_greatest_int_and_depth_come_back() -> None:
    for extra in ({"a": 2**10_000 - 1}, {"a": DEEP[0][0]}):
        back = unpack(pack(CacheMetadata(extra=extra)))
        assert back is not None
        assert same(back.extra, extra)


@pytest.mark.parametrize("packed", [b"{", b"[]", b"\xff", b"1"])
def test_other_bytes(packed: bytes) -> None:
    with pytest.raises(DatasetError, match="metadata is not readable"):
        unpack(packed)


def test_parsed_metadata_is_kept_but_not_all_of_it() -> None:
    for at in range(1000):
        metadata = CacheMetadata(created_at=float(at))
        assert unpack(pack(metadata)) == metadata
        assert pack(metadata) in stored_metadata._parsed
    large = CacheMetadata(extra={"text": "x" * 10_000})
    assert unpack(pack(large)) == large
    assert len(stored_metadata._parsed) <= 256
    assert all(len(packed) < 5000 for packed in stored_metadata._parsed)
