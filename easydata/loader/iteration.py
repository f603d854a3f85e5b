"""One iteration over a loader: its batches, one after another, and where it stands."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from easydata.loader.batches import Batch
from easydata.loader.protocols import Arrays
from easydata.loader.state import place_of, state_of
from easydata.loader.walk import Place, Stretch

__all__ = ["BatchIterator", "LoaderStats", "Progress"]


@dataclass(slots=True)
class LoaderStats:
    """What one iteration over a `DataLoader` has handed out so far."""

    batches: int = 0
    views: int = 0  # batches whose `input_ids` were not copied
    samples: int = 0
    tokens: int = 0  # padding included
    samples_by_source: dict[str, int] = field(default_factory=dict)  # of a mixture


class Start(Protocol):
    """Reads batches from a place on."""

    def __call__(self, place: Place, *, is_first: bool) -> Generator[list[Batch]]: ...


class Position:
    """A place in a sequence: after the latest of some batches."""

    def __init__(self, place: Place) -> None:
        """
        Args:
            place: where it begins.
        """
        self.begin = place
        self._stretch: Stretch | None = None  # none before the first batch
        self._end = 0

    def move(self, batch: Batch) -> None:
        """To the end of a batch."""
        # What place that is takes longer to find out, and is seldom asked.
        _, self._stretch, self._end = batch

    @property
    def has_moved(self) -> bool:
        """Whether there was a batch."""
        return self._stretch is not None

    @property
    def place(self) -> Place:
        """Where it is."""
        return self.begin if self._stretch is None else self._stretch.place(self._end)


class Progress:
    """Where an iteration stands: after the batches that were handed out."""

    def __init__(self, place: Place) -> None:
        """
        Args:
            place: where it begins.
        """
        self._stats = LoaderStats()
        self._position = Position(place)
        self._before: dict[str, int] = {}  # samples by source, up to where it was sent elsewhere

    def go_to(self, place: Place) -> None:
        """Stand at another place."""
        self._before = self.stats.samples_by_source
        self._position = Position(place)

    def count(self, batch: Batch) -> None:
        """A batch is handed out."""
        self._position.move(batch)
        ids = batch.arrays["input_ids"]
        stats = self._stats
        stats.batches += 1
        stats.views += not ids.flags.writeable
        stats.samples += len(ids)
        stats.tokens += ids.size

    @property
    def place(self) -> Place:
        """Where it stands."""
        return self._position.place

    @property
    def stats(self) -> LoaderStats:
        """What was handed out."""
        before, now = self._position.begin.counts, self.place.counts
        if now is not None:
            self._stats.samples_by_source = {
                name: self._before.get(name, 0) + count - (before or {}).get(name, 0)
                for name, count in now.items()
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
        self._begin(progress.place)

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
            if os.getpid() != self._pid:  # threads that read ahead did not come along
                self._restart()
            try:
                ready += next(self._groups)
            except StopIteration:
                raise
            except BaseException:  # an interrupt, too, has ended the generator; it goes on up
                self._restart()
                raise
            ready.reverse()
        batch = ready[-1]
        self._taken.move(batch)
        ready.pop()
        return batch

    def _begin(self, place: Place) -> None:
        self._groups = self._start(place, is_first=True)
        self._ready: list[Batch] = []
        self._taken = Position(place)
        self._pid = os.getpid()

    def _restart(self) -> None:
        """Read again from the latest batch on that was taken."""
        self._groups = self._start(self._taken.place, is_first=not self._taken.has_moved)
        self._pid = os.getpid()

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
        before = self._groups
        self._begin(place)
        before.close()
        self.progress.go_to(place)

    get_state = state_dict
    set_state = load_state_dict

    def close(self) -> None:
        """End what reads ahead; `next` then finds nothing more."""
        self._ready.clear()
        self._groups.close()
