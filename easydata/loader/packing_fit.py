"""Which sample each piece goes into: rules of online and offline bin packing.

Every rule takes `lengths`: int32[pieces], in the order of the stream, each from 1 to `seq_len`,
and returns the number of the sample of each piece: int32[pieces], or int64 of 2^31 pieces and
more. Samples are numbered in the order in which they are opened.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.loader.ranges import ranges

__all__ = ["best_fit", "first_fit", "next_fit", "number_type", "pool_fit"]

# Of so many pieces at once Python objects are made: enough to make NumPy's cost per call vanish.
_CHUNK = 1 << 16
_FIRST_FIT_CHUNK = 1 << 12

Lengths = npt.NDArray[np.int32]
Bins = npt.NDArray[np.signedinteger[Any]]


def number_type(count: int) -> type[np.signedinteger[Any]]:
    """The integers that number `count` things in the least memory."""
    return np.int32 if count < 1 << 31 else np.int64


def next_fit(lengths: Lengths, seq_len: int) -> Bins:
    """One sample is open; what does not fit closes it and opens the next.

    Next-fit (Johnson, "Near-optimal bin packing algorithms", 1973). The pieces of a sample follow
    one another in the stream.
    """
    ends = lengths.cumsum()
    opens = np.zeros(len(lengths), np.bool_)
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
        opens[firsts] = True
    return opens.cumsum(dtype=number_type(len(lengths))) - 1


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
    bins = np.empty(len(lengths), number_type(len(lengths)))
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
    bins = np.empty(len(lengths), number_type(len(lengths)))
    least_left = np.minimum.accumulate(lengths[::-1])[::-1]  # of this piece and all after it
    # The samples that still have room for some piece, sorted by room: the room in the high bits
    # of a number, that of the sample in the low ones.
    shift = len(lengths).bit_length()
    waiting = np.empty(0, np.int64)
    opened = low = 0
    while low < len(lengths):
        waiting = waiting[waiting.searchsorted(int(least_left[low]) << shift) :]
        # Looking through all samples must serve a number of pieces in proportion.
        part = slice(low, low + max(_FIRST_FIT_CHUNK, len(waiting) // 32))
        sizes = lengths[part]
        chosen = _within_reach(waiting, shift, sizes)
        samples = waiting[chosen] & ((1 << shift) - 1)
        in_order = samples.argsort()
        samples, old_rooms = samples[in_order], waiting[chosen][in_order] >> shift
        leaves, rooms = _first_fit_in_tree(sizes, old_rooms, seq_len)
        num_new = len(rooms) - len(samples)
        samples = np.concatenate([samples, np.arange(opened, opened + num_new)])
        bins[part] = samples[leaves]
        waiting = np.delete(waiting, chosen)
        waiting = np.concatenate([waiting, np.sort(rooms << shift | samples)])
        waiting.sort(kind="stable")  # merges the two
        opened += num_new
        low = part.stop
    return bins


def _within_reach(
    waiting: npt.NDArray[np.int64], shift: int, sizes: Lengths
) -> npt.NDArray[np.int64]:
    """Where in `waiting` the samples are that first-fit of `sizes` can possibly choose.

    A piece passes over a sample only if it is longer than the room there. So before the second
    sample with a certain room is chosen, the first must have got a piece, which was no longer
    than this room; the n-th is out of reach if fewer than n pieces are so short.
    """
    rooms = waiting >> shift
    starts = np.flatnonzero(np.append(True, rooms[1:] != rooms[:-1])[: len(rooms)])
    rooms = rooms[starts]
    counts = np.diff(starts, append=len(waiting))
    counts = np.minimum(counts, np.sort(sizes).searchsorted(rooms, side="right"))
    if counts.sum() > 4 * len(sizes):
        # In the same way, all samples before it with as much room or more must have got a piece.
        # They are counted up to some numbers of samples only.
        last = (1 << shift) - 1
        oldest = int((waiting[starts] & last).min())
        steps = 1 << np.arange(len(sizes).bit_length(), shift + 1)
        bounds = np.minimum(oldest + steps, last)
        before = waiting.searchsorted((rooms << shift)[:, None] + bounds) - starts[:, None]
        is_enough = before[::-1].cumsum(axis=0)[::-1] >= len(sizes)
        counts = np.minimum(counts, np.where(is_enough, before, len(waiting)).min(axis=1))
    return ranges(starts, counts)


def _first_fit_in_tree(
    sizes: Lengths, rooms: npt.NDArray[np.int64], seq_len: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First-fit of `sizes` into samples with `rooms`, then into new ones.

    Returns:
        int64[len(sizes)], the sample of each; int64[samples], the rooms afterwards.
    """
    # Of any two new samples, the pieces fill more than one: the later's first did not fit.
    num_new = min(len(sizes), 2 * int(sizes.sum()) // seq_len + 1)
    width = 1 << (len(rooms) + num_new - 1).bit_length()
    # Node i is the larger of nodes 2i and 2i + 1; the leaves start at `width`.
    nodes = np.zeros(2 * width, np.int64)
    nodes[0] = seq_len  # larger than any, so that the way up ends at the root
    nodes[width : width + len(rooms)] = rooms
    level = width
    while level > 1:
        nodes[level // 2 : level] = nodes[level : 2 * level].reshape(-1, 2).max(axis=1)
        level //= 2
    tree: list[int] = nodes.tolist()
    unopened = width + len(rooms)
    leaves = []
    for size in sizes.tolist():
        if size > tree[1]:
            leaves.append(unopened)
            node = unopened
            unopened += 1
            room = seq_len - size
            while tree[node] < room:
                tree[node] = room
                node >>= 1
            continue
        node = 1
        while node < width:
            node += node
            if tree[node] < size:
                node += 1
        leaves.append(node)
        before = tree[node]
        room = tree[node] = before - size
        while (other := tree[node ^ 1]) < before:
            node >>= 1
            if other > room:  # noqa: PLR1730 - a call of `max` would be a third of all time
                room = other
            tree[node] = room
    return np.array(leaves) - width, np.array(tree[width:unopened])


def best_fit(lengths: Lengths, seq_len: int) -> Bins:
    """The longest piece first, each into the sample with the least room that still holds it.

    Best-fit decreasing (Johnson 1973), by counting as in Ding et al., "Fewer truncations improve
    language modeling", arXiv 2404.10830: the cost is in pairs of a length and a room, not in
    pieces. Equally long pieces keep their order; of equal rooms, the one that has been of this
    size for longest is taken.
    """
    left = seq_len - lengths
    # NumPy sorts 16 bits by radix.
    order = (left.astype(np.uint16) if seq_len <= 1 << 16 else left).argsort(kind="stable")
    firsts = np.flatnonzero(np.diff(left[order], prepend=-1))  # piece of each length
    counts = np.diff(firsts, append=len(lengths)).tolist()
    kind = number_type(len(lengths))
    chosen = np.empty(len(lengths), kind)
    groups: dict[int, list[Bins]] = {}  # samples by room, first in first out
    rooms: list[int] = []  # the keys, sorted
    opened = place = 0

    def put_back(room: int, samples: Bins) -> None:
        if room and len(samples):
            if room not in groups:
                groups[room] = []
                insort(rooms, room)
            groups[room].append(samples)

    def fill(samples: Bins, room: int, length: int, count: int) -> int:
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

    for length, left_over in zip(lengths[order[firsts]].tolist(), counts, strict=True):
        count = left_over
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
            fill(np.arange(opened, opened + needed, dtype=kind), seq_len, length, count)
            opened += needed
    bins = np.empty(len(lengths), kind)
    bins[order] = chosen
    return bins
