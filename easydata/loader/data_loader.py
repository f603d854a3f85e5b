"""DataLoader: batches of fixed-length samples."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import numpy.typing as npt

from easydata._optional import require
from easydata.errors import UsageError
from easydata.loader._checks import check_count, check_seed, has_all, whole_number
from easydata.loader.order import SampleOrder
from easydata.loader.samples import ConcatSamples, SampleSource

if TYPE_CHECKING:
    from easydata.loader.mixing import Mixture

__all__ = ["DataLoader", "LoaderStats", "TokenSource"]

# The order of this many samples is worked out at once: enough to make NumPy's cost per call
# vanish, few enough to stay in the cache of a core.
_ORDER_CHUNK = 16_384
# The first batch should not wait for that, so it begins with so many batches, and doubles.
_FIRST_BATCHES = 4

# int64[1, n]: numbers of samples; of a mixture int64[2, n]: numbers of their sources above.
_Places = npt.NDArray[np.int64]


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


@dataclass(slots=True)
class LoaderStats:
    """What one iteration over a `DataLoader` has handed out so far."""

    batches: int = 0
    samples: int = 0
    tokens: int = 0  # padding included
    samples_by_source: dict[str, int] = field(default_factory=dict)  # of a mixture


class DataLoader:
    """Batches of samples; iterating twice gives the same batches twice.

    Of a stream of tokens, sample i is tokens [i·seq_len, (i+1)·seq_len); those after the last
    whole sample are left out (`tokens_left_out`). The order is a pure function of the number of
    samples, the seed and the epoch, or of the mixture. Batches run across the ends of epochs.

    Each batch is a dict of the arrays that the source's `read` gives, `input_ids`:
    dtype[batch_size, seq_len] among them. Of a stream of tokens it is a read-only view of the file
    wherever the samples of the batch follow one another in one record batch, else an array of its
    own.
    """

    def __init__(
        self,
        source: TokenSource | SampleSource | Mixture,
        batch_size: int,
        seq_len: int | None = None,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epochs: int | None = 1,
        drop_last: bool = True,
        shuffle_buffer_size: int | None = None,
        prefetch_workers: int = 0,
        prefetch_buffer_size: int = 4,
        prefetch_to_device: bool = False,
    ) -> None:
        """
        Args:
            source: a stream of tokens, samples, or a mixture, which shuffles its sources itself
                and of which an epoch is as many samples as all its sources hold.
            batch_size: samples in a batch.
            seq_len: tokens in a sample; needed for a stream of tokens only.
            shuffle: visit the samples of each epoch in an order of its own.
            seed: chooses the orders, 0 to 2^64 - 1.
            epochs: how often every sample is visited; None for ever. A mixture that its
                stop_strategy ends takes 1.
            drop_last: leave out the last batch of all if it is not full.
            shuffle_buffer_size: shuffle only inside runs of so many samples, for data that is
                read from its start to its end; None shuffles all.
            prefetch_workers: threads that read ahead; 0 for none.
            prefetch_buffer_size: batches that they read ahead at most.
            prefetch_to_device: put the arrays on the first JAX device of this process, by the
                threads if any.

        Raises:
            UsageError: an argument is out of range or contradicts the source, or there is no
                whole sample or batch.
            MissingDependencyError: `prefetch_to_device` without JAX.
        """
        self.batch_size = check_count(batch_size, "batch_size")
        self._prefetch_workers = check_count(prefetch_workers, "prefetch_workers", least=0)
        self._prefetch_buffer_size = check_count(prefetch_buffer_size, "prefetch_buffer_size")
        self.seed = check_seed(seed)
        self.epochs = None if epochs is None else whole_number(epochs)
        if epochs is not None and (self.epochs is None or self.epochs < 1):
            raise UsageError(f"epochs is {epochs!r}; give 1 or more, or None to go on for ever.")
        if seq_len is not None:
            seq_len = check_count(seq_len, "seq_len")
        if prefetch_to_device:
            require("jax", extra="jax", purpose="prefetch_to_device=True")
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.stats = LoaderStats()
        self._prefetch_to_device = prefetch_to_device
        self._mixture = _as_mixture(source)
        if self._mixture is None:
            samples = _as_samples(source, seq_len)
            self._source: SampleSource | Mixture = samples
            self._order = SampleOrder(
                samples.num_samples, shuffle=shuffle, seed=seed, window=shuffle_buffer_size
            )
        else:
            if shuffle or self.seed != 0 or shuffle_buffer_size is not None:
                raise UsageError(
                    "a mixture shuffles its sources itself; give shuffle, seed and "
                    "shuffle_buffer_size to Mixture, not to the loader of it."
                )
            self._source = self._mixture
            self._check_mixture(self._mixture)
        self.seq_len = self._source.seq_len
        if seq_len not in {None, self.seq_len}:
            raise UsageError(
                f"seq_len is {seq_len}, but the source has samples of {self.seq_len} tokens; "
                "leave seq_len out."
            )
        if drop_last:
            self._check_one_batch()

    def _check_mixture(self, mixture: Mixture) -> None:
        if mixture.batch_size not in {None, self.batch_size}:
            raise UsageError(
                f"batch_size is {self.batch_size}, but the mixture counts steps of "
                f"{mixture.batch_size} samples; give both the same."
            )
        if mixture.stop_strategy != "restart" and self.epochs != 1:
            raise UsageError(
                f"epochs is {self.epochs}, but stop_strategy={mixture.stop_strategy!r} says where "
                "the mixture ends; mix with stop_strategy='restart' to go on."
            )

    def _check_one_batch(self) -> None:
        if self._ends_itself is None:
            if self.epochs is None:
                return
            samples = self.epochs * self.num_samples
        else:
            samples = len(self._ends_itself.start().take_sources(self.batch_size))
        if samples < self.batch_size:
            raise UsageError(
                f"batch_size is {self.batch_size}, but there are only {samples} "
                f"samples of {self.seq_len} tokens; choose a smaller batch_size or "
                "drop_last=False."
            )

    @property
    def _ends_itself(self) -> Mixture | None:
        """The mixture, if it says itself where it ends."""
        mixture = self._mixture
        return None if mixture is None or mixture.stop_strategy == "restart" else mixture

    @property
    def num_samples(self) -> int:
        """Samples in an epoch; see `Mixture.num_samples`."""
        return operator.index(self._source.num_samples)

    @property
    def tokens_left_out(self) -> int:
        """Tokens at the end of a stream of tokens that fill no sample; 0 for other sources."""
        return self._source.tokens_left_out if isinstance(self._source, ConcatSamples) else 0

    def __len__(self) -> int:
        """Number of batches.

        Raises:
            TypeError: there is no end to them.
        """
        if self.epochs is None:
            raise TypeError("a loader with epochs=None has no length")
        samples = self.epochs * self.num_samples
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """A new iteration, which `stats` counts from now on."""
        self.stats = LoaderStats()
        if self._mixture is not None:
            self.stats.samples_by_source = dict.fromkeys(self._mixture.sources, 0)
        return self._batches(self.stats)

    def _batches(self, stats: LoaderStats) -> Iterator[dict[str, Any]]:
        if not self._prefetch_workers:
            # No `map`, which would take a StopIteration of the source for the end.
            yield from self._counted((self._read(places) for places in self._places()), stats)
            return
        from easydata.loader.prefetch import Prefetcher

        ahead = Prefetcher(
            self._read,
            self._places(),
            workers=self._prefetch_workers,
            buffer_size=self._prefetch_buffer_size,
        )
        with closing(ahead):
            yield from self._counted(ahead, stats)

    def _counted(
        self, batches: Iterable[tuple[_Places, dict[str, Any]]], stats: LoaderStats
    ) -> Iterator[dict[str, Any]]:
        for places, batch in batches:
            stats.batches += 1
            stats.samples += places.shape[1]
            stats.tokens += places.shape[1] * self.seq_len
            if self._mixture is not None:
                counts = np.bincount(places[0], minlength=len(self._mixture.sources)).tolist()
                for name, count in zip(self._mixture.sources, counts, strict=True):
                    stats.samples_by_source[name] += count
            yield batch
            del batch  # its memory is free for the next one

    def _read(self, places: _Places) -> tuple[_Places, dict[str, Any]]:
        batch = self._source.read(*places)
        if self._prefetch_to_device:
            from easydata.loader.prefetch import to_device

            batch = to_device(batch)
        return places, batch

    def _places(self) -> Iterator[_Places]:
        """Where the samples of each batch are."""
        rest: _Places | None = None
        for chunk in self._ordered():
            places = chunk if rest is None else np.concatenate([rest, chunk], axis=1)
            full = places.shape[1] - places.shape[1] % self.batch_size
            for start in range(0, full, self.batch_size):
                yield places[:, start : start + self.batch_size]
            rest = places[:, full:]
        if rest is not None and rest.size and not self.drop_last:
            yield rest

    def _ordered(self) -> Iterator[_Places]:
        """Where all the samples are, in the order of visit, in chunks."""
        run = None if self._mixture is None else self._mixture.start()
        end = None
        if self.epochs is not None and self._ends_itself is None:
            end = self.epochs * self.num_samples
        start, size = 0, min(_FIRST_BATCHES * self.batch_size, _ORDER_CHUNK)
        while end is None or start < end:
            stop = start + size if end is None else min(start + size, end)
            if run is None:
                yield self._order.visits(start, stop)[np.newaxis]
            else:
                places = np.array(run.take(stop - start), np.int64)
                if not places.size:
                    return
                yield places
            start, size = stop, min(2 * size, _ORDER_CHUNK)


# Most loaders are of one stream of tokens: they need not wait for the modules of the others.


def _as_mixture(source: TokenSource | SampleSource | Mixture) -> Mixture | None:
    if not hasattr(source, "start"):
        return None
    from easydata.loader.mixing import Mixture

    return source if isinstance(source, Mixture) else None


def _as_samples(source: TokenSource | SampleSource | Mixture, seq_len: int | None) -> SampleSource:
    if has_all(source, "num_samples", "seq_len", "read"):
        return cast("SampleSource", source)
    if not has_all(source, "num_tokens", "dtype", "tokens", "gather"):
        raise UsageError(
            f"a {type(source).__name__} is no source of samples; give a dataset as open_dataset "
            "opens it, another stream of tokens, samples, or a mixture."
        )
    if seq_len is None:
        raise UsageError("seq_len is None, but a stream of tokens needs it; give seq_len.")
    return ConcatSamples(cast("TokenSource", source), seq_len)
