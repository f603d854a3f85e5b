"""DataLoader: batches of fixed-length samples."""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from easydata._units import format_bytes
from easydata.errors import UsageError
from easydata.loader._checks import (
    check_count,
    check_flag,
    check_seed,
    check_shuffle,
    memory_bytes,
    whole_number,
)
from easydata.loader.batches import Batch, read_batches
from easydata.loader.columns import Columns
from easydata.loader.inputs import as_samples, block_borders, is_mixture
from easydata.loader.iteration import BatchIterator, LoaderStats, Progress
from easydata.loader.locating import Share
from easydata.loader.order import SampleOrder
from easydata.loader.protocols import SampleSource, TokenSource
from easydata.loader.samples import description
from easydata.loader.state import place_of, state_of
from easydata.loader.walk import MixtureWalk, Place, SourceWalk, Walk

if TYPE_CHECKING:
    from jax.sharding import Sharding

    from easydata.loader.grain_data import GrainBatches
    from easydata.loader.jax_data import JaxBatches
    from easydata.loader.mixing import Mixture
    from easydata.loader.schedule import Weights
    from easydata.loader.torch_data import TorchBatches

__all__ = ["DataLoader"]


class DataLoader:
    """Batches of samples of one length, in an order that nothing but the data and the seed decide.

    The sequence of samples is a pure function of the data, the packing, `seq_len`, the mixture,
    the seed and the epoch. A batch is the next `batch_size` of them; batches run across the ends
    of epochs. Of `shard_count` hosts, each is given its run of the samples of every batch, so
    that together they read the same sequence, however many they are.

    Each batch is a dict of arrays [samples, seq_len]: `input_ids`, and what `columns` asks for.
    `input_ids` is a read-only view of the data's memory where the samples of the batch follow one
    another there, else a copy, at an address that is a multiple of 64; several small batches may
    be copied into one buffer, and keep it alive together. `stats` counts both.

    Iterating anew begins anew; to go on where an iteration stopped, keep the iterator, or its
    state. `state_dict()` is where the latest iteration stands, in samples consumed by all hosts:
    with it another loader of the same sequence goes on there at once, with any batch size and any
    number of hosts.
    """

    def __init__(
        self,
        data: TokenSource | SampleSource | Mixture | Mapping[str, Any] | Any,
        batch_size: int,
        seq_len: int | None = None,
        *,
        pack: str = "concat",
        columns: Sequence[str] | None = None,
        dtype: npt.DTypeLike | None = None,
        pad_token_id: int | None = None,
        weights: Weights | None = None,
        weight_schedule: Sequence[tuple[int, Weights]] | None = None,
        stop_strategy: str = "restart",
        shuffle: bool | Literal["block"] = True,
        seed: int = 0,
        epochs: int | None = None,
        shard_index: int = 0,
        shard_count: int = 1,
        drop_last: bool = True,
        shuffle_buffer_size: int | None = None,
        prefetch: int = 0,
        prefetch_workers: int = 1,
    ) -> None:
        """
        Args:
            data: a dataset as `open_dataset` opens it, or another stream of tokens; a `datasets`
                dataset of tokens; samples; a mixture; or several of the first by name, which are
                mixed.
            batch_size: samples in a batch of all hosts together; `shard_count` divides it.
            seq_len: tokens in a sample; needed for what is not samples already.
            pack: how documents become samples, see `easydata.pack`: "concat", "greedy", "pool",
                "first_fit", "best_fit" or "pad". What "concat" leaves over at the end is in
                `tokens_left_out`, unless there is a `pad_token_id`.
            columns: the arrays of a batch, of `input_ids`, `segment_ids`, `positions`,
                `loss_mask`, `labels` and `document_ids`; None for `input_ids` and what the packing
                needs: `segment_ids`, `positions` and `loss_mask` unless it is "concat".
            dtype: of `input_ids`; None leaves them as they are stored.
            pad_token_id: fills samples up; None takes that of the data's tokenizer where needed.
            weights: shares of samples of several sources, by name or in order; None makes them
                proportional to the samples they have.
            weight_schedule: points (step, weights) in place of `weights`, see `Mixture`; a step
                is a batch.
            stop_strategy: of several sources, where they end: see `Mixture`.
            shuffle: True visits the samples of each epoch in an order of its own; "block" shuffles
                blocks of neighbours, for data that is compressed or far away (see `BlockOrder`);
                False takes them as they come.
            seed: chooses the orders, 0 to 2^64 - 1.
            epochs: how often every sample is visited; None for ever, or as `stop_strategy` says.
            shard_index: this host, from 0.
            shard_count: how many hosts there are.
            drop_last: leave out the last batch of all if it is not full.
            shuffle_buffer_size: shuffle only inside runs of so many samples.
            prefetch: batches that threads read ahead; 0 reads when asked, several small ones at
                once and on several threads, which is the fastest for data in memory.
            prefetch_workers: how many threads.

        Raises:
            UsageError: an argument is out of range or contradicts another or the data, or there
                is no whole sample or batch.
        """
        self._arguments = {name: value for name, value in locals().items() if name != "self"}
        self.batch_size = check_count(batch_size, "batch_size")
        self.drop_last = check_flag(drop_last, "drop_last")
        self._share = _share(self.batch_size, shard_index, shard_count, drop_last=self.drop_last)
        self._prefetch = check_count(prefetch, "prefetch", least=0)
        self._prefetch_workers = check_count(prefetch_workers, "prefetch_workers")
        if self._prefetch_workers > 1 and not self._prefetch:
            raise UsageError(
                f"prefetch_workers is {prefetch_workers}, but prefetch is 0; say with prefetch how "
                "many batches they read ahead."
            )
        self.seed = check_seed(seed)
        self.epochs = None if epochs is None else whole_number(epochs)
        if epochs is not None and (self.epochs is None or self.epochs < 1):
            raise UsageError(f"epochs is {epochs!r}; give 1 or more, or None to go on for ever.")
        if seq_len is not None:
            seq_len = check_count(seq_len, "seq_len")
        self.columns = Columns(columns, dtype)
        self.shuffle = shuffle = check_shuffle(shuffle)
        mixing = {
            "weights": weights,
            "schedule": weight_schedule,
            "stop_strategy": stop_strategy,
            "batch_size": self.batch_size,
            "seed": seed,
            "shuffle": shuffle,
            "shuffle_buffer_size": shuffle_buffer_size,
        }
        samples = as_samples(
            data, seq_len, pack=pack, pad_token_id=pad_token_id, columns=self.columns, mixing=mixing
        )
        self._source = samples
        if is_mixture(samples):
            self._sequence = samples.description
            self._check_mixture(samples)
        else:
            blocks = block_borders(samples) if shuffle == "block" else None
            self._sample_order = SampleOrder(
                samples.num_samples,
                shuffle=shuffle,
                seed=seed,
                window=shuffle_buffer_size,
                blocks=blocks,
            )
            self._sequence = description(samples) | self._sample_order.description
        self.seq_len = samples.seq_len
        if seq_len is not None and seq_len != self.seq_len:
            raise UsageError(
                f"seq_len is {seq_len}, but the samples have {self.seq_len} tokens; leave "
                "seq_len out."
            )
        self._begin = Place(0)
        self._progress = Progress(self._begin)
        self._check_one_batch()

    def __len__(self) -> int:
        """Number of batches of an iteration from the start.

        Raises:
            TypeError: there is no end to them.
        """
        end = self._end
        if end is None:
            raise TypeError("a loader with epochs=None has no length")
        return end // self.batch_size if self.drop_last else -(-end // self.batch_size)

    def __iter__(self) -> BatchIterator:
        """A new iteration: from the start, or once from the state that was loaded."""
        iterator = self.iterate(self._begin)
        self._begin, self._progress = Place(0), iterator.progress
        return iterator

    def iterate(
        self, place: Place, *, worker: int = 0, workers: int = 1, reads_ahead: bool = True
    ) -> BatchIterator:
        """An iteration from a place on, which the loader's own state does not follow.

        Args:
            place: where to begin.
            worker: one of `workers` readers that take the batches of this host in turn.
            workers: how many readers there are.
            reads_ahead: as `prefetch` says; else not before the first batch was asked for.
        """
        rows = self._share.batch_size // self._share.hosts
        is_copied = self.shuffle is not False or is_mixture(self._source)

        def start(place: Place, *, is_first: bool) -> Generator[list[Batch]]:
            # After a batch of one reader, those of all others come before its next one.
            turn = worker if is_first else workers - 1
            return read_batches(
                self._walk(place),
                self._share._replace(worker=turn, workers=workers),
                partial(self.columns.finish, is_own=is_copied),
                sample_bytes=self._sample_bytes,
                # Every batch of those that are copied together begins at a multiple of 64 bytes.
                may_group=hasattr(self._source, "dtype") and rows * self.seq_len % 64 == 0,
                is_copied=is_copied,
                is_mapped=getattr(self._source, "is_mapped", True),
                is_local=self.shuffle is not True,
                prefetch=self._prefetch if reads_ahead else 0,
                prefetch_workers=self._prefetch_workers,
            )

        return BatchIterator(start, Progress(place), self.sequence)

    def to_jax(
        self,
        sharding: Sharding | None = None,
        *,
        prefetch: int = 2,
        dtype: npt.DTypeLike | None = None,
    ) -> JaxBatches:
        """The same batches as dicts of `jax.Array`, put on their devices ahead of their steps.

        Iterating them is iterating the loader: the state of both is where the reader stands, and
        a state that the loader was given is where the next iteration begins. On the CPU, an array
        is the memory of the batch itself where its address is a multiple of 64.

        Args:
            sharding: of global arrays [batch_size, seq_len]; each process gives the rows that its
                devices hold: `shard_index=jax.process_index()`,
                `shard_count=jax.process_count()`. None puts what this loader reads on JAX's
                default device, which is one of this process.
            prefetch: batches that are put beyond the one that is asked for.
            dtype: of `input_ids`, which are cast on the device: narrow ones travel.

        Raises:
            MissingDependencyError: JAX is not installed.
            UsageError: the devices of `sharding` do not divide a batch, or those of this process
                hold other rows than this loader reads, or the last batch may be smaller, or
                `dtype` is no type of whole numbers that JAX has.
        """
        from easydata.loader.jax_data import JaxBatches

        return JaxBatches(self, self._share, sharding, prefetch=prefetch, dtype=dtype)

    def to_torch(self, *, for_transformers: bool = False) -> TorchBatches:
        """The batches as an iterable PyTorch dataset, from where the loader would begin now.

        Args:
            for_transformers: see `TorchDataset`.

        Raises:
            MissingDependencyError: PyTorch is not installed.
            UsageError: it is for Transformers, but the columns have no labels.
        """
        from easydata.loader.torch_data import TorchBatches

        return TorchBatches(self, self._begin, for_transformers=for_transformers)

    def to_grain(self) -> GrainBatches:
        """The batches by number, from where the loader would begin now, as a source for Grain."""
        from easydata.loader.grain_data import GrainBatches

        return GrainBatches(self, self._begin)

    def __reduce__(self) -> tuple[Callable[[], DataLoader], tuple[()], dict[str, Any]]:
        # A dataset is pickled by its path: so small, whatever plan or order was made for it.
        state = {"_begin": self._begin, "_progress": Progress(self._begin)}
        return partial(type(self), **self._arguments), (), state

    def state_dict(self) -> dict[str, Any]:
        """Where the latest iteration stands, as a JSON value of constant size.

        Batches that were read ahead do not count. The state of a loader that was not iterated is
        where it would begin.
        """
        return state_of(self._progress.place, self.sequence)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next iteration go on where the state was taken, without a repeat or a gap.

        Raises:
            UsageError: the state is of another sequence of samples; says what differs.
            FormatVersionError: a newer easydata made it.
        """
        place = place_of(state, self._sequence)
        self._walk(place)  # refuses what cannot be the counts of a mixture
        self._begin = place
        self._progress = Progress(self._begin)

    get_state = state_dict
    set_state = load_state_dict

    @property
    def sequence(self) -> dict[str, Any]:
        """What the sequence of samples follows from: JSON values, fingerprints among them."""
        return copy.deepcopy(self._sequence)

    @property
    def stats(self) -> LoaderStats:
        """What the latest iteration has handed out."""
        return self._progress.stats

    @property
    def num_samples(self) -> int:
        """Samples in an epoch; see `Mixture.num_samples`."""
        return operator.index(self._source.num_samples)

    @property
    def tokens_left_out(self) -> int:
        """Tokens at the end of a stream of tokens that are in no sample."""
        return int(getattr(self._source, "tokens_left_out", 0))

    @property
    def _sample_bytes(self) -> int:
        """Of `input_ids`; for a source that does not say, as if a token were a byte."""
        return self.seq_len * np.dtype(getattr(self._source, "dtype", np.uint8)).itemsize

    def _walk(self, place: Place, *, warms: bool = True) -> Walk:
        """Through the sequence.

        Args:
            place: where to begin.
            warms: decode ahead what is come by.
        """
        if is_mixture(self._source):
            end = None if self._ends_itself else self._end
            return MixtureWalk(self._source, end, place, warms=warms)
        return SourceWalk(self._source, self._sample_order, self._end, place)

    @property
    def _ends_itself(self) -> bool:
        """Whether the mixture says itself where it ends."""
        return is_mixture(self._source) and self._source.stop_strategy != "restart"

    @property
    def _end(self) -> int | None:
        """Samples of an iteration from the start; None if there is no end to them."""
        if self._ends_itself:
            return self.num_samples
        return None if self.epochs is None else self.epochs * self.num_samples

    def _check_mixture(self, mixture: Mixture) -> None:
        if mixture.stop_strategy != "restart" and self.epochs not in {None, 1}:
            raise UsageError(
                f"epochs is {self.epochs}, but stop_strategy={mixture.stop_strategy!r} says where "
                "the mixture ends; mix with stop_strategy='restart' to go on."
            )

    def _check_one_batch(self) -> None:
        size = self.batch_size // self._share.hosts * self._sample_bytes
        if size > memory_bytes():
            raise UsageError(
                f"batch_size is {self.batch_size}: so many samples of {self.seq_len} tokens are "
                f"{format_bytes(size)}, more than this machine's memory; choose a smaller one."
            )
        if not self.drop_last or (self.epochs is None and not self._ends_itself):
            return
        if self._ends_itself:
            found = self._walk(Place(0), warms=False).take(self.batch_size).num_samples
        else:
            found = min(self._end or 0, self.batch_size)
        if found < self.batch_size:
            raise UsageError(
                f"batch_size is {self.batch_size}, but there are only {found} samples of "
                f"{self.seq_len} tokens; choose a smaller batch_size or drop_last=False."
            )


def _share(batch_size: int, index: int, count: int, *, drop_last: bool) -> Share:
    count = check_count(count, "shard_count")
    index = check_count(index, "shard_index", least=0)
    if index >= count:
        raise UsageError(f"shard_index is {index}; with shard_count={count} it must be below.")
    if batch_size % count:
        raise UsageError(
            f"batch_size is {batch_size}, of all hosts together, and shard_count is {count}; "
            "choose a batch_size that it divides."
        )
    return Share(batch_size, index, count, drop_last=drop_last)
