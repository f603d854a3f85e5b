"""Where parts end: against a slow oracle written from the module's text, and on real files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from easydata.build.parts import Part, SourceBlocks, block_bytes_for, cut_parts
from easydata.sources import find_sources

from .support import jsonl, rows, write

Records = list[tuple[int, int]]  # bytes and mark of each record


@dataclass(frozen=True)
class FakeBlock:
    """Records of which only the size, the mark and the place in the source are known."""

    records: tuple[tuple[int, int], ...]
    first_record: int = 0

    @property
    def num_records(self) -> int:
        return len(self.records)

    @property
    def nbytes(self) -> int:
        return sum(size for size, _ in self.records)

    @property
    def ends(self) -> np.ndarray:
        return np.cumsum([size for size, _ in self.records], dtype=np.int64)

    def marks(self) -> np.ndarray:
        return np.array([mark for _, mark in self.records], np.uint64)

    def slice(self, start: int, stop: int) -> FakeBlock:
        return FakeBlock(self.records[start:stop], self.first_record + start)

    @classmethod
    def join(cls, blocks: Sequence[FakeBlock]) -> FakeBlock:
        for left, right in pairwise(blocks):
            assert left.first_record + left.num_records == right.first_record
        return cls(tuple(r for block in blocks for r in block.records), blocks[0].first_record)

    def digest(self) -> bytes:
        return repr(self.records).encode()


def in_blocks(records: Records, limit: int) -> list[FakeBlock]:
    """Blocks of at most `limit` bytes, or of one longer record."""
    blocks: list[list[tuple[int, int]]] = []
    for record in records:
        if blocks and sum(size for size, _ in blocks[-1]) + record[0] <= limit:
            blocks[-1].append(record)
        else:
            blocks.append([record])
    starts = np.cumsum([0, *map(len, blocks)]).tolist()
    return [FakeBlock(tuple(b), start) for b, start in zip(blocks, starts, strict=False)]


def oracle(records: Records, window: int) -> list[int]:
    """Positions where the parts of one large file end, straight from the docstring."""
    ends: list[int] = []
    for size, _ in records:
        ends.append((ends[-1] if ends else 0) + size)
    total = ends[-1]
    natural = []
    for i, (place, (_, mark)) in enumerate(zip(ends, records, strict=True)):
        if place < window or place + window > total:
            continue
        rivals = [
            (other_mark, j)
            for j, (other, (_, other_mark)) in enumerate(zip(ends, records, strict=True))
            if j != i and place - window < other <= place + window
        ]
        if all((mark, i) < rival for rival in rivals):
            natural.append(place)
    cuts = []
    start = 0
    while start < total:
        forced = next((end for end in ends if end >= start + 4 * window), total)
        start = min([place for place in natural if place > start] + [forced])
        start = min(start, forced)
        cuts.append(start)
    return cuts


def cut_fake(records: Records, window: int, block_bytes: int) -> list[Part]:
    blocks = in_blocks(records, block_bytes)
    return list(cut_parts([SourceBlocks(False, blocks)], window, "r"))


def positions(parts: Sequence[Part]) -> list[int]:
    return np.cumsum([sum(s.block.nbytes for s in part.spans) for part in parts]).tolist()


record_lists = st.lists(
    st.tuples(st.integers(1, 90), st.integers(0, 30) | st.integers(0, 2**64 - 1)),
    min_size=1,
    max_size=80,
)


@given(record_lists, st.integers(16, 300), st.data())
@example([(10, 5)] * 100, 40, None)
@settings(max_examples=100)
def test_cuts_are_where_the_docstring_says(records, window, data):
    limit = block_bytes_for(window)
    block_bytes = limit if data is None else data.draw(st.integers(1, limit))
    parts = cut_fake(records, window, block_bytes)
    assert positions(parts) == oracle(records, window)
    spans = [span for part in parts for span in part.spans]
    assert [r for span in spans for r in span.block.records] == records


def test_equal_records_are_cut_at_four_windows():
    parts = cut_fake([(10, 7)] * 100, 40, 10)
    assert positions(parts) == [160, 320, 480, 640, 800, 960, 1000]


def test_boundaries_are_two_windows_apart_on_average_and_never_nearer_than_one():
    chance = random.Random(1)
    records = [(chance.randint(1, 20), chance.getrandbits(64)) for _ in range(10_000)]
    window = 500
    ends = positions(cut_fake(records, window, 125))
    gaps = np.diff([0, *ends[:-1]])
    total = sum(size for size, _ in records)
    assert 1.6 * window < total / len(ends) < 2.4 * window
    # What is forced may lie nearer to its neighbour; with random marks it is rare.
    assert np.mean(gaps < window) < 0.05


def real_parts(paths: Sequence[Path], window: int, block_bytes: int | None = None) -> list[Part]:
    sources = find_sources(list(paths))
    size = block_bytes or block_bytes_for(window)
    streams = [source.open(["text"], size) for source in sources]
    stream = (
        SourceBlocks(source.is_file, iter(reader))
        for source, reader in zip(sources, streams, strict=True)
    )
    try:
        return list(cut_parts(stream, window, "recipe"))
    finally:
        for reader in streams:
            reader.close()


def content(parts: Sequence[Part]) -> bytes:
    return b"".join(bytes(span.block.content) for part in parts for span in part.spans)


WINDOW = 1000
FILE = rows(1500, seed=26)
SIZES = [len(jsonl([row])) for row in FILE]


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    path = write(tmp_path_factory.mktemp("parts") / "a.jsonl", FILE)
    parts = real_parts([path], WINDOW)
    assert content(parts) == path.read_bytes()
    assert len(parts) > 50
    # No forced cuts here: those are looked for from the boundary before them.
    assert max(np.diff([0, *positions(parts)])) < 4 * WINDOW
    return parts


@given(
    st.integers(0, len(FILE)),
    st.integers(0, 30),
    st.lists(st.text(max_size=200), max_size=8),
)
@example(0, 0, ["before"])
@example(len(FILE), 0, ["behind"])
@example(700, 3, [])
@settings(max_examples=12)
def test_an_edit_changes_only_parts_near_it(tmp_path_factory, original, place, deleted, added):
    path = tmp_path_factory.mktemp("edit") / "b.jsonl"
    edited = [*FILE[:place], *({"text": text} for text in added), *FILE[place + deleted :]]
    write(path, edited)
    parts = real_parts([path], WINDOW)
    assert content(parts) == path.read_bytes()

    # A boundary looks one window around itself, and none is forced more than four windows away
    # from an unmoved one.
    begin = sum(SIZES[:place])
    stop = sum(SIZES[: place + deleted])
    keys = [part.key for part in parts]
    ends = positions(original)
    before = [p.key for p, end in zip(original, ends, strict=True) if end < begin - 5 * WINDOW]
    starts = [0, *ends[:-1]]
    after = [p.key for p, start in zip(original, starts, strict=True) if start > stop + 5 * WINDOW]
    assert keys[: len(before)] == before
    assert keys[len(keys) - len(after) :] == after


@pytest.mark.parametrize("block_bytes", [1, 17, 100, 250])
def test_cuts_do_not_depend_on_the_block_size(tmp_path, original, block_bytes):
    path = write(tmp_path / "a.jsonl", FILE)
    parts = real_parts([path], WINDOW, block_bytes)
    assert [part.key for part in parts] == [part.key for part in original]
    assert positions(parts) == positions(original)
    assert content(parts) == path.read_bytes()


def test_keys_do_not_depend_on_names_or_compression(tmp_path, original):
    plain = write(tmp_path / "other name.jsonl", FILE)
    packed = tmp_path / "c.jsonl.zst"
    packed.write_bytes(zstandard.compress(plain.read_bytes()))
    for path in (plain, packed):
        assert [part.key for part in real_parts([path], WINDOW)] == [p.key for p in original]


def test_keys_depend_on_the_recipe_and_the_content(tmp_path):
    block = FakeBlock(((10, 1),))
    other = FakeBlock(((10, 2),))
    keys = {
        next(cut_parts([SourceBlocks(False, [found])], 100, recipe)).key
        for found in (block, other)
        for recipe in ("one", "two")
    }
    assert len(keys) == 4


def test_small_files_share_parts_and_large_ones_do_not(tmp_path):
    window = 1600
    sizes = [40] * 200 + [3000, 3000] + [40] * 10
    paths = []
    for number, size in enumerate(sizes):
        path = tmp_path / f"{number:03}.txt"
        path.write_text(f"{number:03}".ljust(size, "x"))
        paths.append(path)
    parts = real_parts(paths, window)
    groups = [[span.source for span in part.spans] for part in parts]
    assert [source for group in groups for source in group] == list(range(len(sizes)))
    assert [200] in groups
    assert [201] in groups
    assert groups[-1] == list(range(202, 212))
    small = [group for group in groups if group[-1] < 200]
    assert 2 <= len(small) <= 8000 / window  # never nearer than a window, so no more than this
    inner = positions(parts[: len(small)])
    assert min(np.diff([0, *inner[:-1]]), default=window) >= window

    # One file more moves no distant boundary.
    extra = tmp_path / "100a.txt"
    extra.write_text("new".ljust(40, "y"))
    changed = real_parts([*paths[:101], extra, *paths[101:]], window)
    kept = {part.key for part in parts} & {part.key for part in changed}
    assert len(kept) >= len(parts) - 3


def test_parts_of_small_files_follow_the_same_rule():
    window = 320
    chance = random.Random(3)
    files: Records = [(chance.randint(1, 20), chance.getrandbits(60)) for _ in range(300)]
    sources = [SourceBlocks(True, [FakeBlock((record,))]) for record in files]
    parts = list(cut_parts(sources, window, "r"))
    spread = [(size, mark * 0x9E3779B97F4A7C15 % 2**64) for size, mark in files]
    assert positions(parts) == oracle(spread, window)


def test_empty_sources_leave_no_part_and_no_span():
    one = FakeBlock(((50, 1),))
    sources = [
        SourceBlocks(True, []),
        SourceBlocks(False, []),
        SourceBlocks(True, [FakeBlock(()), one]),
        SourceBlocks(True, [FakeBlock(())]),
    ]
    (part,) = cut_parts(sources, 1000, "r")
    assert [span.source for span in part.spans] == [2]


def test_only_a_few_windows_are_held():
    window = 400
    given_bytes = 0

    def blocks():
        nonlocal given_bytes
        chance = random.Random(0)
        for i in range(5000):
            given_bytes += 50
            # Half of it equal, so that cuts are forced too.
            yield FakeBlock(((50, 0 if i > 2500 else chance.getrandbits(64)),), i)

    taken = 0
    for part in cut_parts([SourceBlocks(False, blocks())], window, "r"):
        taken += sum(span.block.nbytes for span in part.spans)
        assert given_bytes - taken <= 5 * window + 100
    assert taken == 250_000
