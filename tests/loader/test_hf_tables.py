"""Tables of `datasets` that are damaged or odd: refused, or read as they say."""

from __future__ import annotations

import ctypes
import gc

import datasets
import numpy as np
import pyarrow as pa
import pytest

from easydata.errors import UsageError
from easydata.loader.hf_tokens import HuggingFaceTokens
from easydata.loader.rows import fill_rows

SMALL = pa.list_(pa.uint16())


def lists_of(
    offsets: list[int],
    *,
    kind: pa.DataType = SMALL,
    values: pa.Array | None = None,
    valid: bytes | None = None,
) -> pa.Array:
    """Lists with these offsets into values 0, 1, 2 and so on."""
    stored = np.array(offsets, np.int64 if pa.types.is_large_list(kind) else np.int32)
    if values is None:
        values = pa.array(np.arange(20, dtype=np.uint16))
    buffers = [valid and pa.py_buffer(valid), pa.py_buffer(stored)]
    return pa.Array.from_buffers(kind, len(offsets) - 1, buffers, children=[values])


def tokens_in(table: pa.Table) -> HuggingFaceTokens:
    # Without a fingerprint, `datasets` reads all values for one, and may crash.
    return HuggingFaceTokens(datasets.Dataset(table, fingerprint="given"))


def tokens_of(*chunks: pa.Array) -> HuggingFaceTokens:
    return tokens_in(pa.table({"input_ids": pa.chunked_array(chunks)}))


def read(tokens: HuggingFaceTokens, starts: list[int], length: int) -> list[list[int]]:
    pieces = tokens.locate(np.array(starts, np.int64), length)
    rows = fill_rows(pieces, None, num_items=length, dtype=tokens.dtype, pad_token_id=None)
    return rows.copy(0, len(starts)).tolist()


def stream(tokens: HuggingFaceTokens) -> list[int]:
    return read(tokens, [0], tokens.num_tokens)[0]


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([0, 5, 3, 20], "its lists run from 0 to 20 of 20 values, and row 1 .* has length -2"),
        ([0, 30, 25, 20], "row 1 of a chunk has length -5"),
        ([0, -7, 9], "row 0 of a chunk has length -7"),
        ([0, 5, 21], "21"),
        ([0, 5, 2**31 - 1], "2147483647"),
        ([-4, 5, 9], ""),
        ([21, 21, 21], ""),
    ],
)
def test_damaged_offsets(offsets: list[int], message: str) -> None:
    for kind in (SMALL, pa.large_list(pa.uint16())):
        bad = lists_of([0] * len(offsets), kind=kind)
        for chunks in ([bad], [lists_of([0, 4, 9], kind=kind), bad]):
            table = pa.table({"input_ids": pa.chunked_array(chunks)})
            stored = bad.offsets.to_numpy()  # after Arrow has looked at them
            wrong = np.array(offsets, stored.dtype).tobytes()
            ctypes.memmove(stored.ctypes.data, wrong, len(wrong))
            with pytest.raises(UsageError, match=f"column 'input_ids' is damaged: .*{message}"):
                tokens_in(table)
            ctypes.memset(stored.ctypes.data, 0, stored.nbytes)


@pytest.mark.parametrize("kind", [SMALL, pa.large_list(pa.uint16()), pa.list_(pa.uint16(), 2)])
@pytest.mark.parametrize("count", [777, 1554])
def test_buffers_that_are_too_short(kind: pa.DataType, count: int) -> None:
    """Of 777 rows with 1,554 values, where the file says that there are ten times as many."""
    table = pa.table({"input_ids": pa.array([[1, 2]] * 777, kind)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    said, wrong = (number.to_bytes(8, "little") for number in (count, count * 10))
    data = sink.getvalue().to_pybytes()
    assert said in data
    damaged = pa.ipc.open_stream(data.replace(said, wrong)).read_all()
    with pytest.raises(UsageError, match="column 'input_ids' is damaged"):
        tokens_in(damaged)


def test_rows_that_are_missing() -> None:
    with pytest.raises(UsageError, match="has rows without tokens"):
        tokens_of(lists_of([0, 5, 9, 12], valid=b"\x05"))
    fixed = pa.array([[1, 2], None, [5, 6]], pa.list_(pa.uint16(), 2))
    with pytest.raises(UsageError, match="has rows without tokens"):
        tokens_of(fixed)
    assert stream(tokens_of(fixed.slice(2))) == [5, 6]


def test_ids_that_are_missing() -> None:
    values = pa.array([0, 1, None, 3, 4, None], pa.uint16())
    for offsets in ([0, 3, 5], [3, 4, 6]):
        with pytest.raises(UsageError, match="has missing ids in its lists"):
            tokens_of(lists_of(offsets, values=values))
    assert stream(tokens_of(lists_of([3, 4, 5], values=values))) == [3, 4]  # of no row


def test_lists_that_are_slices_of_slices() -> None:
    values = pa.array(np.arange(100, dtype=np.uint16))[30:60]
    whole = lists_of([3, 5, 5, 12, 20, 29], values=values)
    assert stream(tokens_of(whole)) == list(range(33, 59))
    for kind in (SMALL, pa.large_list(pa.uint16())):
        part = lists_of([3, 5, 5, 12, 20, 29], kind=kind, values=values).slice(2, 2)
        tokens = tokens_of(part.slice(0, 0), part, part.slice(1), part.slice(0, 0))
        assert tokens.lengths().tolist() == [7, 8, 8]
        assert stream(tokens) == [*range(35, 50), *range(42, 50)]
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(100, dtype=np.uint16))[10:90], 8)
    assert stream(tokens_of(fixed.slice(2, 3), fixed.slice(9))) == [*range(26, 50), *range(82, 90)]
    empty = pa.array([[], []], pa.list_(pa.uint16(), 0))
    assert tokens_of(empty).lengths().tolist() == [0, 0]


@pytest.mark.parametrize("order", [False, True])
def test_runs_without_tokens(order: bool) -> None:
    dataset = datasets.Dataset(pa.table({"input_ids": lists_of([0, 4, 4, 9, 9])}))
    tokens = HuggingFaceTokens(dataset.select([2, 1, 0, 3]) if order else dataset)
    for place in range(10):
        assert read(tokens, [place, place], 0) == [[], []]
    assert stream(tokens) == ([4, 5, 6, 7, 8, 0, 1, 2, 3] if order else list(range(9)))
    with pytest.raises(IndexError, match="1 tokens from 9 on, of 9"):
        tokens.locate(np.array([9]), 1)


@pytest.mark.parametrize("rows", [[0, 4], [-1, 2], [2**40]])
def test_a_selection_of_rows_that_are_not_there(rows: list[int]) -> None:
    dataset = datasets.Dataset(pa.table({"input_ids": lists_of([0, 4, 4, 9, 9])})).select([3, 1])
    dataset._indices = datasets.table.InMemoryTable(pa.table({"indices": pa.array(rows)}))
    with pytest.raises(UsageError, match=rf"selection of rows {min(rows)} to {max(rows)} of 4"):
        HuggingFaceTokens(dataset)


def test_the_values_live_as_long_as_what_was_located() -> None:
    tokens = tokens_of(lists_of([0, 5, 9], values=pa.array(np.arange(50_000, dtype=np.uint16))))
    pieces = tokens.locate(np.array([2]), 6)
    rows = fill_rows(pieces, None, num_items=6, dtype=tokens.dtype, pad_token_id=None)
    del tokens, pieces
    gc.collect()
    junk = [np.full(50_000, 7, np.uint16) for _ in range(20)]
    assert rows.copy(0, 1).tolist() == [list(range(2, 8))]
    del junk
