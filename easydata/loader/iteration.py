"""One iteration over a loader: batches, read for many steps at once, and where it stands."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from easydata.loader.protocols import Arrays, LocatedSamples
from easydata.loader.state import place_of, state_of
from easydata.loader.walk import Place, Stretch, Walk

__all__ = ["Batch", "BatchIterator", "LoaderStats", "Progress", "Share", "read_batches"]

# The order of so many samples is worked out at once, and where they lie: enough to make NumPy's
# cost per call vanish, few enough that arrays of them are no pages of their own for malloc.
_LOCATED_SAMPLES = 8192
# Those of other hosts and workers, which a mixture goes through, too, are so many at most.
_WALKED_SAMPLES = 1 << 16
# Samples that are copied anyway are copied for several small batches in one call.
_COPIED_BYTES = 1 << 20


@dataclass(slots=True)
class LoaderStats:
    """What one iteration over a `DataLoader` has handed out so far."""

    batches: int = 0
    views: int = 0  # batches whose `input_ids` were not copied
    samples: int = 0
    tokens: int = 0  # padding included
    samples_by_source: dict[str, int] = field(default_factory=dict)  # of a mixture


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


class _Group(NamedTuple):
    """Batches that are read in one call.

    Attributes:
        located: where their samples lie.
        bounds: for each batch, where it begins in `located`, and where the last ends.
        ends: for each batch, where it ends in the stretch.
        stretch: of the sequence.
    """

    located: LocatedSamples
    bounds: list[int]
    ends: list[int]
    stretch: Stretch


class Batch(NamedTuple):
    """What is handed out, and where it ends: at sample `end` of a stretch."""

    arrays: Arrays
    stretch: Stretch
    end: int


def _groups_of(walk: Walk, share: Share, sample_bytes: int | None, most: int) -> Iterator[_Group]:
    """The batches of a walk, in groups that are read in one call, see `read_batches`; `most`
    batches are located at once.
    """
    size = share.batch_size
    step = size * share.workers  # the samples of one batch of every worker
    at_once = 1
    if sample_bytes is not None:
        at_once = max(_COPIED_BYTES // (size // share.hosts * sample_bytes), 1)
    count = 1  # the first batch should not wait for many others
    while True:
        stretch = walk.take(count * step)
        mine = stretch.num_samples - share.worker * size
        firsts = share.worker * size + np.arange(0, max(mine, 0), step)
        sizes = np.minimum(stretch.num_samples - firsts, size)
        if share.drop_last:
            firsts = firsts[sizes == size]
            sizes = sizes[sizes == size]
        if len(firsts):
            low, high = _rows(sizes, share)
            bounds = np.append(0, (high - low).cumsum())
            chosen = np.repeat(firsts + low - bounds[:-1], high - low) + np.arange(bounds[-1])
            located = stretch.locate(chosen)
            ends = (firsts + sizes).tolist()
            for first in range(0, len(ends), at_once):
                last = min(first + at_once, len(ends))
                yield _Group(located, bounds[first : last + 1].tolist(), ends[first:last], stretch)
        if stretch.num_samples < count * step:
            return
        count = most


def _rows(size: Any, share: Share) -> tuple[Any, Any]:
    """From where to where, in batches of these sizes, the samples of a host lie."""
    return size * share.host // share.hosts, size * (share.host + 1) // share.hosts


def _read_group(group: _Group, finish: Callable[[Arrays], Any]) -> list[Batch]:
    """The batches of a group."""
    start = group.bounds[0]
    arrays = finish(group.located.read(start, group.bounds[-1]))
    if len(group.ends) == 1:
        return [Batch(arrays, group.stretch, group.ends[0])]
    batches = []
    for high, end in zip(group.bounds[1:], group.ends, strict=True):
        part = slice(start - group.bounds[0], high - group.bounds[0])
        cut = {name: array[part] for name, array in arrays.items()}
        batches.append(Batch(cut, group.stretch, end))
        start = high
    return batches


def read_batches(
    walk: Walk,
    share: Share,
    finish: Callable[[Arrays], Arrays],
    *,
    sample_bytes: int | None,
    locates_ahead: bool,
    prefetch: int,
    prefetch_workers: int,
) -> Generator[list[Batch]]:
    """The batches of a walk, one group after another.

    Args:
        walk: through the samples, from the first batch on.
        share: which of them.
        finish: from what is read to what a batch holds.
        sample_bytes: in `input_ids` of a sample that is copied anyway, so that several small
            batches may be read in one call; None reads every batch by itself.
        locates_ahead: locate the samples of many batches in one call, which decodes what they
            lie in.
        prefetch: batches that threads read ahead; 0 for none.
        prefetch_workers: how many threads.
    """
    rows, step = share.batch_size // share.hosts, share.batch_size * share.workers
    most = 1
    if locates_ahead:
        most = max(min(_LOCATED_SAMPLES // rows, _WALKED_SAMPLES // step), 1)

    def read(group: _Group) -> list[Batch]:
        return _read_group(group, finish)

    if not prefetch:
        for group in _groups_of(walk, share, sample_bytes, most):
            yield read(group)
            del group  # what it holds on to is free for the next one
        return
    from easydata.loader.prefetch import Prefetcher

    groups = _groups_of(walk, share, None, most)
    ahead = Prefetcher(read, groups, workers=prefetch_workers, buffer_size=prefetch)
    with closing(ahead):
        yield from ahead


class Start(Protocol):
    """Reads batches from a place on."""

    def __call__(self, place: Place, *, is_first: bool) -> Generator[list[Batch]]: ...


class Progress:
    """Where an iteration stands: after the batches that were handed out."""

    def __init__(self, place: Place) -> None:
        """
        Args:
            place: where it begins.
        """
        self._stats = LoaderStats()
        self._base = place
        # The latest batch ends at this sample of this stretch.
        self._stretch: Stretch | None = None
        self._end = 0

    def go_to(self, place: Place) -> None:
        """Stand at another place."""
        self._base, self._stretch = place, None

    def count(self, batch: Batch) -> None:
        """A batch is handed out."""
        arrays, self._stretch, self._end = batch
        ids = arrays["input_ids"]
        stats = self._stats
        stats.batches += 1
        stats.views += not ids.flags.writeable
        stats.samples += len(ids)
        stats.tokens += ids.size

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self._base if self._stretch is None else self._stretch.place(self._end)

    @property
    def stats(self) -> LoaderStats:
        """What was handed out."""
        before, now = self._base.counts, self.place.counts
        if now is not None:
            self._stats.samples_by_source = {
                name: count - (before or {}).get(name, 0) for name, count in now.items()
            }
        return self._stats


class BatchIterator(Iterator[Arrays]):
    """The batches of a `DataLoader`, one after another; see there.

    Its state is where it stands: after the batches that `next` has returned, whatever was read
    ahead. To be read by one thread at a time.
    """

    def __init__(
        self,
        start: Start,
        progress: Progress,
        order: Mapping[str, Any],
    ) -> None:
        """
        Args:
            start: reads from a place on; `is_first` unless it is where a batch ends that this
                reader has read.
            progress: where to begin; counts what is handed out. It must not know this iterator,
                so that what reads ahead ends when nobody holds the iterator any more.
            order: what the sequence of samples follows from, for the state.
        """
        self._start, self._order = start, order
        self.progress = progress
        self._groups = start(progress.place, is_first=True)
        self._ready: list[Batch] = []
        # The batch that was taken last ends at this sample of this stretch.
        self._stretch: Stretch | None = None
        self._end = 0

    def __next__(self) -> Arrays:
        batch = self.take()
        self.progress.count(batch)
        return batch.arrays

    def take(self) -> Batch:
        """The next batch, for a reader that hands it out later and counts it then.

        After an error it is tried again.

        Raises:
            StopIteration: there is none.
        """
        ready = self._ready
        while not ready:
            try:
                ready += next(self._groups)
            except StopIteration:
                raise
            except BaseException:
                if self._stretch is None:
                    self._groups = self._start(self.progress.place, is_first=True)
                else:
                    place = self._stretch.place(self._end)
                    self._groups = self._start(place, is_first=False)
                raise
            ready.reverse()
        batch = ready.pop()
        _, self._stretch, self._end = batch
        return batch

    @property
    def stats(self) -> LoaderStats:
        """What was handed out."""
        return self.progress.stats

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as a JSON value of constant size; see `DataLoader.state_dict`."""
        return state_of(self.progress.place, self._order)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where an iterator stood; see `DataLoader.load_state_dict`."""
        place = place_of(state, self._order)
        groups = self._start(place, is_first=True)
        self.close()
        self._groups, self._stretch = groups, None
        self.progress.go_to(place)

    get_state = state_dict
    set_state = load_state_dict

    def close(self) -> None:
        """End what reads ahead; `next` then finds nothing more."""
        self._ready.clear()
        self._groups.close()
