"""Batches of a sequence of samples: which samples, located for many at once, and read."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easydata._threads import Call, thread_count
from easydata.errors import EasyDataError
from easydata.loader.protocols import Arrays, LocatedSamples
from easydata.loader.rows import Rows
from easydata.loader.walk import Stretch, Walk

__all__ = ["Batch", "Share", "read_batches"]

# So many samples are located at once: enough to make NumPy's cost per call vanish. Less of those
# that have to be decoded for it, and then take memory.
_LOCATED_SAMPLES = 32768
_DECODED_SAMPLES = 2048
_DECODED_BYTES = 8 << 20
# Those of other hosts and workers, which a mixture goes through, too, are so many at most.
_WALKED_SAMPLES = 1 << 16
# Several small batches are read in one call.
_READ_BYTES = 4 << 20
# Threads copy some of them before it is their turn, unless that takes more memory: so many for
# each thread, that none waits for the next one to be handed over.
_GROUPS_AHEAD = 2
_AHEAD_BYTES = 64 << 20
_HANDED_BYTES = 1 << 20  # to copy less takes no longer than to hand it over


class Share(NamedTuple):
    """Which part of the sequence an iteration reads, of batches that all hosts share.

    Attributes:
        batch_size: samples in a batch, of all hosts.
        host: the host, from 0.
        hosts: how many; each gets a run of the samples of every batch.
        worker: one of `workers` readers of this host, which take the batches in turn.
        workers: how many readers.
        drop_last: leave out the last batch if it is not full.
    """

    batch_size: int
    host: int = 0
    hosts: int = 1
    worker: int = 0
    workers: int = 1
    drop_last: bool = True


class _Located(NamedTuple):
    """Batches whose samples were located in one call.

    Attributes:
        samples: where they lie.
        bounds: for each batch, where it begins in `samples`, and where the last ends.
        ends: for each batch, where it ends in the stretch.
        stretch: of the sequence.
    """

    samples: LocatedSamples
    bounds: list[int]
    ends: list[int]
    stretch: Stretch

    def groups(self, size: int) -> Iterator[_Located]:
        """The same batches, at most `size` together."""
        for first in range(0, len(self.ends), size):
            last = min(first + size, len(self.ends))
            yield self._replace(bounds=self.bounds[first : last + 1], ends=self.ends[first:last])

    @property
    def is_one_view(self) -> bool:
        """Whether all lie in memory one after another, so that no batch has to be copied."""
        ids = self.ids
        return ids is not None and ids.view(self.bounds[0], self.bounds[-1]) is not None

    @property
    def ids(self) -> Rows | None:
        """Where their `input_ids` lie; None if whoever reads them does not say."""
        ids = getattr(self.samples, "ids", None)
        return ids if isinstance(ids, Rows) else None


class Batch(NamedTuple):
    """What is handed out, and where it ends: at sample `end` of a stretch."""

    arrays: Arrays
    stretch: Stretch
    end: int


def _locate(walk: Walk, share: Share, most: int) -> Generator[_Located]:
    """The batches of a walk, `most` located in one call, but fewer to begin with: the first ones
    should not wait for many others.
    """
    size = share.batch_size
    step = size * share.workers  # the samples of one batch of every worker
    count = 1
    while True:
        stretch = walk.take(count * step)
        mine = stretch.num_samples - share.worker * size
        firsts = share.worker * size + np.arange(0, max(mine, 0), step)
        sizes = np.minimum(stretch.num_samples - firsts, size)
        if share.drop_last:
            firsts = firsts[sizes == size]
            sizes = sizes[sizes == size]
        low, high = _rows(sizes, share)
        bounds = np.append(0, (high - low).cumsum())
        chosen = np.arange(bounds[-1])
        if step > size or share.hosts > 1:
            chosen += np.repeat(firsts + low - bounds[:-1], high - low)
        yield from _locate_batches(stretch, chosen, bounds.tolist(), (firsts + sizes).tolist())
        if stretch.num_samples < count * step:
            return
        count = min(count * 16, most)


def _locate_batches(
    stretch: Stretch, chosen: npt.NDArray[np.int64], bounds: list[int], ends: list[int]
) -> Iterator[_Located]:
    if not ends:
        return
    try:
        # Nothing else holds on to it: what it keeps decoded is free for the next one.
        yield _Located(stretch.locate(chosen), bounds, ends, stretch)
    except EasyDataError:
        if len(ends) == 1:
            raise
        # Those before what is damaged are there to be read.
        for low, high, end in zip(bounds, bounds[1:], ends, strict=False):
            yield _Located(stretch.locate(chosen[low:high]), [0, high - low], [end], stretch)


def _rows(size: Any, share: Share) -> tuple[Any, Any]:
    """From where to where, in batches of these sizes, the samples of a host lie."""
    return size * share.host // share.hosts, size * (share.host + 1) // share.hosts


def _read(batches: _Located, finish: Callable[[Arrays], Arrays]) -> list[Batch]:
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
    located = _locate(walk, share, max(min(most // rows, _WALKED_SAMPLES // step), 1))
    if prefetch:
        from easydata.loader.prefetch import Prefetcher

        one_by_one = (one for batches in located for one in batches.groups(1))
        read = partial(_read, finish=finish)
        ahead = Prefetcher(read, one_by_one, workers=prefetch_workers, buffer_size=prefetch)
        with closing(ahead):
            yield from ahead
        return
    at_once = max(_READ_BYTES // (rows * sample_bytes), 1) if may_group else 1
    # Decoded sources have threads of their own; several workers are as good as several threads.
    threads = thread_count() if is_copied and is_mapped and share.workers == 1 else 1
    group_bytes = at_once * rows * sample_bytes
    if not _HANDED_BYTES <= group_bytes <= _AHEAD_BYTES // (_GROUPS_AHEAD * threads):
        threads = 1
    yield from _read_in_turn(
        _groups(located, at_once, is_copied=is_copied), finish, threads=threads
    )


def _groups(located: Iterable[_Located], at_once: int, *, is_copied: bool) -> Generator[_Located]:
    """The same batches, those together that are read in one call."""
    for batches in located:
        for group in batches.groups(at_once):
            if is_copied or group.is_one_view:
                yield group
            else:
                yield from group.groups(1)
        del batches, group  # what they keep decoded is free for the next ones


def _read_in_turn(
    groups: Iterator[_Located], finish: Callable[[Arrays], Arrays], *, threads: int
) -> Generator[list[Batch]]:
    """Groups of batches, of which one in `threads` is read by the thread that asks, when it asks,
    and the others by threads that stand by, before it is their turn.
    """
    numbers = itertools.count()
    waiting: deque[tuple[_Located, Call[list[Batch]] | None]] = deque()
    most = _GROUPS_AHEAD * threads if threads > 1 else 1
    room = 1  # at first: the first batch should not wait for others
    failure: Exception | None = None
    try:
        while True:
            while failure is None and len(waiting) < room:
                try:
                    group = next(groups)
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001 - whatever it is, raised in its turn
                    failure = error
                    break
                # Only what is just copied: of what it has to read, a source may want one thread.
                is_ahead = next(numbers) % threads > 0 and group.ids is not None
                waiting.append((group, Call(partial(_read, group, finish)) if is_ahead else None))
            if not waiting:
                break
            room = min(room + 1, most)
            group, call = waiting.popleft()
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
