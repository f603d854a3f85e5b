"""Where a message of the log ends, and whether it is whole.

A message may be cut off by a killed writer, and what follows the last one may be zeros.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import xxhash

from easydata.cache.log.layout import CHECKSUM_BYTES
from easydata.format.alignment import ALIGNMENT, find_fields, message_header_bytes

__all__ = ["Bytes", "is_intact", "message_bytes", "seal", "walk"]

Bytes = bytes | bytearray | memoryview
_CONTINUATION = b"\xff\xff\xff\xff"
_I64 = struct.Struct("<q")
_U64 = struct.Struct("<Q")


def message_bytes(view: Bytes, start: int) -> int | None:
    """Size of the message at `start`, or None if no whole message lies there.

    The bytes may be anything: what a killed writer left, or zeros.
    """
    if len(view) - start < 16 or bytes(view[start : start + 4]) != _CONTINUATION:
        return None
    header = message_header_bytes(memoryview(view)[start : start + 8])
    if not ALIGNMENT <= header <= len(view) - start or header % ALIGNMENT:
        return None
    try:
        fields = find_fields(memoryview(view)[start : start + header])
        body: int = _I64.unpack_from(view, start + fields.body_bytes)[0]
    except struct.error:
        return None
    size = header + body
    return size if fields.body_bytes and body > 0 and size <= len(view) - start else None


def is_intact(view: Bytes, start: int, size: int) -> bool:
    """True if the message's checksum is that of its other bytes."""
    end = start + size - CHECKSUM_BYTES
    found: int = _U64.unpack_from(view, end)[0]
    return found == xxhash.xxh3_64_intdigest(memoryview(view)[start:end])


def seal(message: bytearray) -> None:
    """Write the checksum of a message's other bytes into its last eight."""
    end = len(message) - CHECKSUM_BYTES
    with memoryview(message) as view:
        _U64.pack_into(message, end, xxhash.xxh3_64_intdigest(view[:end]))


def walk(view: Bytes, start: int = 0) -> Iterator[tuple[int, int]]:
    """Start and size of every whole message of a segment from `start` on, without its schema.

    Whatever is not a message is passed over, 64 bytes at a time: one damaged message loses no
    other.
    """
    start = max(start, message_header_bytes(memoryview(view)[:8]))
    while start < len(view):
        size = message_bytes(view, start)
        if size is not None and is_intact(view, start, size):
            yield start, size
            start += size
        else:
            start = _next_start(view, start + ALIGNMENT)


def _next_start(view: Bytes, start: int) -> int:
    """The first multiple of 64 from `start` on where a message may begin, or the end."""
    usable = (len(view) - start) // ALIGNMENT
    if usable <= 0:
        return len(view)
    words = np.frombuffer(view, "<u4", usable * (ALIGNMENT // 4), start)[:: ALIGNMENT // 4]
    found = np.flatnonzero(words == 0xFFFFFFFF)
    return start + int(found[0]) * ALIGNMENT if len(found) else len(view)
