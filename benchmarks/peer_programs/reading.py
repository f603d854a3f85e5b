"""What the programs share: what they must say of each of their ways to read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = [
    "EPOCHS",
    "Index",
    "Reader",
    "Shape",
    "Tokens",
    "Variant",
    "epochs",
    "one_array",
    "order",
    "samples",
    "slices",
]

Tokens = npt.NDArray[Any]
Index = npt.NDArray[np.int64]
# Of a seed, one epoch of batches or more. What it does before the first `next` is not timed.
Reader = Callable[[int], Iterable[Any]]
# One epoch of so few tokens is over in 20 ms; that of a real dataset is not.
EPOCHS = 8


class Shape(NamedTuple):
    """Which batches are read."""

    batch_size: int
    seq_len: int
    is_shuffled: bool

    @property
    def label(self) -> str:
        """As the tables show it."""
        order = "shuffled" if self.is_shuffled else "in order"
        return f"{self.batch_size}×{self.seq_len} {order}"


def one_array(batch: Any) -> list[Tokens]:
    return [np.asarray(batch)]


class Variant(NamedTuple):
    """One way to read.

    Attributes:
        how: how the loader is driven, in a few words.
        open: opens what `write` stored; warm sides are opened once, before the time.
        arrays: the tokens of a batch.
        has_documents: a batch holds documents, of about as many tokens, and no samples.
        keeps_order: unshuffled samples come in the order in which they were stored.
        is_opened_anew: it is opened in every round, inside the time.
    """

    how: str
    open: Callable[[Path, Shape], Reader]
    arrays: Callable[[Any], Sequence[Tokens]] = one_array
    has_documents: bool = False
    keeps_order: bool = True
    is_opened_anew: bool = False


def samples(file: Path, seq_len: int) -> Tokens:
    """dtype[samples, seq_len]: a memory map of the tokens of a .npy file, but those at its end."""
    flat: Tokens = np.load(file, mmap_mode="r")
    return flat[: len(flat) // seq_len * seq_len].reshape(-1, seq_len)


def order(count: int, shape: Shape, seed: int) -> Index:
    """int64[count]: the numbers of all samples, shuffled or as they are."""
    return np.random.default_rng(seed).permutation(count) if shape.is_shuffled else np.arange(count)


def epochs(count: int, shape: Shape, seed: int) -> list[Index]:
    """The orders of several epochs."""
    return [order(count, shape, EPOCHS * seed + epoch) for epoch in range(EPOCHS)]


def slices(numbers: Index, batch_size: int) -> Iterator[Index]:
    """int64[batch_size]: the numbers of the samples of each whole batch."""
    for start in range(0, len(numbers) - batch_size + 1, batch_size):
        yield numbers[start : start + batch_size]
