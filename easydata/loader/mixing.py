"""Mixture: several sources of samples as one, in exact shares."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.loader._checks import check_count, check_numbers, check_seed, check_shuffle, has_all
from easydata.loader.inputs import block_borders
from easydata.loader.interleave import Interleaving
from easydata.loader.merging import group_by_source, merge
from easydata.loader.order import SampleOrder
from easydata.loader.protocols import LocatedSamples, SampleSource
from easydata.loader.samples import description
from easydata.loader.schedule import Weights, WeightSchedule
from easydata.loader.walk import locate

__all__ = ["Mixture", "MixtureRun"]

_STRATEGIES = ("restart", "first_exhausted", "all_exhausted")
_CHUNK = 16_384


class Mixture:
    """Samples of several sources, mixed by weights that are shares of samples.

    After any number of samples each source has had less than one sample more or less than the sum
    of its weights over them. Inside a source, samples come in an order of that source's own, which
    depends on the seed, the source's name and how often it was gone through.

    Where it ends, by `stop_strategy`:
    * "restart": never. A source that was gone through begins again. An epoch is as many samples
      as all sources hold together.
    * "first_exhausted": before the first sample that would be a source's second visit to it.
    * "all_exhausted": as soon as every source that ever has weight was gone through.
    """

    def __init__(
        self,
        sources: Mapping[str, SampleSource],
        *,
        weights: Weights | None = None,
        schedule: Sequence[tuple[int, Weights]] | None = None,
        schedule_type: str = "step",
        batch_size: int | None = None,
        block_size: int = 1000,
        stop_strategy: str = "restart",
        seed: int = 0,
        shuffle: bool | Literal["block"] = True,
        shuffle_buffer_size: int | None = None,
    ) -> None:
        """
        Args:
            sources: by name.
            weights: of each source, by name or in order; None makes them proportional to the
                number of samples.
            schedule: points (step, weights) in place of `weights`; see `WeightSchedule`.
            schedule_type: "step", "linear" or "cosine".
            batch_size: samples in a step of the schedule, whatever the batches of the loader are.
            block_size: samples for which the weights of a linear or cosine schedule stand still.
            stop_strategy: "restart", "first_exhausted" or "all_exhausted".
            seed: chooses the orders inside the sources, 0 to 2^64 - 1.
            shuffle: False takes the samples of a source as they come, "block" shuffles blocks of
                neighbours, see `BlockOrder`.
            shuffle_buffer_size: shuffle only inside runs of so many samples of a source.

        Raises:
            UsageError: an argument is malformed, out of range or contradicts another, a source has
                no samples, the sources differ in their length of samples, or the mixture would
                never end though the strategy says that it does.
        """
        if stop_strategy not in _STRATEGIES:
            raise UsageError(
                f"stop_strategy is {stop_strategy!r}; it must be one of {', '.join(_STRATEGIES)}."
            )
        _check_sources(sources)
        self.sources = dict(sources)
        seed, shuffle = check_seed(seed), check_shuffle(shuffle)
        self.seq_len = _common_seq_len(self.sources)
        self.stop_strategy = stop_strategy
        self.sizes = [operator.index(source.num_samples) for source in self.sources.values()]
        self.batch_size = None if batch_size is None else check_count(batch_size, "batch_size")
        if shuffle_buffer_size is not None:
            shuffle_buffer_size = check_count(shuffle_buffer_size, "shuffle_buffer_size")
        if schedule is None:
            if weights is None:
                weights = [Fraction(size, sum(self.sizes)) for size in self.sizes]
            schedule = [(0, weights)]
        elif weights is not None:
            raise UsageError(
                "weights and a schedule of them (weight_schedule) are both given; give one."
            )
        elif self.batch_size is None:
            raise UsageError("a weight schedule counts in steps; give batch_size, too.")
        self.schedule = WeightSchedule(
            list(self.sources),
            schedule,
            type=schedule_type,
            batch_size=1 if self.batch_size is None else self.batch_size,
            block_size=block_size,
        )
        self.orders = [
            SampleOrder(
                size,
                shuffle=shuffle,
                seed=int(fingerprint_json([seed, name])[:16], 16),
                window=shuffle_buffer_size,
                blocks=block_borders(source) if shuffle == "block" else None,
            )
            for (name, source), size in zip(self.sources.items(), self.sizes, strict=True)
        ]
        self._parts: dict[str, Any] = {
            "seed": seed,
            "shuffle": shuffle,
            "shuffle_buffer_size": shuffle_buffer_size,
            "stop_strategy": stop_strategy,
            "schedule": self.schedule.fingerprint,
        }
        if shuffle == "block":
            self._parts["blocks"] = {
                name: order.description.get("blocks")
                for name, order in zip(self.sources, self.orders, strict=True)
            }
        if stop_strategy == "all_exhausted":
            self._check_that_it_ends()

    def _check_that_it_ends(self) -> None:
        for number, (name, size) in enumerate(zip(self.sources, self.sizes, strict=True)):
            if self.schedule.reached(number, size) is None and self.schedule.is_ever_used(number):
                raise UsageError(
                    f"stop_strategy is 'all_exhausted', but the weight of {name!r} falls to 0 "
                    f"before its {size} samples are used up; keep its weight up or choose another "
                    "strategy."
                )

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the samples and of all that decides about their order."""
        return fingerprint_json(self.description)

    @property
    def description(self) -> dict[str, Any]:
        """What the sequence of samples follows from, in JSON values."""
        sources = {
            name: fingerprint_json(description(source)) for name, source in self.sources.items()
        }
        return {"sources": sources, **self._parts}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of `input_ids`."""
        return self._dtypes["input_ids"]

    @property
    def is_mapped(self) -> bool:
        """Whether reading needs no decoding."""
        return all(getattr(source, "is_mapped", True) for source in self.sources.values())

    @cached_property
    def num_samples(self) -> int:
        """Samples of all sources for "restart"; else samples before the mixture ends.

        To count the latter, the order is gone through once, about a second for a million samples.
        With constant weights all but its last period are skipped: for weights of 0.7 and 0.3 a
        period is ten samples.
        """
        if self.stop_strategy == "restart":
            return sum(self.sizes)
        run = self.start(self._counts_before_end())
        total = sum(run.counts.values())
        while found := len(run.take_sources(_CHUNK)):
            total += found
        return total

    def _counts_before_end(self) -> dict[str, int]:
        """Counts at the end of a period that is over before the mixture is."""
        if not self.schedule.is_constant:
            return dict.fromkeys(self.sources, 0)
        segment = self.schedule.segment(0)
        used = [pair for pair in zip(self.sizes, segment.weights, strict=True) if pair[1]]
        # A source's sample number n, from 0, never comes before its share exceeds n.
        if self.stop_strategy == "first_exhausted":
            safe = min(size * segment.denominator // weight for size, weight in used)
        else:
            safe = max((size - 1) * segment.denominator // weight for size, weight in used)
        periods = safe // segment.denominator
        return dict(
            zip(self.sources, (periods * weight for weight in segment.weights), strict=True)
        )

    def start(self, counts: Mapping[str, int] | None = None) -> MixtureRun:
        """The order of the samples, from the first or from where a run had these `counts`.

        Raises:
            UsageError: the counts are not of this mixture; see also `Interleaving`.
        """
        return MixtureRun(self, dict.fromkeys(self.sources, 0) if counts is None else counts)

    def read(
        self, sources: npt.NDArray[np.integer[Any]], samples: npt.NDArray[np.int64]
    ) -> dict[str, npt.NDArray[Any]]:
        """Samples by source and number, as `SampleSource.read`; the arrays are copies.

        Args:
            sources: integer[n], the number of the source of each.
            samples: int64[n], the number in the source of each.

        Raises:
            UsageError: the sources do not give the same arrays.
            IndexError: there is no such source or sample.
        """
        return self.locate(sources, samples).read(0, len(samples))

    def locate(
        self, sources: npt.NDArray[np.integer[Any]], samples: npt.NDArray[np.int64]
    ) -> LocatedSamples:
        """Samples by source and number, as `read`; see `LocatedSamples`."""
        check_numbers(sources, len(self.sources), "source")
        order, firsts = group_by_source(sources, len(self.sources))
        located = {
            number: locate(source, samples[order[first:stop]])
            for number, (source, (first, stop)) in enumerate(
                zip(self.sources.values(), pairwise(firsts.tolist()), strict=True)
            )
            if first < stop
        }
        return merge(sources, located, order, self.seq_len, self._dtypes)

    @cached_property
    def _dtypes(self) -> dict[str, np.dtype[Any]]:
        """The smallest type of each array that holds the values of every source."""
        first = np.zeros(1, np.int64)
        found = {
            name: {key: array.dtype for key, array in source.read(first).items()}
            for name, source in self.sources.items()
        }
        (one, keys), *others = found.items()
        for other, its in others:
            if its.keys() != keys.keys():
                raise UsageError(
                    f"{one!r} gives samples with {', '.join(keys)}, but {other!r} with "
                    f"{', '.join(its)}; pack all sources in the same way."
                )
        dtypes = {key: np.result_type(*(its[key] for its in found.values())) for key in keys}
        for key, dtype in dtypes.items():
            if dtype.kind not in "biu":
                shown = ", ".join(f"{its[key]} ({name})" for name, its in found.items())
                raise UsageError(f"no type of whole numbers holds every {key}: {shown}.")
        return dtypes


class MixtureRun:
    """One run through a `Mixture`; `counts` is all of its state."""

    def __init__(self, mixture: Mixture, counts: Mapping[str, int]) -> None:
        """See `Mixture.start`."""
        if not isinstance(counts, Mapping):
            raise UsageError(
                f"the counts are {counts!r}; give how many samples each source has given, by name."
            )
        if counts.keys() != mixture.sources.keys():
            raise UsageError(
                f"the counts are of {', '.join(map(repr, counts))}, but the mixture is of "
                f"{', '.join(map(repr, mixture.sources))}."
            )
        self._mixture = mixture
        self._counts = [
            check_count(counts[name], f"the count of {name!r}", least=0) for name in mixture.sources
        ]
        self._interleaving = Interleaving(mixture.schedule, self._counts)
        self._ended = False

    @property
    def counts(self) -> dict[str, int]:
        """How many samples each source has given."""
        return dict(zip(self._mixture.sources, self._counts, strict=True))

    def take(self, length: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]:
        """(the source, the number in the source) of each of the next samples.

        int32[n] and int64[n], where n is `length`, or less where the mixture ends.

        Raises:
            UsageError: `length` is no count, or the run began with counts that are of another
                mixture.
        """
        before = list(self._counts)
        sources = self.take_sources(length)
        samples = np.empty(len(sources), np.int64)
        places, firsts = group_by_source(sources, len(before))
        for number, (first, stop) in enumerate(pairwise(firsts.tolist())):
            if first < stop:
                visits = before[number], self._counts[number]
                samples[places[first:stop]] = self._mixture.orders[number].visits(*visits)
        return sources, samples

    def take_sources(self, length: int) -> npt.NDArray[np.int32]:
        """As `take`, the sources only."""
        if self._ended:
            return np.empty(0, np.int32)
        sources = self._interleaving.take(check_count(length, "length", least=0))
        end = self._end(sources)
        if end is not None:
            self._ended = True
            sources = sources[:end]
        added = np.bincount(sources, minlength=len(self._counts)).tolist()
        self._counts = [count + more for count, more in zip(self._counts, added, strict=True)]
        return sources

    def _end(self, sources: npt.NDArray[np.int32]) -> int | None:
        """How many of the samples that come next the mixture still holds; None for all."""
        mixture = self._mixture
        if mixture.stop_strategy == "restart":
            return None
        is_first = mixture.stop_strategy == "first_exhausted"
        added = np.bincount(sources, minlength=len(self._counts)).tolist()
        ends = []
        for number, (size, count, more) in enumerate(
            zip(mixture.sizes, self._counts, added, strict=True)
        ):
            if not mixture.schedule.is_ever_used(number):
                continue
            left = size - count
            if is_first and more > left:
                ends.append(int(np.flatnonzero(sources == number)[left]))
            elif not is_first:
                if more < left:
                    return None
                rows = np.flatnonzero(sources == number) if left > 0 else None
                ends.append(0 if rows is None else int(rows[left - 1]) + 1)
        if not ends:
            return None
        return min(ends) if is_first else max(ends)


def _check_sources(sources: Mapping[str, SampleSource]) -> None:
    if not isinstance(sources, Mapping):
        raise UsageError(
            f"the sources of a mixture are a {type(sources).__name__}; give a dict of them by name."
        )
    if not sources:
        raise UsageError("a mixture needs at least one source; there is none.")
    for name, source in sources.items():
        if not isinstance(name, str):
            raise UsageError(f"a source has the name {name!r}; names are text.")
        given: object = source
        if isinstance(given, Mixture):
            raise UsageError(f"{name!r} is a mixture; mix its sources with the others instead.")
        if not has_all(source, "num_samples", "seq_len", "read"):
            raise UsageError(
                f"{name!r} is a {type(source).__name__}, which has no samples; if it is a dataset "
                "or another stream of tokens, pack it first."
            )


def _common_seq_len(sources: Mapping[str, SampleSource]) -> int:
    (first, one), *others = sources.items()
    for name, source in others:
        if source.seq_len != one.seq_len:
            raise UsageError(
                f"samples of {first!r} have {one.seq_len} tokens, but those of {name!r} have "
                f"{source.seq_len}; give all sources one seq_len."
            )
    for name, source in sources.items():
        if not source.num_samples:
            raise UsageError(f"{name!r} has no samples; leave it out or give it more data.")
    return one.seq_len
