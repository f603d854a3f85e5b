"""The blocks of an uncompressed segment: its messages, as they lie in a map of the file."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash

from easydata.cache.log.framing import walk
from easydata.cache.log.layout import CHECKSUM_BYTES
from easydata.cache.log.message import EntryCodec
from easydata.errors import CorruptShardError
from easydata.format.alignment import ALIGNMENT
from easydata.format.mapping import end_of_data, map_file

__all__ = ["ArraysOfMap", "MappedBlocks"]

_U64 = struct.Struct("<Q")
_hash = xxhash.xxh3_64_intdigest


class ArraysOfMap(dict[np.dtype[Any], npt.NDArray[Any]]):
    """By dtype the whole file as a read-only array, made when it is first asked for."""

    def __init__(self, view: memoryview) -> None:
        super().__init__()
        self._view = view

    def __missing__(self, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        array = np.frombuffer(self._view, dtype, len(self._view) // dtype.itemsize)
        self[dtype] = array
        return array


class MappedBlocks:
    """Messages in a file that may be growing. Safe to share between threads.

    Attributes:
        path: the file.
        codec: of its messages.
        view: the whole file; a longer one takes its place when the file has grown.
        arrays: the same as an array of each dtype.
    """

    is_mapped = True

    def __init__(self, path: Path, codec: EntryCodec, *, check: bool = True) -> None:
        """Map the file.

        Args:
            path: the file.
            codec: as its schema message says.
            check: compare the checksum of a message at first touch.

        Raises:
            FileNotFoundError: it is not there (any more).
        """
        self.path = path
        self.codec = codec
        self._check_sums = check
        self._checked = bytearray()
        self._map()

    @property
    def num_bytes(self) -> int:
        """Size of the file, with what is reserved."""
        return len(self.view)

    def block(self, unit: int) -> tuple[memoryview, int]:
        """A view and where in it the message at 64 times `unit` starts, checked at first touch.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """
        if unit >= len(self._checked) or not self._checked[unit]:
            self._check(unit)
        return self.view, unit * ALIGNMENT

    def units(self, first: int = 0) -> Iterator[int]:
        """Every whole message from a place on, in order."""
        end = len(self.view)
        with contextlib.suppress(FileNotFoundError):  # merged into another; the map remains
            if self.path.stat().st_size > end:
                self._map()
            # Beyond is what was reserved. To read it takes memory in a file system that lies in
            # memory, and if that is full the process dies.
            end = end_of_data(self.path)
        for start, _ in walk(self.view[:end], first * ALIGNMENT):
            yield start // ALIGNMENT

    def _check(self, unit: int) -> None:
        start = unit * ALIGNMENT
        if start + self.codec.header_bytes > len(self.view):
            self._map()  # it has grown
        end = start + self._size(start)
        if end > len(self.view):
            self._map()
        view = self.view
        # Whatever the header says: it is right if the checksum is.
        if start + self.codec.header_bytes < end <= len(view):
            end -= CHECKSUM_BYTES
            if not self._check_sums or _U64.unpack_from(view, end)[0] == _hash(view[start:end]):
                self._checked[unit] = 1
                return
        raise CorruptShardError(f"{self.path} is damaged in the entry at byte {start}.")

    def _size(self, start: int) -> int:
        if start + self.codec.header_bytes > len(self.view):
            return 0
        return self.codec.message_bytes(self.view, start)

    def _map(self) -> None:
        # Views of the old map stay valid as long as somebody holds them.
        view = memoryview(map_file(self.path)).cast("B")  # Arrow's are of signed chars
        # Writers only append: what was checked in the old map is the same in the new one.
        checked = bytearray(len(view) // ALIGNMENT + 1)
        checked[: len(self._checked)] = self._checked
        self.view, self._checked = view, checked
        self.arrays = ArraysOfMap(view)
