"""The batches of a loader by number: how many, and where each begins."""

from __future__ import annotations

import threading
from bisect import bisect_right
from typing import TYPE_CHECKING

from easydata.loader.inputs import is_mixture
from easydata.loader.walk import Place

if TYPE_CHECKING:
    from easydata.loader.data_loader import DataLoader

__all__ = ["BatchPlaces", "batches_from"]

_CHUNK = 1 << 16


class BatchPlaces:
    """The places before the batches of a loader, by number.

    That of one source is worked out. A mixture is gone through, about a second for a million
    samples: from the last place before that is known already, or, with constant weights, from the
    last whole period. Safe between threads.
    """

    def __init__(self, loader: DataLoader, begin: Place) -> None:
        """
        Args:
            loader: of the batches.
            begin: the place before batch 0.
        """
        self._loader = loader
        self._begin = self._latest = begin
        self._end = loader._end  # noqa: SLF001 - a part of it
        self._known = [begin]  # far enough apart to be few
        self._lock = threading.Lock()

    def before(self, batch: int) -> Place:
        """The place before a batch, or the end if that comes first."""
        samples = self._begin.samples + batch * self._loader.batch_size
        if self._end is not None:
            samples = min(samples, self._end)
        if not is_mixture(self._loader._source):  # noqa: SLF001 - a part of it
            return Place(samples)
        with self._lock:
            found = self._latest = self._walk_to(samples)
        return found

    def _walk_to(self, samples: int) -> Place:
        place = self._known[bisect_right(self._known, samples, key=lambda known: known.samples) - 1]
        for other in (self._latest, self._period(samples)):
            if place.samples < other.samples <= samples:
                place = other
        while place.samples < samples:
            length = min(samples - place.samples, _CHUNK)
            walk = self._loader._walk(place, warms=False)  # noqa: SLF001 - a part of it
            place = walk.take(length).place(length)
            if place.samples >= self._known[-1].samples + _CHUNK:
                self._known.append(place)
        return place

    def _period(self, samples: int) -> Place:
        """The end of the last period of the mixture's constant weights."""
        mixture = self._loader._source  # noqa: SLF001 - a part of it
        assert is_mixture(mixture)
        if not mixture.schedule.is_constant:
            return Place(0)
        segment = mixture.schedule.segment(0)
        periods = samples // segment.denominator
        counts = [periods * weight for weight in segment.weights]
        return Place(periods * segment.denominator, dict(zip(mixture.sources, counts, strict=True)))


def batches_from(loader: DataLoader, begin: Place) -> int:
    """Number of batches of a loader from a place on.

    Raises:
        TypeError: there is no end to them.
    """
    end = loader._end  # noqa: SLF001 - a part of it
    if end is None:
        raise TypeError("a loader with epochs=None has no length")
    left = max(end - begin.samples, 0)
    return left // loader.batch_size if loader.drop_last else -(-left // loader.batch_size)
