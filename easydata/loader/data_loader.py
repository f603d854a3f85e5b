"""DataLoader: batches of fixed-length samples of a stream of tokens."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader.order import Permutation

__all__ = ["DataLoader", "TokenSource"]

# The order of this many samples is worked out at once: enough to make NumPy's cost per call
# vanish, few enough to stay in the cache of a core.
_ORDER_CHUNK = 16_384


class TokenSource(Protocol):
    """A stream of tokens that can be read anywhere. `TokenDataset` is one."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def tokens(self, start: int, stop: int) -> npt.NDArray[Any]:
        """dtype[stop - start]: a run of the stream, a read-only view where possible."""

    def gather(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        """dtype[n, length]: the runs that begin at `starts`, copied."""


class DataLoader:
    """Batches of samples; iterating twice gives the same batches twice.

    Sample i is tokens [i·seq_len, (i+1)·seq_len) of the stream; the tokens after the last whole
    sample are left out (`tokens_left_out`). The order is a pure function of the number of
    samples, the seed and the epoch. Batches run across the ends of epochs.

    Each batch is a dict with `input_ids`: dtype[batch_size, seq_len]. Without shuffling it is a
    read-only view of the file wherever it lies in one record batch, else an array of its own.
    """

    def __init__(
        self,
        source: TokenSource,
        batch_size: int,
        seq_len: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epochs: int | None = 1,
        drop_last: bool = True,
    ) -> None:
        """
        Args:
            source: where the tokens come from.
            batch_size: samples in a batch.
            seq_len: tokens in a sample.
            shuffle: visit the samples of each epoch in an order of its own.
            seed: chooses the orders, 0 to 2^64 - 1.
            epochs: how often every sample is visited; None for ever.
            drop_last: leave out the last batch of all if it is not full.

        Raises:
            UsageError: an argument is out of range, or the source holds no whole sample.
        """
        for name, value in (("batch_size", batch_size), ("seq_len", seq_len)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise UsageError(f"{name} is {value!r}; it must be a whole number from 1 up.")
        if epochs is not None and (not isinstance(epochs, int) or epochs < 1):
            raise UsageError(f"epochs is {epochs!r}; give 1 or more, or None to go on for ever.")
        self.num_samples = source.num_tokens // seq_len
        if not self.num_samples:
            raise UsageError(
                f"seq_len is {seq_len}, but there are only {source.num_tokens} tokens; "
                "choose a shorter seq_len or more data."
            )
        if drop_last and epochs is not None and epochs * self.num_samples < batch_size:
            raise UsageError(
                f"batch_size is {batch_size}, but there are only {epochs * self.num_samples} "
                f"samples of {seq_len} tokens; choose a smaller batch_size or drop_last=False."
            )
        Permutation(self.num_samples, seed=seed, epoch=0)  # refuses a wrong seed now
        self._source = source
        self.batch_size = batch_size
        self.seq_len = seq_len
        self.shuffle = shuffle
        self.seed = seed
        self.epochs = epochs
        self.drop_last = drop_last

    @property
    def tokens_left_out(self) -> int:
        """Tokens at the end of the stream that fill no sample."""
        return self._source.num_tokens - self.num_samples * self.seq_len

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: there is no end to them.
        """
        if self.epochs is None:
            raise TypeError("a loader with epochs=None has no length")
        samples = self.epochs * self.num_samples
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, npt.NDArray[Any]]]:
        for samples in self._batches_of_samples():
            yield {"input_ids": self._read(samples)}

    def _read(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        starts = samples * self.seq_len
        if not self.shuffle and samples[-1] - samples[0] == len(samples) - 1:
            start = int(starts[0])
            tokens = self._source.tokens(start, start + len(samples) * self.seq_len)
            return tokens.reshape(len(samples), self.seq_len)
        return self._source.gather(starts, self.seq_len)

    def _batches_of_samples(self) -> Iterator[npt.NDArray[np.int64]]:
        """int64[batch_size] of sample numbers, batch after batch."""
        rest = np.empty(0, np.int64)
        for chunk in self._order():
            samples = np.concatenate([rest, chunk])
            full = len(samples) - len(samples) % self.batch_size
            for start in range(0, full, self.batch_size):
                yield samples[start : start + self.batch_size]
            rest = samples[full:]
        if len(rest) and not self.drop_last:
            yield rest

    def _order(self) -> Iterator[npt.NDArray[np.int64]]:
        """All sample numbers in the order of visit, in chunks."""
        epoch = 0
        while self.epochs is None or epoch < self.epochs:
            order = Permutation(self.num_samples, seed=self.seed, epoch=epoch)
            for start in range(0, self.num_samples, _ORDER_CHUNK):
                positions = np.arange(start, min(start + _ORDER_CHUNK, self.num_samples))
                yield order(positions) if self.shuffle else positions
            epoch += 1
