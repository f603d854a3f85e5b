"""The segments of a folder, as they are now."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np

from easydata.cache.log.blocks import Blocks, open_blocks
from easydata.cache.log.control import GENERATION, Control
from easydata.cache.log.decoded import DecodedBlocks
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.segment import ROW_BITS, Segment, newest_possible
from easydata.cache.log.table import HashTable
from easydata.errors import CorruptShardError

__all__ = ["Segments", "Unreadable", "rebuilt_table"]


class Unreadable(NamedTuple):
    """A segment that cannot be opened.

    Attributes:
        path: its file.
        table: what it had; None if that cannot be read either.
        newest_possible: none of its entries has this stamp or a later one.
        problem: what is wrong, for people.
    """

    path: Path
    table: HashTable | None
    newest_possible: int
    problem: str


class Segments:
    """Opens segments that come and forgets those that go. Safe to share between threads."""

    def __init__(
        self, folder: CacheFolder, control: Control, decoded: DecodedBlocks, *, check: bool
    ) -> None:
        """
        Args:
            folder: where they lie.
            control: tells when they change.
            decoded: where their decoded blocks are kept.
            check: compare checksums.
        """
        self._folder = folder
        self._control = control
        self._words = control.words
        self._decoded = decoded
        self._check = check
        self._lock = threading.Lock()
        self._known: dict[str, Segment] = {}
        self._unreadable: dict[str, Unreadable] = {}
        self._generation: int | None = None
        self._now: tuple[Segment, ...] = ()

    def __call__(self) -> tuple[Segment, ...]:
        """All segments, the newest first."""
        if self._words[GENERATION] != self._generation:
            self._look()
        return self._now

    def look_again(self) -> None:
        """A segment turned out to be gone: list them anew, whatever `Control` says."""
        self._generation = None

    def unreadable(self) -> Collection[Unreadable]:
        """The segments that cannot be opened, as the last call found them."""
        return self._unreadable.values()

    def add(self, segment: Segment) -> None:
        """A segment of this process, which `_look` need not open."""
        with self._lock:
            self._known[segment.name] = segment

    def after_fork(self) -> None:
        """In the child: nobody holds the lock."""
        self._lock = threading.Lock()

    def _look(self) -> None:
        with self._lock:
            while self._control.generation != self._generation:
                generation = self._control.generation
                names = self._folder.segments()
                known, unreadable = {}, {}
                for name, path in names.items():
                    found: Segment | Unreadable | None
                    found = self._known.get(name) or self._unreadable.get(name)
                    found = found or self._open(name, path)
                    if isinstance(found, Segment):
                        known[name] = found
                    elif found is not None:
                        unreadable[name] = found
                if names != self._folder.segments():
                    continue  # a listing of a folder that changes may miss what was always there
                self._known, self._unreadable = known, unreadable
                # By stamp, whatever the kind.
                order = sorted(known, key=lambda name: name[4:], reverse=True)
                self._now = tuple(known[name] for name in order)
                self._generation = generation

    def _open(self, name: str, path: Path) -> Segment | Unreadable | None:
        table = None
        with contextlib.suppress(FileNotFoundError, CorruptShardError):
            table = HashTable(self._folder.table(name), is_sealed=name.startswith("seg-"))
        try:
            blocks = open_blocks(path, self._decoded, check=self._check)
            if table is None:  # an empty one counts as false
                table = rebuilt_table(blocks)
            segment = Segment(name, path, blocks, table)
            if segment.is_large and not len(table):
                raise CorruptShardError(f"{path} is damaged: its entry is lost.")
            return segment
        except FileNotFoundError:  # merged into another a moment ago
            return None
        except CorruptShardError as error:
            return Unreadable(path, table, newest_possible(name), str(error))


def rebuilt_table(blocks: Blocks) -> HashTable:
    """What leads to the entries of a segment, made from its blocks, in memory.

    Of several entries of a key the newest counts.
    """
    hashes, places = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for unit in blocks.units():
        view, start = blocks.block(unit)
        rows = blocks.codec.locate_rows(view, start)
        hashes.append(rows.hashes)
        places.append(np.arange(len(rows), dtype=np.uint64) + np.uint64(unit << ROW_BITS))
    # The newest first, as that is the one that is found.
    return HashTable.of(np.concatenate(hashes)[::-1], np.concatenate(places)[::-1])
