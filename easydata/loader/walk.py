"""The global sequence of samples, walked from any place on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from easydata.loader.merging import group_by_source, ranks_in_source
from easydata.loader.order import SampleOrder
from easydata.loader.protocols import Arrays, LocatedSamples, SampleSource

if TYPE_CHECKING:
    from easydata.loader.mixing import Mixture, MixtureRun

__all__ = ["MixtureWalk", "Place", "SourceWalk", "Stretch", "Walk", "locate"]


class Place(NamedTuple):
    """A place in a sequence of samples.

    Attributes:
        samples: how many come before it.
        counts: of a mixture, how many of these each source has given, by name.
    """

    samples: int
    counts: Mapping[str, int] | None = None


class Stretch(Protocol):
    """Some samples of a sequence that follow one another."""

    @property
    def num_samples(self) -> int: ...

    def locate(self, chosen: npt.NDArray[np.int64]) -> LocatedSamples:
        """Some of them: int64[n], their numbers from 0 up, which ascend."""

    def place(self, number: int) -> Place:
        """The place before its sample with this number."""


class Walk(Protocol):
    """Goes through a sequence of samples."""

    def take(self, num_samples: int) -> Stretch:
        """So many samples more, or less where the sequence ends."""


class SourceWalk:
    """Through the samples of one source, as its order says."""

    def __init__(
        self, source: SampleSource, order: SampleOrder, end: int | None, place: Place
    ) -> None:
        """
        Args:
            source: of the samples.
            order: of the visits.
            end: how many visits there are; None for no end.
            place: where to begin.
        """
        self._source, self._order, self._end = source, order, end
        self._next = place.samples

    def take(self, num_samples: int) -> _SourceStretch:
        """See `Walk`."""
        start = self._next
        stop = start + num_samples
        self._next = stop if self._end is None else max(min(stop, self._end), start)
        warm = getattr(self._source, "warm", None)
        if warm is not None and self._next > start:
            warm(self._order.ahead(start, self._next))
        return _SourceStretch(self._source, self._order, start, self._next)


class _SourceStretch:
    def __init__(self, source: SampleSource, order: SampleOrder, start: int, stop: int) -> None:
        self._source, self._order, self._start = source, order, start
        self.num_samples = stop - start

    def locate(self, chosen: npt.NDArray[np.int64]) -> LocatedSamples:
        return locate(self._source, self._order.at(self._start + chosen))

    def place(self, number: int) -> Place:
        return Place(self._start + number)


class MixtureWalk:
    """Through a mixture."""

    def __init__(
        self, mixture: Mixture, end: int | None, place: Place, *, warms: bool = True
    ) -> None:
        """
        Args:
            mixture: of the samples.
            end: how many there are; None where only the mixture says so.
            place: where to begin.
            warms: have decoded ahead what is come by.

        Raises:
            UsageError: the counts of the place are not of this mixture.
        """
        self._mixture, self._end, self._warms = mixture, end, warms
        self._run: MixtureRun = mixture.start(place.counts)
        self._samples = place.samples

    def take(self, num_samples: int) -> _MixtureStretch:
        """See `Walk`."""
        if self._end is not None:
            num_samples = max(min(num_samples, self._end - self._samples), 0)
        before = Place(self._samples, self._run.counts)
        sources = self._run.take_sources(num_samples)
        self._samples += len(sources)
        if self._warms:
            self._warm(before, Place(self._samples, self._run.counts))
        return _MixtureStretch(self._mixture, before, sources)

    def _warm(self, before: Place, after: Place) -> None:
        mixture = self._mixture
        assert before.counts is not None
        assert after.counts is not None
        for (name, source), order in zip(mixture.sources.items(), mixture.orders, strict=True):
            start, stop = before.counts[name], after.counts[name]
            warm = getattr(source, "warm", None)
            if warm is not None and start < stop:
                warm(order.ahead(start, stop))


class _MixtureStretch:
    def __init__(self, mixture: Mixture, before: Place, sources: npt.NDArray[np.int32]) -> None:
        self._mixture, self._before, self._sources = mixture, before, sources
        self.num_samples = len(sources)

    def locate(self, chosen: npt.NDArray[np.int64]) -> LocatedSamples:
        assert self._before.counts is not None
        counts = np.array([*self._before.counts.values()])
        visits = counts[self._sources] + ranks_in_source(self._sources, len(counts))
        sources, visits = self._sources[chosen], visits[chosen]
        order, firsts = group_by_source(sources, len(counts))
        samples = np.empty(len(chosen), np.int64)
        for number, (first, stop) in enumerate(pairwise(firsts.tolist())):
            if first < stop:
                rows = order[first:stop]
                samples[rows] = self._mixture.orders[number].at(visits[rows])
        return self._mixture.locate(sources, samples)

    def place(self, number: int) -> Place:
        assert self._before.counts is not None
        added = np.bincount(self._sources[:number], minlength=len(self._before.counts)).tolist()
        counts = {
            name: count + more
            for (name, count), more in zip(self._before.counts.items(), added, strict=True)
        }
        return Place(self._before.samples + number, counts)


def locate(source: SampleSource, samples: npt.NDArray[np.int64]) -> LocatedSamples:
    """The samples with these numbers; of a source that only reads, read when asked for."""
    locates = getattr(source, "locate", None)
    return _Unlocated(source, samples) if locates is None else locates(samples)


class _Unlocated:
    def __init__(self, source: SampleSource, samples: npt.NDArray[np.int64]) -> None:
        self._source, self._samples = source, samples

    def read(self, start: int, stop: int) -> Arrays:
        return self._source.read(self._samples[start:stop])
