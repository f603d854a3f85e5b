"""Parts: runs of records that are tokenized, checked for change and reused as one.

Where one part ends and the next begins follows from nearby content alone, so that an edit moves
no distant boundary ("local maximum chunking": Bjørner, Blass & Gurevich, "Content-dependent
chunking for differential compression, the local maximum approach", 2010):

* A record of a large file ends a part if its mark (a hash of the record) is the least of all
  marks within `window` bytes on either side, the file's start and end not within reach.
  Boundaries are then 2 × window apart on average and never closer than window.
* Where no such record comes within 4 × window bytes, as in a file of equal lines, the part is
  cut there. That adds a boundary and moves none.
* Small files (up to window / 16) that follow each other share parts; there the files play the
  role of records. Large files and objects share no part with others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from easydata.fingerprint import Hasher
from easydata.sources import Block

__all__ = ["Part", "Span", "block_bytes_for", "cut_parts"]

Int64Array = npt.NDArray[np.int64]
_MAX_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Span:
    """Consecutive records of one source.

    Attributes:
        source: its index in the list of sources.
        block: the records.
        key: their identity, and that of the recipe; "" before the part is complete.
    """

    source: int
    block: Block
    key: str = ""


@dataclass(frozen=True)
class Part:
    """A run of records and its identity, which follows from their content and the recipe."""

    key: str
    spans: tuple[Span, ...]


class SourceBlocks(NamedTuple):
    """One source being read.

    Attributes:
        is_file: it may share a part with its neighbours if it is small.
        blocks: its records, in blocks of at most `block_bytes_for(window)` or one record.
    """

    is_file: bool
    blocks: Iterable[Block]


def block_bytes_for(window: int) -> int:
    """The largest block size that `cut_parts` works with."""
    return min(_MAX_BLOCK_BYTES, max(1, window // 4))


def cut_parts(sources: Iterable[SourceBlocks], window: int, recipe: str) -> Iterator[Part]:
    """Parts of these sources, in order. At most about 5 × window bytes are held at a time."""
    for _, numbered_units in groupby(_units(sources, window), key=lambda item: item[0]):
        units = (unit for _, unit in numbered_units)
        for pieces in _cut_run(units, window):
            yield _make_part(pieces, recipe)


class _Unit(Protocol):
    """Some records (or small files) in a row: where each ends, its mark, and how to cut."""

    ends: Int64Array
    marks: npt.NDArray[np.uint64]

    def pieces(self, start: int, stop: int) -> list[Span]: ...


class _BlockUnit:
    """A block of a large source; may be cut after any record."""

    def __init__(self, source: int, block: Block) -> None:
        self._span = Span(source, block)
        self.ends = block.ends
        self.marks = block.marks()

    def pieces(self, start: int, stop: int) -> list[Span]:
        return [Span(self._span.source, self._span.block.slice(start, stop))]


class _FilesUnit:
    """Several small files; may be cut after any file."""

    def __init__(self, files: Sequence[tuple[int, list[Block]]]) -> None:
        self._files = files
        sizes = [sum(block.nbytes for block in blocks) for _, blocks in files]
        self.ends = np.cumsum(sizes, dtype=np.int64)
        self.marks = np.array(
            [_sum_marks(blocks) for _, blocks in files],
            np.uint64,
        )

    def pieces(self, start: int, stop: int) -> list[Span]:
        return [
            Span(source, block) for source, blocks in self._files[start:stop] for block in blocks
        ]


def _units(sources: Iterable[SourceBlocks], window: int) -> Iterator[tuple[int, _Unit]]:
    """Units with the number of the run they belong to; parts never cross runs."""
    run = 0
    small_limit = window // 16
    files: list[tuple[int, list[Block]]] = []
    files_bytes = 0
    for index, source in enumerate(sources):
        blocks = (block for block in source.blocks if block.num_records)
        head: list[Block] = []
        size = 0
        for block in blocks:
            head.append(block)
            size += block.nbytes
            if size > small_limit:
                break
        if source.is_file and size <= small_limit:
            if head:
                files.append((index, head))
                files_bytes += size
            if files_bytes > block_bytes_for(window) // 2:
                yield run, _FilesUnit(files)
                files, files_bytes = [], 0
            continue
        if files:
            yield run, _FilesUnit(files)
            files, files_bytes = [], 0
        for block in chain(head, blocks):
            yield run + 1, _BlockUnit(index, block)
        run += 2
    if files:
        yield run, _FilesUnit(files)


class _Placed(NamedTuple):
    """A unit and the positions in its run at which it starts and its records end."""

    unit: _Unit
    ends: Int64Array


def _cut_run(units: Iterable[_Unit], window: int) -> Iterator[list[Span]]:
    """The pieces of each part of one run."""
    waiting: deque[_Placed] = deque()  # not yet part of a part
    recent: deque[_Placed] = deque()  # within the window of an undecided candidate
    candidates: deque[tuple[int, int]] = deque()  # the least mark of each unit, and its place
    cuts: deque[int] = deque()
    start = position = 0

    def advance(horizon: int) -> Iterator[list[Span]]:
        """Parts that are complete now that every boundary up to `horizon` is known."""
        nonlocal start
        while True:
            forced = _first_end(waiting, start + 4 * window)
            if cuts and (forced is None or cuts[0] <= forced):
                stop = cuts.popleft()
            elif forced is not None and forced <= horizon:
                stop = forced
            else:
                return
            yield _take(waiting, stop)
            start = stop

    for unit in units:
        placed = _Placed(unit, unit.ends + position)
        position = int(placed.ends[-1])
        waiting.append(placed)
        recent.append(placed)
        least = int(np.argmin(unit.marks))
        candidates.append((int(placed.ends[least]), int(unit.marks[least])))
        while candidates and candidates[0][0] + window <= position:
            place, mark = candidates.popleft()
            if place >= window and _is_least(recent, place, mark, window):
                cuts.append(place)
            while recent[0].ends[-1] <= place - window:
                recent.popleft()
        yield from advance(position - window)
    yield from advance(position)
    if waiting:
        yield _take(waiting, position)


def _is_least(recent: Iterable[_Placed], place: int, mark: int, window: int) -> bool:
    """True if no mark within the window is less, nor an earlier one equal."""
    for placed in recent:
        low, here, after, high = np.searchsorted(
            placed.ends, [place - window + 1, place, place + 1, place + window + 1]
        ).tolist()
        marks = placed.unit.marks
        if (marks[low:here] <= mark).any() or (marks[after:high] < mark).any():
            return False
    return True


def _first_end(waiting: Iterable[_Placed], position: int) -> int | None:
    """The first place at or after `position` where a record ends."""
    for placed in waiting:
        if placed.ends[-1] >= position:
            return int(placed.ends[np.searchsorted(placed.ends, position)])
    return None


def _take(waiting: deque[_Placed], stop: int) -> list[Span]:
    """Remove everything up to `stop` from the front."""
    pieces: list[Span] = []
    while waiting and waiting[0].ends[-1] <= stop:
        placed = waiting.popleft()
        pieces += placed.unit.pieces(0, len(placed.ends))
    if waiting:
        placed = waiting[0]
        count = int(np.searchsorted(placed.ends, stop, side="right"))
        if count:
            pieces += placed.unit.pieces(0, count)
            waiting[0] = _Placed(_Rest(placed.unit, count), placed.ends[count:])
    return pieces


class _Rest:
    """What is left of a unit after a cut inside it."""

    def __init__(self, unit: _Unit, first: int) -> None:
        self._unit = unit
        self._first = first
        self.ends = unit.ends[first:]
        self.marks = unit.marks[first:]

    def pieces(self, start: int, stop: int) -> list[Span]:
        return self._unit.pieces(self._first + start, self._first + stop)


def _make_part(pieces: list[Span], recipe: str) -> Part:
    spans, digests = [], []
    for source, group in groupby(pieces, key=lambda span: span.source):
        blocks = [span.block for span in group]
        block = type(blocks[0]).join(blocks)
        digests.append(block.digest())
        spans.append(Span(source, block, Hasher(recipe.encode() + digests[-1]).hexdigest()))
    return Part(Hasher(recipe.encode() + b"".join(digests)).hexdigest(), tuple(spans))


def _sum_marks(blocks: Sequence[Block]) -> int:
    total = sum(int(block.marks().sum(dtype=np.uint64)) for block in blocks)
    # A sum of few marks is still as good as random; spread it once more for files of one record.
    return (total * 0x9E3779B97F4A7C15) & ((1 << 64) - 1)
