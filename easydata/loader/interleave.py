"""Whose turn it is: the order in which samples come from several sources.

A source may be given its j-th sample once the sum of its weights, this sample's included, exceeds
j - 1, and must have been given it when the sum reaches j. Among the sources that may be next, the
one that must be soonest is: the "chairman assignment" of Tijdeman (Discrete Mathematics 32, 1980),
and "pfair" scheduling of one processor (Baruah, Cohen, Plaxton & Varvel, Algorithmica 15, 1996).
Giving every source at every sample the fraction that is its weight would keep all these windows;
so a whole assignment that keeps them exists, and for jobs of one length on one machine taking the
earliest deadline finds it. Nothing in this needs the weights to be constant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader.ranges import ranges
from easydata.loader.schedule import Segment, WeightSchedule

__all__ = ["Interleaving"]

_NEVER = 1 << 62
# Longer periods are not waited for.
_MAX_PERIOD = 1 << 16
_OF_ANOTHER = "The counts are of another mixture."


class Interleaving:
    """The source of one sample after another.

    After any number of samples, each source has had less than one sample more or less than the
    sum of its weights. Between sources that must be next equally soon, the one that lags most is
    taken, then the first. All arithmetic is on integers, and the counts are all of the state.

    >>> Interleaving(WeightSchedule("abc", [(0, [0.5, 0.25, 0.25])]), [0, 0, 0]).take(4).tolist()
    [0, 1, 2, 0]
    """

    def __init__(self, schedule: WeightSchedule, counts: Sequence[int]) -> None:
        """
        Args:
            schedule: the weights.
            counts: samples that each source has had so far; copied.

        Raises:
            UsageError: no interleaving by this schedule comes by these counts. Some counts of
                which this is not seen here are refused by `take`, see there.
        """
        self._schedule = schedule
        self._counts = list(counts)
        self._period: _Period | None = None
        done = sum(self._counts)
        segment = schedule.segment(done)
        for source, (count, share) in enumerate(
            zip(self._counts, _shares(segment, done).tolist(), strict=True)
        ):
            if not -segment.denominator < count * segment.denominator - share < segment.denominator:
                raise UsageError(
                    f"source {source} cannot have had {count} of the first {done} samples: "
                    f"its share of them is {share / segment.denominator:.1f}. {_OF_ANOTHER}"
                )
        self._check_deadlines(done)

    def _check_deadlines(self, done: int) -> None:
        """Refuse counts after which more samples must be next than there are places for."""
        ends = (
            self._schedule.reached(source, count + 1) for source, count in enumerate(self._counts)
        )
        for end in dict.fromkeys(ends):
            if end is None:
                continue
            # Every source must have had the whole part of its share of the first `end` samples.
            segment = self._schedule.segment(end)
            whole = _shares(segment, end) // segment.denominator
            due = int(np.maximum(whole - self._counts, 0).sum())
            if due > end - done:
                raise UsageError(
                    f"after {done} samples with the counts {self._counts}, {due} more would have "
                    f"to come within {end - done}. {_OF_ANOTHER}"
                )

    def take(self, length: int) -> npt.NDArray[np.int32]:
        """int32[length]: the sources of the next samples, by number.

        To work it out takes about a second for a million samples; where the weights are constant
        and have a short period, no more than that is worked out.

        Raises:
            UsageError: a source comes too late, which happens only after counts that no
                interleaving comes by.
        """
        found = [np.empty(0, np.int32)]
        sample = sum(self._counts)
        end = sample + length
        while sample < end:
            segment = self._schedule.segment(sample)
            stop = end if segment.stop is None else min(end, segment.stop)
            sources = self._within(segment, sample, stop)
            added = np.bincount(sources, minlength=len(self._counts)).tolist()
            self._counts = [count + more for count, more in zip(self._counts, added, strict=True)]
            found.append(sources)
            sample += len(sources)
        return np.concatenate(found)

    def _within(self, segment: Segment, first: int, stop: int) -> npt.NDArray[np.int32]:
        """The sources of samples from `first` on, to before `stop` or less, in the segment."""
        period = self._period
        if period is None or period.segment.start != segment.start:
            period = self._period = _Period(segment)
        if first < period.known_until:
            return period.take(first, min(stop, period.known_until))
        if period.missing:
            stop = min(stop, first + period.missing)
        sources, dues = self._earliest_first(segment, first, stop - first)
        if period.missing:
            period.add(first, sources, dues)
        return sources

    def _earliest_first(
        self, segment: Segment, first: int, length: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """int32[length], the sources of the samples from `first` on, all in the segment; and
        int64[length], for each the last sample that might have been in its place.
        """
        jobs = _Jobs(self._schedule, segment, self._counts, first, length)
        dues, arrivals = jobs.dues.tolist(), jobs.arrivals.tolist()
        weights, ahead = jobs.weights.tolist(), jobs.ahead.tolist()
        # Jobs are numbered by their dues, so the least number that may be given must be soonest.
        ready: list[int] = []
        found: list[int] = []
        known = 0
        for samples, arrived in enumerate(jobs.arrived.tolist(), start=1):
            while known < arrived:
                heappush(ready, arrivals[known])
                known += 1
            job = heappop(ready)
            due = dues[job]
            if ready and dues[ready[0]] == due:
                most, others = weights[job] * samples - ahead[job], []
                while ready and dues[ready[0]] == due:
                    other = heappop(ready)
                    lag = weights[other] * samples - ahead[other]
                    if lag > most:
                        job, other, most = other, job, lag
                    others.append(other)
                for other in others:
                    heappush(ready, other)
            found.append(job)
        sources, latest = jobs.sources[found], jobs.dues[found]
        late = np.flatnonzero(latest < np.arange(length))
        if len(late):
            at = int(late[0])
            raise UsageError(
                f"source {sources[at]} should have had sample {first + latest[at]} at the latest, "
                f"but sample {first + at} is the first that is left for it. {_OF_ANOTHER}"
            )
        return sources, latest


class _Jobs:
    """The samples that sources may be given in a part of a segment, in the order in which they
    must be given; samples are counted from the first of the part.

    Attributes:
        sources: int32[jobs].
        dues: int64[jobs], ascending: the last sample that may be it.
        ahead: integer[jobs], what the source has had before it, less its share of the samples
            before the part, times the denominator.
        weights: integer[jobs], of the source.
        arrivals: int64[jobs], the numbers of the jobs as they may be given.
        arrived: int64[samples], how many of them may be given up to each sample.
    """

    def __init__(
        self,
        schedule: WeightSchedule,
        segment: Segment,
        counts: Sequence[int],
        first: int,
        length: int,
    ) -> None:
        unit = segment.denominator
        weights = _integers(segment.weights, unit * (length + 2))
        kind = weights.dtype
        shares = _shares(segment, first).tolist()
        ahead = np.array(
            [count * unit - share for count, share in zip(counts, shares, strict=True)], kind
        )
        jobs = np.maximum(-((ahead - weights * length) // unit), 0).astype(np.int64)
        sources = np.repeat(np.arange(len(counts), dtype=np.int32), jobs)
        ordinals = ranges(np.zeros(len(counts), np.int64), jobs)
        weights, ahead = weights[sources], ahead[sources] + ordinals.astype(kind) * unit
        divisors = np.maximum(weights, 1)
        earliest = np.clip(ahead // divisors, 0, length).astype(np.int64)
        dues = np.minimum((ahead + unit - 1) // divisors, _NEVER).astype(np.int64)
        # What must be given after the segment follows from the weights there.
        segment_stop = _NEVER if segment.stop is None else segment.stop - first
        for job in np.flatnonzero((dues >= segment_stop) | (weights == 0)).tolist():
            source = int(sources[job])
            by = schedule.reached(source, counts[source] + int(ordinals[job]) + 1)
            dues[job] = _NEVER if by is None else min(by - 1 - first, _NEVER)
        order = np.lexsort((sources, dues))
        self.sources, self.dues = sources[order], dues[order]
        self.ahead, self.weights = ahead[order], weights[order]
        earliest = earliest[order]
        self.arrivals = earliest.argsort(kind="stable")
        self.arrived = earliest[self.arrivals].searchsorted(np.arange(length), side="right")


class _Period:
    """The order within a segment: once each source has had exactly its share of the samples of a
    period, all is as it was before, and so is all that follows, until the next segment has a say.
    """

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        divisor = math.gcd(segment.denominator, *segment.weights)
        self._length = segment.denominator // divisor
        self._shares = [weight // divisor for weight in segment.weights]
        # How many samples are to be added; 0 if the period is known or too long.
        self.missing = self._length if self._length <= _MAX_PERIOD else 0
        self.known_until = 0
        self._recent: list[npt.NDArray[np.int32]] = []
        self._longest_wait = 0
        self._first = 0

    def add(self, first: int, sources: npt.NDArray[np.int32], dues: npt.NDArray[np.int64]) -> None:
        """The order of at most `missing` samples from `first` on, which follow the ones before."""
        self._recent.append(sources)
        self._longest_wait = max(self._longest_wait, int((dues - np.arange(len(dues))).max()))
        self.missing -= len(sources)
        if self.missing:
            return
        order = np.concatenate(self._recent)
        if np.bincount(order, minlength=len(self._shares)).tolist() != self._shares:
            self.missing, self._recent, self._longest_wait = self._length, [], 0
            return
        self._recent = [order]
        self._first = first + len(sources)
        # A sample that is due in the segment is chosen whatever comes after the segment.
        stop = _NEVER if self.segment.stop is None else self.segment.stop
        self.known_until = stop - self._longest_wait

    def take(self, first: int, stop: int) -> npt.NDArray[np.int32]:
        """int32[stop - first]: the sources of the samples `first` to before `stop`."""
        (order,) = self._recent
        start = (first - self._first) % self._length
        return np.resize(np.roll(order, -start), stop - first)


def _shares(segment: Segment, samples: int) -> npt.NDArray[Any]:
    """integer[sources]: the sum of the weights over so many samples, of which the latest are in
    the segment, times the denominator.
    """
    most = segment.denominator * (samples + 1)
    weights, shares = _integers(segment.weights, most), _integers(segment.shares, most)
    found: npt.NDArray[Any] = shares + weights * (samples - segment.start)
    return found


def _integers(values: list[int], most: int) -> npt.NDArray[Any]:
    """int64[n], or Python's integers where numbers up to `most` do not fit."""
    return np.array(values, np.int64 if most < _NEVER else object)
