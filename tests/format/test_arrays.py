from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from easydata.format.arrays import (
    bytes_array,
    empty_batch,
    number_array,
    number_view,
    struct_array,
)
from easydata.format.mapping import map_file

DTYPES = ["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [0, 1, 9])
def test_numbers(dtype: str, size: int) -> None:
    values = np.arange(2 * size).astype(dtype)[::2]
    array = number_array(values)
    array.validate(full=True)
    assert array.equals(pa.array(values))
    view = number_view(array)
    assert view.dtype == values.dtype
    assert view.tolist() == values.tolist()
    assert not view.flags.writeable
    assert number_view(array.slice(size // 2)).tolist() == values[size // 2 :].tolist()
    assert number_view(array.slice(0, size // 2)).tolist() == values[: size // 2].tolist()


def test_numbers_are_views() -> None:
    values = np.arange(5)
    assert np.shares_memory(number_view(number_array(values)), values)
    assert number_view(pa.nulls(0, pa.uint16())).dtype == np.uint16


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100])
def test_truth_values(size: int) -> None:
    values = np.random.default_rng(size).random(size) < 0.5
    assert number_array(values).to_pylist() == values.tolist()


@pytest.mark.parametrize("kind", [pa.string(), pa.binary()])
@pytest.mark.parametrize("values", [[], ["a"], ["ß", None, "", "xyz"], [None] * 9])
def test_byte_strings(kind: pa.DataType, values: list[str | None]) -> None:
    given = [v.encode() if v is not None and kind == pa.binary() else v for v in values]
    array = bytes_array(given, kind)
    array.validate(full=True)
    assert array.equals(pa.array(given, kind))


def test_structs() -> None:
    kind = pa.struct({"n": pa.int32(), "s": pa.string(), "b": pa.binary()})
    rows = [{"n": 1, "s": None, "b": b"x"}, {"n": -2, "s": "é", "b": None}]
    for given in (rows, []):
        array = struct_array(given, kind)
        array.validate(full=True)
        assert array.to_pylist() == given
        assert array.type == kind


def test_empty_batches() -> None:
    schema = pa.schema({"a": pa.list_(pa.uint16()), "b": pa.struct({"c": pa.string()})})
    batch = empty_batch(schema)
    assert (batch.num_rows, batch.schema) == (0, schema)
    batch.validate(full=True)


def test_maps(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"some bytes")
    buffer = map_file(path)
    path.unlink()  # the map stays
    assert buffer.to_pybytes() == b"some bytes"
    assert buffer.address % 4096 == 0
    assert not buffer.is_mutable
    path.write_bytes(b"")
    assert map_file(path).size == 0
    with pytest.raises(FileNotFoundError):
        map_file(tmp_path / "nothing")


def test_maps_hold_no_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    descriptors = Path("/dev/fd")
    gc.collect()  # caches of earlier tests close theirs
    before = len(list(descriptors.iterdir()))
    maps = [map_file(path) for _ in range(50)]
    assert len(list(descriptors.iterdir())) == before
    assert len(maps) == 50
