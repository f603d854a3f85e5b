"""Memory maps that hold no file descriptor.

A map made by Python's `mmap` keeps a duplicate of the descriptor, so that a dataset of 10,000
shards runs into the limit on open files. Arrow's memory map may be closed while its buffers
live: the descriptor is given back, and the mapping goes when the last buffer does.
"""

from __future__ import annotations

import errno
import os

import pyarrow as pa

__all__ = ["end_of_data", "map_file"]


def map_file(path: str | os.PathLike[str]) -> pa.Buffer:
    """The whole file as a read-only buffer at a page-aligned address.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with pa.memory_map(os.fspath(path), "r") as file:
        return file.read_buffer()


def end_of_data(path: str | os.PathLike[str]) -> int:
    """Where the hole begins that a file ends with, or its size if it ends with data.

    Raises:
        FileNotFoundError: there is no such file.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(descriptor).st_size
        if not hasattr(os, "SEEK_HOLE"):  # pragma: no cover - Windows
            return size
        end = 0
        while end < size:
            try:
                start = os.lseek(descriptor, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole
                    return end
                return size  # a file system that does not tell
            end = os.lseek(descriptor, start, os.SEEK_HOLE)
        return end
    finally:
        os.close(descriptor)
