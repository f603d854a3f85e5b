"""Memory maps that hold no file descriptor.

A map made by Python's `mmap` keeps a duplicate of the descriptor, so that a dataset of 10,000
shards runs into the limit on open files. Arrow's memory map may be closed while its buffers
live: the descriptor is given back, and the mapping goes when the last buffer does.
"""

from __future__ import annotations

import os

import pyarrow as pa

__all__ = ["map_file"]


def map_file(path: str | os.PathLike[str]) -> pa.Buffer:
    """The whole file as a read-only buffer at a page-aligned address.

    Raises:
        FileNotFoundError: there is no such file.
    """
    with pa.memory_map(os.fspath(path), "r") as file:
        return file.read_buffer()
