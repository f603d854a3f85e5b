from __future__ import annotations

import itertools

import numpy as np
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.format.checksums import BLOCK_BYTES, block_checksums, block_count

MIB = 1 << 20
SOME_BYTES = np.random.default_rng(0).bytes(3 * MIB + 5)


def naive(data: bytes) -> list[int]:
    """What the specification says, a block at a time with the one-shot function."""
    return [xxhash.xxh3_64_intdigest(data[at : at + MIB]) for at in range(0, len(data), MIB)]


def test_published_vectors() -> None:
    # From the xxHash project's own test vectors: XXH3 64 bits, seed 0, of the empty input.
    assert xxhash.xxh3_64_intdigest(b"") == 0x2D06800538D394C2
    assert block_checksums([b"a"]).tolist() == [0xE6C632B61E964E1F]
    assert block_checksums([b"easydata"]).tolist() == [0xD8EC805B66B19F24]
    assert BLOCK_BYTES == MIB


@pytest.mark.parametrize(
    "size", [1, MIB - 1, MIB, MIB + 1, 2 * MIB - 1, 2 * MIB, 2 * MIB + 1, 3 * MIB + 5]
)
def test_edges_of_blocks(size: int) -> None:
    data = SOME_BYTES[:size]
    found = block_checksums([data])
    assert found.dtype == np.uint64
    assert found.tolist() == naive(data)
    assert len(found) == block_count(size)


def test_no_bytes_have_no_block() -> None:
    assert block_checksums([]).tolist() == []
    assert block_checksums([b"", memoryview(b"")]).tolist() == []
    assert block_count(0) == 0


@settings(max_examples=60)
@given(
    st.sampled_from([0, 10, MIB - 1, MIB, MIB + 1, 2 * MIB + 7]),
    st.lists(st.floats(0, 1), max_size=5),
)
def test_pieces_do_not_matter(size: int, cuts: list[float]) -> None:
    data = memoryview(SOME_BYTES)[:size]
    edges = [0, *sorted(int(cut * size) for cut in cuts), size]
    pieces = [data[start:stop] for start, stop in itertools.pairwise(edges)]
    assert block_checksums(pieces).tolist() == naive(bytes(data))


def test_pieces_may_be_arrays_of_numbers() -> None:
    values = np.arange(1000, dtype=np.uint32)
    assert block_checksums([memoryview(values)]).tolist() == naive(values.tobytes())


def test_counts_of_many_regions() -> None:
    sizes = np.array([0, 1, MIB, MIB + 1, 5 * MIB])
    assert block_count(sizes).tolist() == [0, 1, 1, 2, 5]
