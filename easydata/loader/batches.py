"""Batches of a sequence of samples: several small ones are read in one call, by several threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import NamedTuple

from easydata._threads import Call, thread_count
from easydata.loader.locating import Located, Pace, Share, choose_batches, locate_batches
from easydata.loader.protocols import Arrays
from easydata.loader.walk import Stretch, Walk

__all__ = ["Batch", "read_batches"]

# So many samples are located at once: enough to make NumPy's cost per call vanish. Less of those
# that have to be decoded for it, and then take memory.
_LOCATED_SAMPLES = 16384
_DECODED_SAMPLES = 2048
_DECODED_BYTES = 8 << 20
# Those of other hosts and workers, which a mixture goes through, too, are so many at most.
_WALKED_SAMPLES = 1 << 16
# Several small batches, of so much `input_ids`, are read in one call. To hand over smaller groups
# takes a tenth of the time; larger ones take no less time, and more memory.
_READ_BYTES = 4 << 20
# So many of these groups are there at once, one of them handed out, unless that takes more memory.
# With two instead, threads wait for each other; four take no less time, and more memory.
_GROUPS_AHEAD = 3
_AHEAD_BYTES = 96 << 20  # of all arrays
_HANDED_BYTES = 1 << 20  # to copy less takes no longer than to hand it over


class Batch(NamedTuple):
    """What is handed out, and where it ends: at sample `end` of a stretch."""

    arrays: Arrays
    stretch: Stretch
    end: int


class _Waiting(NamedTuple):
    """A group of batches, and the call that reads it, unless it is read when it is asked for."""

    group: Located
    call: Call[list[Batch]] | None


def _read(batches: Located, finish: Callable[[Arrays], Arrays]) -> list[Batch]:
    """These batches, read in one call."""
    start = batches.bounds[0]
    arrays = finish(batches.samples.read(start, batches.bounds[-1]))
    if len(batches.ends) == 1:
        return [Batch(arrays, batches.stretch, batches.ends[0])]
    found = []
    for high, end in zip(batches.bounds[1:], batches.ends, strict=True):
        part = slice(start - batches.bounds[0], high - batches.bounds[0])
        cut = {name: array[part] for name, array in arrays.items()}
        found.append(Batch(cut, batches.stretch, end))
        start = high
    return found


def read_batches(
    walk: Walk,
    share: Share,
    finish: Callable[[Arrays], Arrays],
    *,
    sample_bytes: int,
    may_group: bool,
    is_copied: bool,
    is_mapped: bool,
    is_local: bool,
    prefetch: int,
    prefetch_workers: int,
) -> Generator[list[Batch]]:
    """The batches of a walk, those that were read in one call together.

    Args:
        walk: through the samples, from the first batch on.
        share: which of them.
        finish: from what is read to what a batch holds.
        sample_bytes: in `input_ids` of a sample.
        may_group: several small batches may be read in one call; else each by itself.
        is_copied: samples are copied in any case; else a batch is copied only if it must be.
        is_mapped: to locate samples decodes nothing.
        is_local: what the samples of the next batches lie in fits into memory.
        prefetch: batches that threads read ahead; 0 for none.
        prefetch_workers: how many threads.
    """
    rows, step = share.batch_size // share.hosts, share.batch_size * share.workers
    decoded = min(_DECODED_SAMPLES, _DECODED_BYTES // sample_bytes) if is_local else 0
    most = _LOCATED_SAMPLES if is_mapped else decoded
    pace = Pace(max(min(most // rows, _WALKED_SAMPLES // step), 1))
    chosen = choose_batches(walk, share, pace)
    if prefetch:
        from easydata.loader.prefetch import Prefetcher

        located = locate_batches(chosen, pace, threads=1)
        one_by_one = (one for batches in located for one in batches.groups(1))
        read = partial(_read, finish=finish)
        ahead = Prefetcher(read, one_by_one, workers=prefetch_workers, buffer_size=prefetch)
        with closing(ahead):
            yield from ahead
        return
    first = next(locate_batches(chosen, pace, threads=1), None)
    if first is None:
        return
    batches = _read(first, finish)  # one, which says how large they are
    arrays = batches[0].arrays  # without rows, if it is the last, and short
    ids_bytes = max(arrays["input_ids"].nbytes, 1)
    batch_bytes = max(sum(array.nbytes for array in arrays.values()), 1)
    del first, arrays  # what it keeps decoded is free for the next ones
    yield batches
    del batches
    most = _AHEAD_BYTES // _GROUPS_AHEAD
    at_once = max(min(_READ_BYTES // ids_bytes, most // batch_bytes), 1) if may_group else 1
    # Decoded sources have threads of their own; several workers are as good as several threads.
    threads = thread_count() if is_copied and is_mapped and share.workers == 1 else 1
    if not _HANDED_BYTES <= at_once * batch_bytes <= most:
        threads = 1
    groups = _groups(locate_batches(chosen, pace, threads=threads), at_once, is_copied=is_copied)
    yield from _read_in_turn(groups, finish, threads=threads)


def _groups(located: Iterable[Located], at_once: int, *, is_copied: bool) -> Generator[Located]:
    """The same batches, those together that are read in one call."""
    for batches in located:
        for group in batches.groups(at_once):
            if is_copied or group.is_one_view:
                yield group
            else:
                yield from group.groups(1)
        del batches, group  # what they keep decoded is free for the next ones


def _read_in_turn(
    groups: Iterator[Located], finish: Callable[[Arrays], Arrays], *, threads: int
) -> Generator[list[Batch]]:
    """Groups of batches, read in one call each: the next ones by threads that stand by, before it
    is their turn, and by the thread that asks where none has begun.
    """
    waiting: deque[_Waiting] = deque()
    most = _GROUPS_AHEAD if threads > 1 else 1
    room = 1  # at first: the first batch should not wait for others
    failure: Exception | None = None
    try:
        while True:
            failure = failure or _fill(waiting, room, groups, finish)
            if not waiting:
                break
            room = min(room + 1, most)
            group, call = waiting.popleft()
            if call is not None and call.is_under_way:
                _make_one(waiting)  # meanwhile
            try:
                found = _read(group, finish) if call is None else call.result()
            except Exception:  # whatever it is, it is raised again by the read of its batch
                if len(group.ends) == 1:
                    raise
                # One by one, so that an error is raised when it is the turn of its batch.
                yield from (_read(one, finish) for one in group.groups(1))
            else:
                yield found
                del found
            del group, call  # what they keep decoded is free for the next ones
        if failure is not None:
            raise failure
    finally:
        failure = None  # by its traceback it holds this frame
        for _, call in waiting:
            if call is not None:
                call.cancel()


def _fill(
    waiting: deque[_Waiting],
    room: int,
    groups: Iterator[Located],
    finish: Callable[[Arrays], Arrays],
) -> Exception | None:
    """Have `room` groups wait, if there are so many; what kept the next one from being found."""
    while len(waiting) < room:
        try:
            group = next(groups)
        except StopIteration:
            break
        except Exception as error:  # noqa: BLE001 - whatever it is, raised in its turn
            return error
        # Not what is read at once. And only what is just copied: of what it has to read, a source
        # may want one thread.
        is_ahead = bool(waiting) and group.ids is not None
        call = Call(partial(_read, group, finish)) if is_ahead else None
        waiting.append(_Waiting(group, call))
    return None


def _make_one(waiting: deque[_Waiting]) -> None:
    """Read the first group here that no other thread has begun."""
    for _, call in waiting:
        if call is not None and call.make():
            return
