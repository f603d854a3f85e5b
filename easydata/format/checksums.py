"""XXH3-64 checksums of blocks of at most 1 MiB, over every byte of a shard.

A shard is cut into *regions*: the header, each record batch, the tail. Each region is cut into
blocks of 1 MiB, the last one shorter. A block never spans two batches, so the checksums of an
encoded batch stay the same when it is copied to another shard.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import overload

import numpy as np
import numpy.typing as npt
import xxhash

__all__ = ["BLOCK_BYTES", "block_checksums", "block_count"]

BLOCK_BYTES = 1 << 20


@overload
def block_count(region_bytes: int) -> int: ...
@overload
def block_count(region_bytes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]: ...
def block_count(region_bytes: int | npt.NDArray[np.int64]) -> int | npt.NDArray[np.int64]:
    """Number of blocks in a region, or in each of several."""
    return -(-region_bytes // BLOCK_BYTES)


def block_checksums(pieces: Iterable[bytes | memoryview]) -> npt.NDArray[np.uint64]:
    """uint64[blocks]: the checksum of each block of the region that the pieces make up."""
    checksums: list[int] = []
    hasher = xxhash.xxh3_64()
    room = BLOCK_BYTES
    for piece in pieces:
        view = memoryview(piece).cast("B")
        while len(view):
            part = view[:room]
            hasher.update(part)
            room -= len(part)
            view = view[len(part) :]
            if not room:
                checksums.append(hasher.intdigest())
                hasher.reset()
                room = BLOCK_BYTES
    if room < BLOCK_BYTES:
        checksums.append(hasher.intdigest())
    return np.array(checksums, np.uint64)
