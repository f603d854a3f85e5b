"""The order of samples, epoch after epoch: a pure function of a few numbers."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.fingerprint import Hasher
from easydata.loader._checks import check_count, check_seed, check_shuffle
from easydata.loader.block_order import BlockOrder, default_blocks
from easydata.loader.permutation import Permutation

__all__ = ["SampleOrder"]

_MASK = (1 << 64) - 1
# Read in order, compressed data is decoded so many samples ahead.
_AHEAD = 16_384


class SampleOrder:
    """The samples of one source in the order of visit, epoch after epoch without end.

    >>> SampleOrder(3, shuffle=False, seed=0).visits(2, 7).tolist()
    [2, 0, 1, 2, 0]
    """

    def __init__(
        self,
        length: int,
        *,
        shuffle: bool | Literal["block"],
        seed: int,
        window: int | None = None,
        blocks: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """
        Args:
            length: samples in an epoch.
            shuffle: True visits the samples of each epoch in an order of its own, "block" visits
                blocks of samples so, see `BlockOrder`; False takes them as they come.
            seed: chooses the orders.
            window: shuffle only inside every `window` samples that follow one another, so that
                reading goes forward through the data; None shuffles all.
            blocks: int64[blocks + 1], the first sample of each block of "block".

        Raises:
            UsageError: an argument is out of range or contradicts another.
        """
        shuffle = check_shuffle(shuffle)
        if window is not None:
            window = check_count(window, "shuffle_buffer_size")
            if shuffle is not True:
                raise UsageError(f"shuffle_buffer_size is {window}, but shuffle is {shuffle!r}.")
        self._length = Permutation(length, seed=seed, epoch=0).length  # refuses wrong ones now
        self._seed = check_seed(seed)
        self._window = self._length if window is None else min(window, self._length)
        self._shuffles = bool(shuffle) and self._window > 1
        self._blocks: npt.NDArray[np.int64] | None = None
        self._latest: tuple[int, BlockOrder] | None = None
        if shuffle == "block":
            self._blocks = default_blocks(self._length) if blocks is None else blocks

    @property
    def description(self) -> dict[str, Any]:
        """What the order follows from, beside the samples, in JSON values."""
        if not self._shuffles:
            return {"shuffle": False}
        found: dict[str, Any] = {"shuffle": True, "seed": self._seed}
        if self._window < self._length:
            found["shuffle_buffer_size"] = self._window
        if self._blocks is not None:
            found |= {"shuffle": "block", "blocks": Hasher(self._blocks.data).hexdigest()[:16]}
        return found

    def visits(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """int64[stop - start]: the samples of these visits; epoch e begins with visit e·length."""
        return self.at(np.arange(start, stop))

    def at(self, visits: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[n]: the samples of these visits, which ascend."""
        if not self._shuffles:
            return visits % self._length
        if not len(visits):
            return visits
        first, last = int(visits[0]) // self._length, int(visits[-1]) // self._length
        found = []
        for epoch in range(first, last + 1):
            bounds = visits.searchsorted([epoch * self._length, (epoch + 1) * self._length])
            places = visits[bounds[0] : bounds[1]] - epoch * self._length
            if len(places):
                found.append(self._in_epoch(epoch, places))
        return found[0] if len(found) == 1 else np.concatenate(found)

    def ahead(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """int64[n, 2]: runs of samples, from the first to before the second, that a reader of
        these visits does well to have in memory, the soonest first, and those that come after
        them; none if the order is not local.
        """
        found = [np.empty((0, 2), np.int64)]
        while start < stop and (self._blocks is not None or not self._shuffles):
            epoch, place = divmod(start, self._length)
            end = min(place + stop - start, self._length)
            if self._blocks is not None:
                found.append(self._block_order(epoch).ahead(place, end))
            else:
                found.append(np.array([[place, min(end + _AHEAD, self._length)]]))
            start += end - place
        return np.concatenate(found)

    def _in_epoch(self, epoch: int, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        if self._blocks is not None:
            return self._block_order(epoch).at(places)
        if self._window == self._length:
            return Permutation(self._length, seed=self._seed, epoch=epoch)(places)
        found = np.empty_like(places)
        windows = places // self._window
        for window in sorted({int(windows[0]), *windows[np.flatnonzero(np.diff(windows)) + 1]}):
            first = int(window) * self._window
            bounds = windows.searchsorted([window, window + 1])
            size = min(self._window, self._length - first)
            seed = (self._seed + int(window) * 0x9E3779B97F4A7C15) & _MASK
            order = Permutation(size, seed=seed, epoch=epoch)
            found[bounds[0] : bounds[1]] = first + order(places[bounds[0] : bounds[1]] - first)
        return found

    def _block_order(self, epoch: int) -> BlockOrder:
        latest = self._latest  # other threads may put another one there meanwhile
        if latest is None or latest[0] != epoch:
            assert self._blocks is not None
            latest = epoch, BlockOrder(self._blocks, seed=self._seed, epoch=epoch)
            self._latest = latest
        return latest[1]
