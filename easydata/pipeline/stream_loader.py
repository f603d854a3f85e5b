"""StreamLoader: batches of samples that are made while they are read."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easydata._optional import require
from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.loader.interleave import Interleaving
from easydata.loader.jax_data import to_device
from easydata.loader.prefetch import Prefetcher
from easydata.loader.protocols import SampleSource
from easydata.loader.schedule import WeightSchedule
from easydata.pipeline.stream_packing import SampleBlock
from easydata.pipeline.stream_samples import CachedSamples, SampleStream, StreamedSamples

if TYPE_CHECKING:
    from easydata.pipeline.config import PipelineConfig

__all__ = ["StreamLoader"]

_ORDER_CHUNK = 1024
_LAST_SAMPLE = 1 << 62

# Where a sample is: a block of samples, and its number in it.
_Place = tuple[SampleBlock, int]


class StreamLoader:
    """Batches of the samples of one stream, or of several in exact shares.

    Iterating twice gives the same batches twice; each time the rows are read and tokenized anew.
    Each batch is a dict of arrays [batch_size, seq_len], as that of a `DataLoader`. The order of
    the streams is that of a `Mixture` of the same weights, and so is that inside what is cached.

    How long a stream is, nobody knows before its end. So it ends, by `mix.stop_strategy`:
    * "first_exhausted": before the first sample that would be a stream's second visit to it.
    * "all_exhausted" and "restart": as soon as every stream that has weight was gone through, or
      gets no more weight; those that end before begin again.
    """

    def __init__(
        self, streams: Mapping[str, StreamedSamples | SampleSource], config: PipelineConfig
    ) -> None:
        """
        Args:
            streams: by name; those that are cached are read in an order of their own.
            config: of the whole pipeline.

        Raises:
            UsageError: there is none, they differ in their arrays, or there are several and no
                weights.
            MissingDependencyError: `prefetch_to_device` without JAX.
        """
        if not streams:
            raise UsageError("there are no streams to load; give at least one.")
        load, mix = config.load, config.mix
        if load.prefetch_to_device:
            require("jax", extra="jax", purpose="prefetch_to_device=True")
        self._load = load
        self._is_first_end = mix.stop_strategy == "first_exhausted"
        self._streams = {name: _as_stream(samples, config) for name, samples in streams.items()}
        self._seeds = [config.seed or 0]
        if len(streams) > 1:
            seed = mix.seed if mix.seed is not None else config.seed or 0
            self._seeds = [_seed_of(seed, name) for name in streams]
        self._schedule = _schedule(list(streams), config)
        self._dtypes = _common_dtypes(self._streams)
        self.batch_size = load.batch_size
        self.seq_len = next(iter(self._streams.values())).seq_len

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """A new iteration. Closing the iterator, or dropping it, ends its threads and processes.

        Raises:
            EasyDataError: rows cannot be read or tokenized; UsageError: a stream has no sample,
                or there is not one batch.
        """
        return self._batches()

    def _batches(self) -> Iterator[dict[str, Any]]:
        load = self._load
        cancelled = threading.Event()
        with ExitStack() as stack:
            places = stack.enter_context(closing(self._places(cancelled)))
            batches: Iterator[dict[str, Any]] = map(self._read, places)
            if load.prefetch_enabled:
                ahead = Prefetcher(
                    self._read,
                    places,
                    workers=load.prefetch_workers,
                    buffer_size=load.prefetch_buffer_size,
                )
                batches = stack.enter_context(closing(ahead))
            stack.callback(cancelled.set)
            for batch in batches:
                yield batch
                del batch  # its memory is free for the next one

    def _read(self, places: list[_Place]) -> dict[str, Any]:
        batch: dict[str, npt.NDArray[Any]] = {}
        for name, dtype in self._dtypes.items():
            batch[name] = np.empty((len(places), self.seq_len), dtype)
            for row, (block, number) in enumerate(places):
                batch[name][row] = block[name][number]
        return to_device(batch) if self._load.prefetch_to_device else batch

    def _places(self, cancelled: threading.Event) -> Generator[list[_Place], None, None]:
        """Where the samples of each batch are."""
        batch: list[_Place] = []
        count = 0
        with closing(self._samples(cancelled)) as samples:
            for place in samples:
                count += 1
                batch.append(place)
                if len(batch) == self.batch_size:
                    yield batch
                    batch = []
        if batch and not self._load.drop_last:
            yield batch
        elif count < self.batch_size:
            raise UsageError(
                f"batch_size is {self.batch_size}, but there are only {count} samples of "
                f"{self.seq_len} tokens; choose a smaller batch_size or drop_last=False."
            )

    def _samples(self, cancelled: threading.Event) -> Generator[_Place, None, None]:
        """Where each sample is, in the order of the mixture."""
        schedule = self._schedule
        # What gets no weight any more is never gone through.
        last = schedule.segment(_LAST_SAMPLE).weights
        unfinished = {
            number
            for number in range(len(last))
            if schedule.is_ever_used(number)
            and (last[number] or schedule.reached(number, 1) is not None)
        }
        with ExitStack() as stack:
            cursors = [
                stack.enter_context(closing(_Cursor(name, stream, seed, cancelled)))
                for (name, stream), seed in zip(self._streams.items(), self._seeds, strict=True)
            ]
            order = Interleaving(schedule, [0] * len(cursors))
            while True:
                for number in order.take(_ORDER_CHUNK).tolist():
                    cursor = cursors[number]
                    if self._is_first_end and cursor.is_finished:
                        return
                    yield cursor.take()
                    if self._is_first_end or number not in unfinished:
                        continue
                    is_over = not last[number] and (
                        schedule.reached(number, cursor.taken + 1) is None
                    )
                    if is_over or cursor.is_finished:
                        unfinished.discard(number)
                        if not unfinished:
                            return


class _Cursor:
    """The samples of one stream one by one, again and again."""

    def __init__(
        self, name: str, stream: SampleStream, seed: int, cancelled: threading.Event
    ) -> None:
        self.taken = 0
        self._name = name
        self._stream = stream
        self._seed = seed
        self._cancelled = cancelled
        self._epoch = 0
        self._blocks = self._open()
        self._block: SampleBlock | None = None
        self._size = self._next = 0

    @property
    def is_finished(self) -> bool:
        """Whether every sample was taken once."""
        return self._epoch > 0 or not self._has_next()

    def take(self) -> _Place:
        """Where the next sample is."""
        if not self._has_next():
            if not self.taken:
                raise UsageError(
                    f"{self._name!r} has no samples of {self._stream.seq_len} tokens; leave it "
                    "out or give it more data."
                )
            self._epoch += 1
            self._blocks = self._open()
            self._has_next()
        assert self._block is not None
        place = self._block, self._next
        self._next += 1
        self.taken += 1
        return place

    def close(self) -> None:
        self._blocks.close()

    def _has_next(self) -> bool:
        """Whether there is one more before the end; its block is there then."""
        while self._next == self._size:
            self._block = next(self._blocks, None)
            if self._block is None:
                self._size = self._next = 0
                return False
            self._size, self._next = len(self._block["input_ids"]), 0
        return True

    def _open(self) -> Generator[SampleBlock, None, None]:
        return self._stream.blocks(seed=self._seed, epoch=self._epoch, cancelled=self._cancelled)


def _as_stream(samples: StreamedSamples | SampleSource, config: PipelineConfig) -> SampleStream:
    if isinstance(samples, StreamedSamples):
        return samples
    return CachedSamples(
        samples,
        shuffle=config.pack.shuffle_packed,
        shuffle_buffer_size=config.load.shuffle_buffer_size,
    )


def _schedule(names: list[str], config: PipelineConfig) -> WeightSchedule:
    mix = config.mix
    if len(names) == 1:
        return WeightSchedule(names, [(0, [1])])
    if mix.weight_schedule is not None:
        points = [(point.step, dict(point.weights)) for point in mix.weight_schedule]
    elif mix.weights is not None:
        points = [(0, dict(mix.weights))]
    else:
        raise UsageError(
            "mix.weights is None, which mixes by size, but the size of a stream is not known; "
            "give weights, or set streaming=False, or cache the datasets."
        )
    return WeightSchedule(
        names,
        points,
        type=mix.weight_schedule_type,
        batch_size=config.load.batch_size,
        block_size=mix.block_size,
    )


def _seed_of(seed: int, name: str) -> int:
    # As in `Mixture`.
    return int(fingerprint_json([seed, name])[:16], 16)


def _common_dtypes(streams: Mapping[str, SampleStream]) -> dict[str, np.dtype[Any]]:
    """The smallest type of each array that holds the values of every stream.

    Raises:
        UsageError: they do not have the same arrays.
    """
    (first, one), *others = streams.items()
    dtypes = {name: stream.dtypes for name, stream in streams.items()}
    for name, stream in others:
        if stream.seq_len != one.seq_len:
            raise UsageError(
                f"samples of {first!r} have {one.seq_len} tokens, but those of {name!r} have "
                f"{stream.seq_len}; give all one seq_length."
            )
        if dtypes[name].keys() != dtypes[first].keys():
            raise UsageError(
                f"{first!r} gives samples with {', '.join(dtypes[first])}, but {name!r} with "
                f"{', '.join(dtypes[name])}; pack all datasets in the same way."
            )
    return {key: np.result_type(*(its[key] for its in dtypes.values())) for key in dtypes[first]}
