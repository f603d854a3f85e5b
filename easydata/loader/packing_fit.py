"""Which sample each piece goes into: rules of online and offline bin packing.

Every rule takes `lengths`: int64[pieces], in the order of the stream, each from 1 to `seq_len`,
and returns int64[pieces], the number of the sample of each piece; samples are numbered in the
order in which they are opened.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["best_fit", "first_fit", "next_fit", "pool_fit"]

# Of so many pieces at once Python objects are made: enough to make NumPy's cost per call vanish.
_CHUNK = 1 << 16
_FIRST_FIT_CHUNK = 1 << 12

Lengths = npt.NDArray[np.int64]
Bins = npt.NDArray[np.int64]


def next_fit(lengths: Lengths, seq_len: int) -> Bins:
    """One sample is open; what does not fit closes it and opens the next.

    Next-fit (Johnson, "Near-optimal bin packing algorithms", 1973). The pieces of a sample follow
    one another in the stream.
    """
    ends = lengths.cumsum()
    opens = np.zeros(len(lengths), np.int64)
    first = 0
    for low in range(0, len(lengths), _CHUNK):
        # For every piece: the first one that does not fit if it opens a sample.
        part = slice(low, low + _CHUNK)
        limits = ends[part] - lengths[part] + seq_len
        after = ends.searchsorted(limits, side="right").tolist()
        firsts = []
        while first - low < len(after):
            firsts.append(first)
            first = after[first - low]
        opens[firsts] = 1
    return opens.cumsum() - 1


def pool_fit(lengths: Lengths, seq_len: int, num_packers: int) -> Bins:
    """A few samples are open; a piece goes where the least room is left that still holds it.

    If none holds it, the fullest sample is closed and a new one opened. Bounded-space best-fit,
    BBF_k (Csirik & Johnson, "Bounded space on-line bin packing: best is better than first",
    1991). Of equally full samples, the one opened first is taken.
    """
    # A sample is one number: its room in the high bits, when it was opened in the low ones.
    shift = len(lengths).bit_length()
    mask = (1 << shift) - 1
    whole = seq_len << shift
    pool: list[int] = []  # sorted
    opened = 0
    bins = np.empty(len(lengths), np.int64)
    for low in range(0, len(lengths), _CHUNK):
        chosen = []
        for length in lengths[low : low + _CHUNK].tolist():
            size = length << shift
            place = bisect_left(pool, size)
            if place < len(pool):
                sample = pool.pop(place)
            else:
                if len(pool) == num_packers:
                    del pool[0]
                sample = whole | opened
                opened += 1
            chosen.append(sample & mask)
            insort(pool, sample - size)
        bins[low : low + _CHUNK] = chosen
    return bins


def first_fit(lengths: Lengths, seq_len: int) -> Bins:
    """A piece goes into the sample opened first of all that still hold it.

    First-fit by a tournament tree over the rooms (Johnson, "Fast algorithms for bin packing",
    1974). The tree of each run of pieces holds only samples that one of them may go into, so
    that the many nearly full ones cost nothing.
    """
    bins = np.empty(len(lengths), np.int64)
    least_left = np.minimum.accumulate(lengths[::-1])[::-1]  # of this piece and all after it
    samples = np.empty(0, np.int64)  # that still have room for some piece
    rooms = np.empty(0, np.int64)
    opened = low = 0
    while low < len(lengths):
        is_useful = rooms >= least_left[low]
        samples, rooms = samples[is_useful], rooms[is_useful]
        # Looking through all samples must serve a number of pieces in proportion.
        part = slice(low, low + max(_FIRST_FIT_CHUNK, len(samples) // 8))
        sizes = lengths[part]
        # NumPy sorts 16 bits by radix.
        old = _within_reach(rooms.astype(np.uint16) if seq_len < 1 << 16 else rooms, sizes)
        leaves, rooms_after = _first_fit_in_tree(sizes, rooms[old], seq_len)
        num_new = len(rooms_after) - len(old)
        new = np.arange(opened, opened + num_new)
        bins[part] = np.concatenate([samples[old], new])[leaves]
        rooms[old] = rooms_after[: len(old)]
        rooms = np.concatenate([rooms, rooms_after[len(old) :]])
        samples = np.concatenate([samples, new])
        opened += num_new
        low = part.stop
    return bins


def _within_reach(rooms: npt.NDArray[Any], sizes: Lengths) -> npt.NDArray[np.int64]:
    """The samples, in order, that first-fit of `sizes` can possibly choose.

    A piece passes over a sample only if it is longer than the room there. So before the second
    sample with a certain room is chosen, the first must have got a piece, which was no longer
    than this room; the n-th is out of reach if fewer than n pieces are so short.
    """
    by_room = rooms.argsort(kind="stable")
    sorted_rooms = rooms[by_room]
    number = np.arange(len(rooms)) - sorted_rooms.searchsorted(sorted_rooms)
    short_enough = np.sort(sizes).searchsorted(sorted_rooms, side="right")
    return np.sort(by_room[number < short_enough])


def _first_fit_in_tree(
    sizes: Lengths, rooms: npt.NDArray[np.int64], seq_len: int
) -> tuple[Bins, npt.NDArray[np.int64]]:
    """First-fit of `sizes` into samples with `rooms`, then into new ones.

    Returns:
        int64[len(sizes)], the sample of each; int64[samples], the rooms afterwards.
    """
    width = 1 << (len(rooms) + len(sizes) - 1).bit_length()
    # Node i is the larger of nodes 2i and 2i + 1; the leaves start at `width`.
    nodes = np.full(2 * width, seq_len, np.int64)
    nodes[width : width + len(rooms)] = rooms
    level = width
    while level > 1:
        nodes[level // 2 : level] = nodes[level : 2 * level].reshape(-1, 2).max(axis=1)
        level //= 2
    tree: list[int] = nodes.tolist()
    leaves = []
    for size in sizes.tolist():
        node = 1
        while node < width:
            node += node
            if tree[node] < size:
                node += 1
        leaves.append(node - width)
        room = tree[node] - size
        tree[node] = room
        while node > 1:
            other = tree[node ^ 1]
            room = max(room, other)
            node >>= 1
            if tree[node] == room:
                break
            tree[node] = room
    used = max(len(rooms), max(leaves) + 1)
    return np.array(leaves), np.array(tree[width : width + used])


def best_fit(lengths: Lengths, seq_len: int) -> Bins:
    """The longest piece first, each into the sample with the least room that still holds it.

    Best-fit decreasing (Johnson 1973), by counting as in Ding et al., "Fewer truncations improve
    language modeling", arXiv 2404.10830: the cost is in pairs of a length and a room, not in
    pieces. Equally long pieces keep their order; of equal rooms, the one that has been of this
    size for longest is taken.
    """
    # NumPy sorts 16 bits by radix.
    left = seq_len - lengths
    order = (left.astype(np.uint16) if seq_len <= 1 << 16 else left).argsort(kind="stable")
    chosen = np.empty(len(lengths), np.int64)
    counts = np.bincount(lengths)
    groups: dict[int, list[npt.NDArray[np.int64]]] = {}  # samples by room, first in first out
    rooms: list[int] = []  # the keys, sorted
    opened = place = 0

    def put_back(room: int, samples: npt.NDArray[np.int64]) -> None:
        if room and len(samples):
            if room not in groups:
                groups[room] = []
                insort(rooms, room)
            groups[room].append(samples)

    def fill(samples: npt.NDArray[np.int64], room: int, length: int, count: int) -> int:
        """Put up to `count` pieces into these samples; how many found room."""
        nonlocal place
        # A sample that takes one piece has the least room then, so it takes the next one too.
        each = room // length
        placed = min(count, each * len(samples))
        full, more = divmod(placed, each)
        put_back(room - each * length, samples[:full])
        put_back(room - more * length, samples[full : full + 1] if more else samples[:0])
        put_back(room, samples[full + (more > 0) :])
        chosen[place : place + placed] = np.repeat(samples[: full + 1], each)[:placed]
        place += placed
        return placed

    for length in np.flatnonzero(counts)[::-1].tolist():
        count = int(counts[length])
        while count and rooms and rooms[-1] >= length:
            room = rooms.pop(bisect_left(rooms, length))
            waiting = groups.pop(room)
            for number, samples in enumerate(waiting):
                if not count:
                    for rest in waiting[number:]:
                        put_back(room, rest)
                    break
                count -= fill(samples, room, length, count)
        if count:
            needed = -(-count // (seq_len // length))
            fill(np.arange(opened, opened + needed), seq_len, length, count)
            opened += needed
    bins = np.empty(len(lengths), np.int64)
    bins[order] = chosen
    return bins
