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

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader.schedule import Segment, WeightSchedule

__all__ = ["Interleaving"]

_NEVER = 1 << 62
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
        for source, count in enumerate(self._counts):
            share = schedule.share(source, sum(counts))
            if not -1 < count - share < 1:
                raise UsageError(
                    f"source {source} cannot have had {count} of the first {sum(counts)} samples: "
                    f"its share of them is {float(share):.1f}. {_OF_ANOTHER}"
                )
        self._check_deadlines()

    def _check_deadlines(self) -> None:
        """Refuse counts after which more samples must be next than there are places for."""
        done = sum(self._counts)
        for source, count in enumerate(self._counts):
            end = self._schedule.reached(source, count + 1)
            if end is None:
                continue
            # Every source must have had the whole part of its share of the first `end` samples.
            segment = self._schedule.segment(end)
            past = end - segment.start
            due = sum(
                max((share + weight * past) // segment.denominator - had, 0)
                for share, weight, had in zip(
                    segment.shares, segment.weights, self._counts, strict=True
                )
            )
            if due > end - done:
                raise UsageError(
                    f"after {done} samples with the counts {self._counts}, {due} more would have "
                    f"to come within {end - done}. {_OF_ANOTHER}"
                )

    def take(self, length: int) -> npt.NDArray[np.int32]:
        """int32[length]: the sources of the next samples, by number.

        Raises:
            UsageError: a source comes too late, which happens only after counts that no
                interleaving comes by.
        """
        found: list[int] = []
        sample = sum(self._counts)
        end = sample + length
        while sample < end:
            segment = self._schedule.segment(sample)
            stop = end if segment.stop is None else min(end, segment.stop)
            self._within(segment, sample, stop, found)
            sample = stop
        return np.array(found, np.int32)

    def _within(self, segment: Segment, first: int, stop: int, found: list[int]) -> None:
        """Append the sources of the samples `first` to before `stop`, all in the segment."""
        start, weights, unit = segment.start, segment.weights, segment.denominator
        segment_stop = _NEVER if segment.stop is None else segment.stop
        # Of each source: what it has had, less its share of the samples before the segment; the
        # first sample that may be its next; the last that may.
        ahead = [
            count * unit - share for count, share in zip(self._counts, segment.shares, strict=True)
        ]
        earliest, latest = [_NEVER] * len(ahead), [_NEVER] * len(ahead)

        def plan(source: int) -> None:
            weight = weights[source]
            if weight:
                earliest[source] = start + ahead[source] // weight
                latest[source] = start + (ahead[source] + unit - 1) // weight
            else:
                earliest[source] = start if ahead[source] < 0 else _NEVER
            if not weight or latest[source] >= segment_stop:
                by = self._schedule.reached(source, self._counts[source] + 1)
                latest[source] = _NEVER if by is None else by - 1

        active = [i for i, weight in enumerate(weights) if weight or ahead[i] < 0]
        for source in active:
            plan(source)
        for sample in range(first, stop):
            chosen, soonest = -1, _NEVER + 1
            for source in active:
                if earliest[source] <= sample:
                    due = latest[source]
                    if due < soonest:
                        chosen, soonest = source, due
                    elif due == soonest:
                        steps = sample + 1 - start
                        lag = weights[source] * steps - ahead[source]
                        if lag > weights[chosen] * steps - ahead[chosen]:
                            chosen = source
            if soonest < sample:
                raise UsageError(
                    f"source {chosen} should have had sample {soonest} at the latest, but sample "
                    f"{sample} is the first that is left for it. {_OF_ANOTHER}"
                )
            found.append(chosen)
            self._counts[chosen] += 1
            ahead[chosen] += unit
            plan(chosen)
