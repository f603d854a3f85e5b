"""Shuffling that reads runs of neighbouring samples: for data that is decoded or fetched in blocks.

Blocks of neighbouring samples are visited in a random order, several of them as one group, and the
samples of a group are shuffled among each other. A reader needs one group in memory, and the next
one ahead, and decodes every block once in an epoch.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from easydata.loader.permutation import Permutation

__all__ = ["GROUP_BLOCKS", "MAX_BLOCKS", "BlockOrder", "default_blocks", "merge_blocks"]

GROUP_BLOCKS = 8
# So that the memory of an order does not grow with the data: half a megabyte.
MAX_BLOCKS = 1 << 16
_BLOCK_SAMPLES = 1024
_MASK = (1 << 64) - 1


class BlockOrder:
    """The order of the samples of one epoch; a bijection of 0..blocks[-1]-1."""

    def __init__(self, blocks: npt.NDArray[np.int64], *, seed: int, epoch: int) -> None:
        """
        Args:
            blocks: int64[n + 1], ascending from 0: block i is samples blocks[i] to blocks[i + 1].
            seed: chooses the order, 0 to 2^64 - 1.
            epoch: chooses it, too.
        """
        count = len(blocks) - 1
        self._seed, self._epoch = seed, epoch
        order = Permutation(count, seed=seed, epoch=epoch)(np.arange(count))
        self._starts = blocks[order]  # of the blocks in the order of visit
        self._sizes = blocks[order + 1] - self._starts
        self._firsts = np.append(0, self._sizes.cumsum())  # the place of the first sample of each
        self._groups = self._firsts[::GROUP_BLOCKS]
        if (count % GROUP_BLOCKS) != 0:
            self._groups = np.append(self._groups, self._firsts[-1])

    def at(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[n]: the samples at these places of the epoch, which ascend."""
        found = np.empty_like(places)
        groups = self._groups.searchsorted(places, side="right") - 1
        for group in range(int(groups[0]), int(groups[-1]) + 1):
            low, high = groups.searchsorted([group, group + 1])
            first, stop = self._groups[group : group + 2].tolist()
            if low == high or first == stop:
                continue
            seed = (self._seed + (group + 1) * 0x9E3779B97F4A7C15) & _MASK
            inside = Permutation(stop - first, seed=seed, epoch=self._epoch)
            at = first + inside(places[low:high] - first)
            block = self._firsts.searchsorted(at, side="right") - 1
            found[low:high] = self._starts[block] + at - self._firsts[block]
        return found

    def ahead(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """int64[n, 2]: the blocks of the groups of the places `start` to before `stop`, and of one
        group more, from the first sample to before the second.
        """
        first, last = self._groups.searchsorted([start, stop - 1], side="right") - 1
        chosen = slice(first * GROUP_BLOCKS, (last + 2) * GROUP_BLOCKS)
        return np.stack([self._starts[chosen], self._starts[chosen] + self._sizes[chosen]], axis=1)


def default_blocks(num_samples: int) -> npt.NDArray[np.int64]:
    """int64[n + 1]: blocks of one size for data that says nothing about where it is cut."""
    size = max(_BLOCK_SAMPLES, -(-num_samples // MAX_BLOCKS))
    return np.append(np.arange(0, num_samples, size), num_samples)


def merge_blocks(firsts: npt.NDArray[np.int64], least: int) -> npt.NDArray[np.int64]:
    """int64[m + 1]: blocks put together, so that their borders are the first ones at or after each
    multiple of `least`, or of more samples where there would be more than `MAX_BLOCKS`.

    Args:
        firsts: int64[n + 1], ascending: the first sample of each block, and the number of all.
        least: samples.
    """
    total = int(firsts[-1])
    least = max(least, -(-total // MAX_BLOCKS))
    # The first border at or after every multiple of `least`.
    borders = firsts[np.minimum(firsts.searchsorted(np.arange(0, total, least)), len(firsts) - 1)]
    borders = np.append(borders, total)
    return borders[np.append(True, np.diff(borders) > 0)]
