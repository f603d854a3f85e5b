"""A hash table in a mapped file: which entry of a segment a key's hash leads to.

Beside each segment lies its table. One process writes it; any process that maps it sees a new
entry at once, without a lock or a system call. An entry of the segment exists for readers when
it is in the table, which its writer does last.

The file is a header of 64 bytes (magic, capacity, number of used slots, and of a sealed table the
XXH3-64 of its slots with that number as the seed) and `capacity` slots of two uint64: hash and
place. A hash of 0 marks an empty slot, so a key's hash of 0 counts as 1. Slots are probed one
after another from hash modulo capacity, which is a power of two. The place is written before the
hash, so that a reader never sees a hash without its place; both are 8 bytes at a multiple of 8,
which processors write whole.

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
import xxhash

from easydata._fs import storage_errors
from easydata.errors import CorruptShardError
from easydata.format.mapping import map_file

__all__ = ["HashTable"]

_MAGIC = b"edtable1"
_HEADER = struct.Struct("<8sQQQ")
_HEADER_BYTES = 64
_SLOT_BYTES = 16
_COUNT_ITEM = 2  # of the header seen as uint64
_MOST_FULL = 2 / 3
_FEW = 16  # so many are found faster one by one


class HashTable:
    """Maps hashes to places. One writer at a time; readers need no lock.

    Attributes:
        capacity: how many slots there are.
    """

    def __init__(self, path: Path, *, writable: bool = False, is_sealed: bool = False) -> None:
        """Map a table that `create` or `build` made.

        Args:
            path: the file.
            writable: more will be entered.
            is_sealed: `build` made it, and so it has a checksum.

        Raises:
            FileNotFoundError: there is none.
            CorruptShardError: the file is something else, damaged, or cut off.
        """
        self._map = _map_writable(path) if writable else None
        data = memoryview(map_file(path) if self._map is None else self._map)
        if not _is_table(data, is_sealed=is_sealed):
            raise CorruptShardError(f"{path} is no table of a cache segment.")
        self._view(data)

    def _view(self, data: memoryview) -> None:
        self.capacity = (len(data) - _HEADER_BYTES) // _SLOT_BYTES
        self._mask = self.capacity - 1
        self._most = int(self.capacity * _MOST_FULL)
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
    def of(cls, hashes: npt.NDArray[np.uint64], places: npt.NDArray[np.uint64]) -> Self:
        """The table that `build` makes, in memory only."""
        slots = _fill(hashes, places, _power_of_two(2 * len(hashes)))
        table = cls.__new__(cls)
        table._view(memoryview(_header(slots, len(hashes)) + slots.tobytes()))  # noqa: SLF001
        return table

    @classmethod
    def build(
        cls, path: Path, hashes: npt.NDArray[np.uint64], places: npt.NDArray[np.uint64]
    ) -> Self:
        """A new table of these entries, half full.

        Args:
            path: the file; it must not exist.
            hashes: uint64[n]. Of equal ones, `find` gives the first given first.
            places: uint64[n].

        Raises:
            StorageError: the file cannot be written.
        """
        slots = _fill(hashes, places, _power_of_two(2 * len(hashes)))
        _write(path, slots, len(hashes))
        return cls(path)

    def __len__(self) -> int:
        return self._header[_COUNT_ITEM]

    def has_room(self, entries: int) -> bool:
        """True if so many more can be added before probing gets slow."""
        return self._header[_COUNT_ITEM] + entries <= self._most

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

    def find_many(
        self, hashes: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.uint64]]:
        """bool[n], uint64[n]: whether each hash is here, and the place in the slot that `find`
        gives; any number where it is not.
        """
        slots = np.frombuffer(self._slots, np.uint64)
        known = np.where(hashes == 0, np.uint64(1), hashes)
        probed = (known & np.uint64(self._mask)).astype(np.int64)
        here = slots[2 * probed]
        left = np.flatnonzero((here != known) & (here != 0))
        for _ in range(self.capacity):  # as in `find`
            if len(left) <= _FEW:
                break
            following = (probed[left] + 1) & self._mask
            probed[left] = following
            here[left] = seen = slots[2 * following]
            left = left[(seen != known[left]) & (seen != 0)]
        for at in left.tolist():
            slot = self.find(int(known[at]))
            here[at] = 0 if slot is None else known[at]
            probed[at] = slot or 0
        return here == known, slots[2 * probed + 1]

    def flush(self) -> None:
        """Wait until the entries of a table that is written to are on the disk."""
        if self._map is not None:
            self._map.flush()

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

    def add_new(self, key_hash: int, place: int) -> bool:
        """Add an entry if there is none with this hash; False if there is. It must have room."""
        key_hash = key_hash or 1
        slots, mask = self._slots, self._mask
        at = 2 * (key_hash & mask)
        while found := slots[at]:
            if found == key_hash:
                return False
            at = (at + 2) & (2 * mask + 1)
        slots[at + 1] = place
        slots[at] = key_hash
        self._header[_COUNT_ITEM] += 1
        return True

    def replace(self, slot: int, place: int) -> None:
        """Let a slot lead to another place: a newer entry of the same key."""
        self._slots[2 * slot + 1] = place

    def entries(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        """uint64[n] each: hashes and places of all entries now, copied, in no order."""
        slots = np.array(self._slots, np.uint64).reshape(-1, 2)
        used = slots[slots[:, 0] != 0]
        return used[:, 0].copy(), used[:, 1].copy()


def _map_writable(path: Path) -> mmap.mmap:
    """The file; what is written to the map is in it at once."""
    with path.open("r+b") as file:
        # The map keeps a descriptor, of which a process has few: one for a segment it writes.
        return mmap.mmap(file.fileno(), 0)


def _power_of_two(size: int) -> int:
    return 1 << max(size - 1, 1).bit_length()


def _is_table(data: memoryview, *, is_sealed: bool) -> bool:
    if len(data) < _HEADER_BYTES:
        return False
    magic, capacity, count, checksum = _HEADER.unpack_from(data)
    is_power_of_two = capacity > 0 and not capacity & (capacity - 1)
    if (
        magic != _MAGIC
        or not is_power_of_two
        or len(data) != _HEADER_BYTES + capacity * _SLOT_BYTES
    ):
        return False
    if not checksum:
        return not is_sealed
    return bool(checksum == xxhash.xxh3_64_intdigest(data[_HEADER_BYTES:], count))


def _header(slots: npt.NDArray[np.uint64], count: int) -> bytes:
    # A table that is to grow has none.
    checksum = xxhash.xxh3_64_intdigest(slots.data, count) if count else 0
    return _HEADER.pack(_MAGIC, len(slots), count, checksum).ljust(_HEADER_BYTES, b"\0")


def _write(path: Path, slots: npt.NDArray[np.uint64], count: int) -> None:
    # Blocks are reserved by writing them: on a full disk a store into a map is a signal that
    # ends the process.
    with storage_errors(path), path.open("xb") as file:
        try:
            file.write(_header(slots, count))
            file.write(slots.astype("<u8", copy=False).data)
            file.flush()
        except BaseException:  # also Ctrl-C: nothing may be left
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
