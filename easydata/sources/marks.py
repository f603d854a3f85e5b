"""A cheap hash of each record, from eight samples of its bytes: where parts may be cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["record_marks"]

_WORD_BYTES = 8
_SAMPLES = 8
_MULTIPLIERS = (
    0x9E3779B97F4A7C15,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0xD6E8FEB86659FD93,
    0xA0761D6478BD642F,
    0xE7037ED1A0B428DB,
    0x8EBC6AF09C88C6E3,
    0x589965CC75374CC3,
)
_AVALANCHE = np.uint64(0xFF51AFD7ED558CCD)
_SHIFT = np.uint64(32)


def record_marks(
    data: Buffer, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Hash the records `data[starts[i]:ends[i]]`.

    Eight little-endian words spread evenly over each record are mixed with its length, so the
    cost does not grow with the records. Records that differ between the samples only may share
    a mark: good enough to choose boundaries, never to tell content apart.

    Args:
        data: the bytes that hold all records.
        starts: int64[n], first byte of each record.
        ends: int64[n], one past its last byte.

    Returns:
        uint64[n], a function of each record's bytes alone, equal on every machine.
    """
    # The zeros let the last record be read in whole words; a copy is cheaper than a branch.
    padded = bytes(memoryview(data).cast("B")) + bytes(_WORD_BYTES)
    words: npt.NDArray[np.uint64] = np.ndarray(
        (len(padded) - _WORD_BYTES + 1,), dtype="<u8", buffer=padded, strides=(1,)
    )
    lengths = ends - starts
    spare = np.maximum(lengths - _WORD_BYTES, 0)
    short_bits = (np.minimum(lengths, _WORD_BYTES) * 8).astype(np.uint64)
    # 1 << 64 is not defined, so a full word takes its mask from the other branch.
    mask = np.where(
        lengths >= _WORD_BYTES,
        np.uint64(0xFFFFFFFFFFFFFFFF),
        (np.uint64(1) << np.minimum(short_bits, np.uint64(63))) - np.uint64(1),
    )
    marks = lengths.astype(np.uint64) * _AVALANCHE
    for sample, multiplier in enumerate(_MULTIPLIERS):
        marks ^= words[starts + spare * sample // (_SAMPLES - 1)] & mask
        marks *= np.uint64(multiplier)
        marks ^= marks >> _SHIFT
    marks *= _AVALANCHE
    marks ^= marks >> _SHIFT
    return marks
