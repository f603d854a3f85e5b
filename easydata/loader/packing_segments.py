"""Which piece each token of a sample belongs to, and where in it it stands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["label_pieces", "ranges", "spread", "totals"]


def ranges(firsts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[sum of counts]: `counts[i]` numbers from `firsts[i]` up, one range after another.

    >>> ranges(np.array([5, 20]), np.array([2, 3])).tolist()
    [5, 6, 20, 21, 22]
    """
    before = counts.cumsum() - counts
    return np.arange(counts.sum(), dtype=np.int64) + np.repeat(firsts - before, counts)


def totals(lengths: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """int64[n]: tokens in samples that have `counts[i]` pieces of these lengths, or none.

    >>> totals(np.array([5, 1, 7]), np.array([2, 0, 1])).tolist()
    [6, 0, 7]
    """
    ends = np.append(0, lengths.cumsum())[np.append(0, counts.cumsum())]
    return np.diff(ends)


def label_pieces(
    counts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64], seq_len: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Segment ids and positions of samples that are filled with pieces from their start on.

    Args:
        counts: int64[n], pieces in each sample.
        lengths: int64[sum of counts], tokens in each piece; at most `seq_len` in a sample.
        seq_len: tokens in a sample.

    Returns:
        segment_ids: int32[n, seq_len], 1 for the first piece of a sample, 2 for the second and
            so on, 0 where no piece lies.
        positions: int32[n, seq_len], 0 for the first token of each piece, then 1 and so on;
            0 where no piece lies.
    """
    n = len(counts)
    # A sample is its pieces and one slot, perhaps empty, for the padding.
    slots = np.arange(len(lengths)) + np.repeat(np.arange(n), counts)
    slot_lengths = np.zeros(len(lengths) + n, np.int64)
    slot_lengths[slots] = lengths
    firsts = (counts + 1).cumsum() - counts - 1
    pads = firsts + counts
    slot_lengths[pads] = seq_len - totals(lengths, counts)
    numbers = ranges(np.ones(n, np.int64), counts + 1).astype(np.int32)
    numbers[pads] = 0
    starts = slot_lengths.cumsum() - slot_lengths - np.repeat(np.arange(n), counts + 1) * seq_len
    segment_ids = np.repeat(numbers, slot_lengths).reshape(n, seq_len)
    positions = np.arange(seq_len, dtype=np.int32) - np.repeat(
        starts.astype(np.int32), slot_lengths
    ).reshape(n, seq_len)
    if slot_lengths[pads].any():
        positions[segment_ids == 0] = 0
    return segment_ids, positions


def spread(
    values: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    seq_len: int,
) -> npt.NDArray[np.int64]:
    """int64[n, seq_len]: the value of the piece that each token is of; -1 where no piece lies.

    Args:
        values: int64[sum of counts], of each piece.
        counts: int64[n], pieces in each sample.
        lengths: int64[sum of counts], tokens in each piece.
        seq_len: tokens in a sample.
    """
    found = np.full((len(counts), seq_len), -1, np.int64)
    is_used = np.arange(seq_len) < totals(lengths, counts)[:, None]
    found[is_used] = np.repeat(values, lengths)
    return found
