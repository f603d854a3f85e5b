"""Numbered messages over a pipe, each after its number and its length."""

from __future__ import annotations

import struct
from typing import BinaryIO

__all__ = ["read_frame", "write_frame"]

_HEADER = struct.Struct("<QQ")


def write_frame(stream: BinaryIO, number: int, payload: bytes) -> None:
    """Send one message."""
    stream.write(_HEADER.pack(number, len(payload)))
    stream.write(payload)
    stream.flush()


def read_frame(stream: BinaryIO) -> tuple[int, bytes] | None:
    """Receive one message; None when the other side has closed the pipe, even half-way."""
    header = stream.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    number, length = _HEADER.unpack(header)
    payload = stream.read(length)
    return (number, payload) if len(payload) == length else None
