"""Samples that are read from start to end: of streams, and of what is cached."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.format.arrays import number_view
from easydata.loader._checks import check_pad_token_id
from easydata.loader.order import SampleOrder
from easydata.loader.permutation import Permutation
from easydata.loader.protocols import SampleSource
from easydata.pipeline.stream_packing import Documents, SampleBlock, WindowPacker, cut_windows

if TYPE_CHECKING:
    from easydata.pipeline.config import PackStageConfig

__all__ = ["CachedSamples", "SampleStream", "StreamedSamples", "TokenBatches"]

_ROWS_AT_A_TIME = 64
# As in `SampleOrder`, so that one window of one seed has one order, streamed or cached.
_SEED_STEP = 0x9E3779B97F4A7C15
_SEED_MASK = (1 << 64) - 1


class TokenBatches(Protocol):
    """Rows of token ids in record batches, the ids in the first column. `TokenStream` is one."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def batches(self) -> Generator[pa.RecordBatch, None, None]: ...


class SampleStream(Protocol):
    """Samples in the order in which they come."""

    @property
    def seq_len(self) -> int:
        """Tokens in a sample, padding included."""

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """The arrays of every block, by name; see `SampleSource.read`."""

    def blocks(
        self, *, seed: int = 0, epoch: int = 0, cancelled: threading.Event | None = None
    ) -> Generator[SampleBlock, None, None]:
        """All samples, some at a time, in an order of this seed and epoch.

        Args:
            seed: chooses the order, 0 to 2^64 - 1.
            epoch: how often they were gone through before.
            cancelled: once it is set, the iteration ends soon, and what it gives is of no use.
        """


class StreamedSamples:
    """The samples of a stream of rows, packed and shuffled in windows.

    Rows are collected until they have the tokens of `shuffle_buffer_factor` × `num_packers`
    samples, and packed; what fills no sample goes to the next window, see `WindowPacker`. Then
    each run of so many samples is shuffled if `shuffle_packed`, or of `shuffle_buffer_size`
    samples. Every token is in one sample, but for those in `tokens_left_out`. At most two windows
    and two runs are held in memory.
    """

    def __init__(
        self,
        stream: TokenBatches,
        config: PackStageConfig,
        *,
        is_packed: bool,
        pad_token_id: int | None = None,
        shuffle_buffer_size: int | None = None,
    ) -> None:
        """
        Args:
            stream: the rows.
            config: how to pack.
            is_packed: False for pieces of the stream of all rows, `seq_length` each.
            pad_token_id: fills samples up; with "concat" the last one only. Not used unless packed.
            shuffle_buffer_size: samples in a run that is shuffled; None: as in a window.

        Raises:
            UsageError: the pad id is no token id of the stream.
        """
        if pad_token_id is not None:
            check_pad_token_id(pad_token_id, stream.dtype)
        self.tokens_left_out = 0  # of the last time that all was read
        self._stream = stream
        self._packer = WindowPacker(
            seq_len=config.seq_length,
            strategy=config.strategy if is_packed else "concat",
            pad_token_id=pad_token_id if is_packed else None,
            num_packers=config.num_packers,
            include_segment_ids=config.include_segment_ids and is_packed,
            window=config.shuffle_buffer_factor * config.num_packers,
        )
        self._run = (shuffle_buffer_size or self._packer.window) if config.shuffle_packed else None

    @property
    def seq_len(self) -> int:
        return self._packer.seq_len

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        packer = self._packer
        found = {"input_ids": self._stream.dtype}
        if packer.include_segment_ids:
            found["segment_ids"] = found["positions"] = np.dtype(np.int32)
        if packer.strategy != "concat" or packer.pad_token_id is not None:
            found["loss_mask"] = np.dtype(np.bool_)
        return found

    def __iter__(self) -> Iterator[SampleBlock]:
        return self.blocks()

    def blocks(
        self, *, seed: int = 0, epoch: int = 0, cancelled: threading.Event | None = None
    ) -> Generator[SampleBlock, None, None]:
        """See `SampleStream.blocks`. A run has the same order at every call with one seed and
        epoch.

        Raises:
            EasyDataError: the rows cannot be read or tokenized; UsageError: padding is needed,
                and there is no pad id.
        """
        with closing(self._packed(cancelled)) as packed:
            if self._run is None:
                yield from packed
                return
            for number, block in enumerate(_regroup(packed, self._run)):
                of_run = (seed + number * _SEED_STEP) & _SEED_MASK
                size = len(block["input_ids"])
                order = Permutation(size, seed=of_run, epoch=epoch)(np.arange(size))
                yield {name: array[order] for name, array in block.items()}

    def _packed(self, cancelled: threading.Event | None) -> Generator[SampleBlock, None, None]:
        with closing(self._stream.batches()) as batches:
            wanted = takewhile(lambda _: cancelled is None or not cancelled.is_set(), batches)
            left_out = yield from cut_windows(map(_documents, wanted), self._packer)
        self.tokens_left_out = left_out


class CachedSamples:
    """Samples that could be read anywhere, in one order after another."""

    def __init__(
        self,
        source: SampleSource,
        *,
        shuffle: bool,
        shuffle_buffer_size: int | None = None,
    ) -> None:
        """
        Args:
            source: the samples.
            shuffle: visit them in an order of the seed and the epoch.
            shuffle_buffer_size: only inside runs of so many; None: all.
        """
        self._source = source
        self._shuffle = shuffle
        self._window = shuffle_buffer_size if shuffle else None

    @property
    def seq_len(self) -> int:
        return self._source.seq_len

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        first = self._source.read(np.zeros(1, np.int64))
        return {name: array.dtype for name, array in first.items()}

    def blocks(
        self, *, seed: int = 0, epoch: int = 0, cancelled: threading.Event | None = None
    ) -> Generator[SampleBlock, None, None]:
        """See `SampleStream.blocks`; the order is that of a `Mixture` of cached samples."""
        del cancelled  # every block is read in no time
        size = self._source.num_samples
        order = SampleOrder(size, shuffle=self._shuffle, seed=seed, window=self._window)
        start, end = epoch * size, (epoch + 1) * size
        for first in range(start, end, _ROWS_AT_A_TIME):
            yield self._source.read(order.visits(first, min(first + _ROWS_AT_A_TIME, end)))


def _documents(batch: pa.RecordBatch) -> Documents:
    """The token ids of the rows, a view."""
    ids = batch.column(0)
    offsets = number_view(ids.offsets).astype(np.int64)
    return Documents(number_view(ids.values)[offsets[0] : offsets[-1]], np.diff(offsets))


def _regroup(blocks: Iterable[SampleBlock], size: int) -> Iterator[SampleBlock]:
    """The same samples in blocks of `size`, but for the last."""
    held: list[SampleBlock] = []
    count = 0
    for block in blocks:
        rest = block
        while count + _size(rest) >= size:
            yield _join([*held, _rows(rest, slice(size - count))])
            rest = _rows(rest, slice(size - count, None))
            held, count = [], 0
        held.append(rest)
        count += _size(rest)
    if count:
        yield _join(held)


def _size(block: SampleBlock) -> int:
    return len(block["input_ids"])


def _rows(block: SampleBlock, rows: slice) -> SampleBlock:
    return {name: array[rows] for name, array in block.items()}


def _join(blocks: list[SampleBlock]) -> SampleBlock:
    def joined(name: str) -> npt.NDArray[Any]:
        return np.concatenate([block[name] for block in blocks])

    return {name: joined(name) for name in blocks[0]}
