"""The weights of several sources as a function of the number of the sample, in integers."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from numbers import Rational, Real
from typing import Any

from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.loader._checks import check_count, whole_number

__all__ = ["Segment", "Weight", "WeightSchedule", "Weights"]

Weight = float | Fraction
Weights = Mapping[str, Weight] | Sequence[Weight]

_TYPES = ("step", "linear", "cosine")
_TOLERANCE = Fraction(1, 10**6)
# Weights without a common denominator up to this are rounded to it: a sample in 10^18.
_MAX_DENOMINATOR = 1 << 60
_MAX_WEIGHT = 10**18  # a message says what weights sum to, as a float

# The integral of a cosine is irrational. It is rounded to this part of a sample, and worked out in
# integers, because `math.sin` differs between machines in its last bit.
_COSINE_UNITS = 1 << 32
_FIXED = 10**49
_PI_SQUARED = 98696044010893586188344909998761511353136994072408  # π² in units of 1 / _FIXED


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of samples, from `start` to before `stop`, over which the weights are constant.

    `stop` is None for the last. `weights[i] / denominator` is the weight of source i in it, and
    `shares[i] / denominator` the sum of the weights of source i over all samples before `start`.
    """

    start: int
    stop: int | None
    weights: list[int]
    shares: list[int]
    denominator: int


class WeightSchedule:
    """Weights that are constant, or that follow points; exact at any sample number.

    A float stands for a short fraction that rounds to it (0.1 for 1/10), and weights are divided
    by their sum. Before the first and after the last point weights are constant. Between points,
    "step" keeps those of the earlier one; "linear" and "cosine" move to those of the later one in
    blocks of samples: the weights of a block are the mean of the curve over it.

    >>> schedule = WeightSchedule(["code", "text"], [(0, [1, 0]), (5, [0.5, 0.5])], batch_size=2)
    >>> schedule.share(1, 10), schedule.share(1, 13)
    (Fraction(0, 1), Fraction(3, 2))
    """

    def __init__(
        self,
        names: Sequence[str],
        points: Sequence[tuple[int, Weights]],
        *,
        type: str = "step",
        batch_size: int = 1,
        block_size: int = 1000,
    ) -> None:
        """
        Args:
            names: of the sources, in their order.
            points: (step, weights), each step later than the one before it; the weights by name
                or in the order of the sources. One point makes constant weights.
            type: "step", "linear" or "cosine".
            batch_size: samples in a step.
            block_size: samples for which moving weights stand still.

        Raises:
            UsageError: an argument is malformed or out of range, weights do not sum to 1 within
                1e-6, or a name is unknown or missing.
        """
        if type not in _TYPES:
            raise UsageError(f"the schedule type is {type!r}; it must be one of {_TYPES}.")
        batch_size = check_count(batch_size, "batch_size")
        block_size = check_count(block_size, "block_size")
        steps, values = _checked_points(points)
        starts = [step * batch_size for step in steps]
        self._denominator, weights = _over_one_denominator(
            [_fractions(value, names) for value in values]
        )
        if starts[0]:
            starts.insert(0, 0)
            weights.insert(0, weights[0])
        self._pieces: list[_Piece] = []
        shares = [0] * len(names)
        for i, now in enumerate(weights):
            last = i == len(weights) - 1
            moving = type != "step" and not last and weights[i + 1] != now
            piece = _Piece(
                start=starts[i],
                stop=None if last else starts[i + 1],
                block_size=block_size if moving else None,
                curve=type if moving else "step",
                denominator=2 * self._denominator,
                weights=now,
                changes=[
                    b - a for a, b in zip(now, weights[i + 1] if moving else now, strict=True)
                ],
                shares=shares,
            )
            self._pieces.append(piece)
            if piece.stop is not None:
                length = piece.stop - piece.start
                shares = [
                    share + (2 * weight + change) * length
                    for share, weight, change in zip(shares, now, piece.changes, strict=True)
                ]

    @property
    def is_constant(self) -> bool:
        """True if the weights never change."""
        return len(self._pieces) == 1

    @property
    def fingerprint(self) -> str:
        """Identity of the weights at every sample."""
        return fingerprint_json(
            [[piece.start, piece.curve, piece.block_size, piece.weights] for piece in self._pieces]
        )

    def is_ever_used(self, source: int) -> bool:
        """True if the weight of this source is positive anywhere."""
        return any(piece.weights[source] for piece in self._pieces)

    def segment(self, sample: int) -> Segment:
        """The segment that holds this sample."""
        piece = self._pieces[bisect_right(self._pieces, sample, key=lambda p: p.start) - 1]
        return piece.segment(piece.block_of(sample))

    def share(self, source: int, samples: int) -> Fraction:
        """The sum of the weights of `source` over the first `samples` samples."""
        segment = self.segment(samples)
        share = segment.shares[source] + segment.weights[source] * (samples - segment.start)
        return Fraction(share, segment.denominator)

    def reached(self, source: int, share: int) -> int | None:
        """The least number of samples over which the weights of `source` sum to `share` ≥ 1.

        None if they never do.
        """
        goal = share * 2 * self._denominator
        piece = self._pieces[bisect_left(self._pieces, goal, key=lambda p: p.shares[source]) - 1]
        segment = piece.segment(piece.block_that_reaches(source, share))
        if not segment.weights[source]:
            return None
        missing = share * segment.denominator - segment.shares[source]
        return segment.start - (-missing // segment.weights[source])


@dataclass(frozen=True, slots=True)
class _Piece:
    """The samples from one point to the next.

    With x samples of it behind, source i has had shares[i] + 2·(weights[i]·x + changes[i]·F(x)),
    over the denominator. F is the integral of a curve that rises from 0 to 1 over the piece.
    """

    start: int
    stop: int | None
    block_size: int | None  # None: all of the piece is one block
    curve: str
    denominator: int
    weights: list[int]
    changes: list[int]
    shares: list[int]

    def block_of(self, sample: int) -> int:
        return (sample - self.start) // self.block_size if self.block_size else 0

    def segment(self, block: int) -> Segment:
        """Segment number `block` of the piece."""
        if self.block_size is None or self.stop is None:
            weights = [2 * weight for weight in self.weights]
            return Segment(self.start, self.stop, weights, self.shares, self.denominator)
        first = block * self.block_size
        length = min(self.block_size, self.stop - self.start - first)
        units, before = self._integral(first)
        _, after = self._integral(first + length)
        sources = range(len(self.shares))
        shares = [self._share(i, first, units, before) for i in sources]
        ends = [self._share(i, first + length, units, after) for i in sources]
        return Segment(
            self.start + first,
            self.start + first + length,
            [end - share for end, share in zip(ends, shares, strict=True)],
            [share * length for share in shares],
            self.denominator * units * length,
        )

    def block_that_reaches(self, source: int, share: int) -> int:
        """The block in which `source` reaches `share`, which it has not before the piece."""
        if self.block_size is None or self.stop is None:
            return 0

        def reached(block: int) -> bool:
            offset = block * (self.block_size or 0)
            units, integral = self._integral(offset)
            goal = share * self.denominator * units
            return self._share(source, offset, units, integral) >= goal

        blocks = range(-(-(self.stop - self.start) // self.block_size))
        return bisect_left(blocks, True, key=reached) - 1

    def _share(self, source: int, offset: int, units: int, integral: int) -> int:
        """What `source` has had after `offset` samples of the piece, times `units`."""
        moved = self.weights[source] * offset * units + self.changes[source] * integral
        return self.shares[source] * units + 2 * moved

    def _integral(self, offset: int) -> tuple[int, int]:
        """(units in a sample, F(offset) in these units)."""
        assert self.stop is not None
        length = self.stop - self.start
        if self.curve == "linear":
            return 2 * length, offset * offset
        return _COSINE_UNITS, _cosine_integral(offset, length)


# The end of a block is the start of the next, and all sources search among the same blocks.
@lru_cache(maxsize=4096)
def _cosine_integral(offset: int, length: int) -> int:
    """F(x) = ∫(1 − cos πt/T)/2 = (x / 2)·(1 − sin(u)/u) with u = πx/T, by the series of sin."""
    square = _PI_SQUARED * offset**2 // length**2
    total, term, n = 0, _FIXED, 2
    while term:
        term = term * square // (_FIXED * n * (n + 1))
        total += term if n % 4 == 2 else -term
        n += 2
    return (offset * total * _COSINE_UNITS + _FIXED) // (2 * _FIXED)


def _checked_points(points: Sequence[tuple[int, Weights]]) -> tuple[list[int], list[Weights]]:
    """(the steps, the weights at each)."""
    try:
        pairs = [(step, weights) for step, weights in points]
    except (TypeError, ValueError):
        raise UsageError(
            f"the weight schedule is {points!r}; give a list of points (step, weights)."
        ) from None
    if not pairs:
        raise UsageError("the weight schedule has no points; give at least one.")
    steps = []
    for given, _ in pairs:
        step = whole_number(given)
        if step is None or step < 0:
            raise UsageError(f"the weight schedule has step {given!r}; steps are whole, from 0 up.")
        steps.append(step)
    for step, after in pairwise(steps):
        if after <= step:
            raise UsageError(
                f"the weight schedule has step {after} after step {step}; put the points in order, "
                "one for each step."
            )
    return steps, [weights for _, weights in pairs]


def _fractions(weights: Weights, names: Sequence[str]) -> list[Fraction]:
    """The weights in the order of the names, divided by their sum."""
    if isinstance(weights, Mapping):
        _check_names(weights, names)
        weights = [weights[name] for name in names]
    try:
        given = list(weights)
    except TypeError:
        raise UsageError(
            f"the weights are {weights!r}; give one for each of {', '.join(map(repr, names))}."
        ) from None
    if len(given) != len(names):
        raise UsageError(
            f"there are {len(given)} weights for {len(names)} sources; give one for each of "
            f"{', '.join(map(repr, names))}."
        )
    found = [_fraction(weight, name) for weight, name in zip(given, names, strict=True)]
    total = sum(found, Fraction(0))
    if abs(total - 1) > _TOLERANCE:
        raise UsageError(
            f"the weights {dict(zip(names, map(float, found), strict=True))} sum to "
            f"{float(total)}, not to 1; divide each by {float(total)}."
            if total
            else f"all weights of {', '.join(map(repr, names))} are 0; give at least one more."
        )
    return [weight / total for weight in found]


def _check_names(weights: Mapping[str, Weight], names: Sequence[str]) -> None:
    for name in weights:
        if name not in names:
            known = ", ".join(map(repr, names))
            raise UsageError(f"there are weights for {name!r}, but the sources are {known}.")
    for name in names:
        if name not in weights:
            raise UsageError(f"there is no weight for {name!r}; give one, or 0 to leave it out.")


def _fraction(weight: Any, name: str) -> Fraction:
    """A short fraction that rounds to this number."""
    is_number = isinstance(weight, Real) and not isinstance(weight, bool)
    if not (is_number and 0 <= weight <= _MAX_WEIGHT):
        raise UsageError(
            f"the weight of {name!r} is {weight!r:.60}; it must be a number from 0 to 1."
        )
    if isinstance(weight, Rational):
        return Fraction(weight)
    exact = Fraction(repr(float(weight)))
    for digits in range(1, 18):
        short = exact.limit_denominator(10**digits)
        if float(short) == float(weight):
            return short
    return exact


def _over_one_denominator(points: list[list[Fraction]]) -> tuple[int, list[list[int]]]:
    """(denominator, the numerators of each point, which sum to it)."""
    common = math.lcm(*(weight.denominator for weights in points for weight in weights))
    common = min(common, _MAX_DENOMINATOR)
    rounded = []
    for weights in points:
        down = [int(weight * common) for weight in weights]
        rests = [weight * common - whole for weight, whole in zip(weights, down, strict=True)]
        # What rounding down left over goes to those that lost most.
        for i in sorted(range(len(down)), key=lambda i: -rests[i])[: common - sum(down)]:
            down[i] += 1
        rounded.append(down)
    return common, rounded
