"""A hash table in a mapped file: which entry of a segment a key's hash leads to.

Beside each segment lies its table. One process writes it; any process that maps it sees a new
entry at once, without a lock or a system call. An entry of the segment exists for readers when
it is in the table, which its writer does last.

The file is a header of 64 bytes (magic, capacity, number of used slots) and `capacity` slots of
two uint64: hash and place. A hash of 0 marks an empty slot, so a key's hash of 0 counts as 1.
Slots are probed one after another from hash modulo capacity, which is a power of two. The place
is written before the hash, so that a reader never sees a hash without its place; both are
8 bytes at a multiple of 8, which processors write whole.

The table is only a way to find things: a reader compares the key at each place, and the table
can be made again from the segment.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from easydata._fs import storage_errors
from easydata.errors import CorruptShardError
from easydata.format.mapping import map_file

__all__ = ["HashTable"]

_MAGIC = b"edtable1"
_HEADER = struct.Struct("<8sQQ")
_HEADER_BYTES = 64
_SLOT_BYTES = 16
_COUNT_ITEM = 2  # of the header seen as uint64
_MOST_FULL = 2 / 3


class HashTable:
    """Maps hashes to places. One writer at a time; readers need no lock.

    Attributes:
        capacity: how many slots there are.
    """

    def __init__(self, path: Path, *, writable: bool = False) -> None:
        """Map a table that `create` or `build` made.

        Raises:
            FileNotFoundError: there is none.
            CorruptShardError: the file is something else, or cut off.
        """
        data = _map_writable(path) if writable else memoryview(map_file(path))
        if len(data) < _HEADER_BYTES:
            raise CorruptShardError(f"{path} is no table of a cache segment.")
        magic, capacity, _ = _HEADER.unpack_from(data)
        is_power_of_two = capacity > 0 and not capacity & (capacity - 1)
        size = _HEADER_BYTES + capacity * _SLOT_BYTES
        if magic != _MAGIC or not is_power_of_two or size != len(data):
            raise CorruptShardError(f"{path} is no table of a cache segment.")
        self.capacity: int = capacity
        self._mask = capacity - 1
        self._header = data[:_HEADER_BYTES].cast("Q")
        self._slots = data[_HEADER_BYTES:].cast("Q")

    @classmethod
    def create(cls, path: Path, capacity: int) -> Self:
        """A new empty table to write to, with at least `capacity` slots.

        Raises:
            StorageError: the file cannot be written.
        """
        _write(path, np.zeros((_power_of_two(capacity), 2), np.uint64), 0)
        return cls(path, writable=True)

    @classmethod
    def build(
        cls, path: Path, hashes: npt.NDArray[np.uint64], places: npt.NDArray[np.uint64]
    ) -> Self:
        """A new table of these entries, half full.

        Args:
            path: the file; it must not exist.
            hashes: uint64[n]. Equal ones are those of different keys.
            places: uint64[n].

        Raises:
            StorageError: the file cannot be written.
        """
        slots = _fill(hashes, places, _power_of_two(2 * len(hashes)))
        _write(path, slots, len(hashes))
        return cls(path)

    def __len__(self) -> int:
        return self._header[_COUNT_ITEM]

    @property
    def is_full(self) -> bool:
        """True if no more should be added: probing would get slow."""
        return len(self) >= int(self.capacity * _MOST_FULL)

    def find(self, key_hash: int, after: int | None = None) -> int | None:
        """The slot of an entry with this hash, or None.

        Args:
            key_hash: uint64.
            after: the slot found before, whose key was another: look on from there.
        """
        key_hash = key_hash or 1
        slots, mask = self._slots, self._mask
        slot = key_hash & mask if after is None else (after + 1) & mask
        if slots[2 * slot] == key_hash:
            return slot
        # A table is never full, so there is an empty slot; a damaged one may have none.
        for _ in range(self.capacity):
            found = slots[2 * slot]
            if found == key_hash:
                return slot
            if not found:
                return None
            slot = (slot + 1) & mask
        return None

    def place(self, slot: int) -> int:
        """Where the entry in a slot is."""
        return self._slots[2 * slot + 1]

    def add(self, key_hash: int, place: int) -> None:
        """Add an entry, also if there are others with this hash.

        Raises:
            ValueError: the table is full.
        """
        if len(self) + 1 >= self.capacity:
            raise ValueError("the table is full")
        key_hash = key_hash or 1
        slots, mask = self._slots, self._mask
        slot = key_hash & mask
        while slots[2 * slot]:
            slot = (slot + 1) & mask
        slots[2 * slot + 1] = place
        slots[2 * slot] = key_hash
        self._header[_COUNT_ITEM] += 1

    def replace(self, slot: int, place: int) -> None:
        """Let a slot lead to another place: a newer entry of the same key."""
        self._slots[2 * slot + 1] = place

    def entries(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """uint64[n] each: hashes and places of all entries now, copied, in no order."""
        slots = np.array(self._slots, np.uint64).reshape(-1, 2)
        used = slots[slots[:, 0] != 0]
        return used[:, 0].copy(), used[:, 1].copy()


def _map_writable(path: Path) -> memoryview:
    """The file; what is written to the view is in it at once."""
    with path.open("r+b") as file:
        # The map keeps a descriptor, of which a process has few: one for a segment it writes.
        return memoryview(mmap.mmap(file.fileno(), 0))


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 1).bit_length()


def _write(path: Path, slots: npt.NDArray[np.uint64], count: int) -> None:
    header = _HEADER.pack(_MAGIC, len(slots), count).ljust(_HEADER_BYTES, b"\0")
    # Blocks are reserved by writing them: on a full disk a store into a map is a signal that
    # ends the process.
    with storage_errors(path), path.open("xb") as file:
        try:
            file.write(header)
            file.write(slots.astype("<u8", copy=False).data)
            file.flush()
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise


def _fill(
    hashes: npt.NDArray[np.uint64], places: npt.NDArray[np.uint64], capacity: int
) -> npt.NDArray[np.uint64]:
    """uint64[capacity, 2]: the slots that adding the entries one by one could give."""
    slots = np.zeros((capacity, 2), np.uint64)
    known = np.where(hashes == 0, np.uint64(1), hashes)
    home = (known & np.uint64(capacity - 1)).astype(np.int64)
    order = np.argsort(home, kind="stable")
    # Added by home slot, each entry lies at its home or just behind the one before it.
    number = np.arange(len(order))
    where = number + np.maximum.accumulate(home[order] - number)
    fits = where < capacity
    slots[where[fits], 0] = known[order[fits]]
    slots[where[fits], 1] = places[order[fits]]
    slot = 0
    for entry in order[~fits].tolist():  # what runs over the end goes on at the start
        while slots[slot, 0]:
            slot += 1
        slots[slot] = known[entry], places[entry]
    return slots
