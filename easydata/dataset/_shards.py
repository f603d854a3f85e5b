"""The shards of an opened dataset: mapped, checked and decoded when first touched.

Every byte is compared with its checksum before anything looks at it, once, in blocks of 1 MiB
(`verify="lazy"`). Token ids of uncompressed shards are checked block by block as they are read;
all other buffers of a batch when the batch is first decoded.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from easydata.dataset._decode_ahead import DecodeAhead
from easydata.errors import CorruptShardError
from easydata.format.arrays import number_view
from easydata.format.checksums import BLOCK_BYTES
from easydata.format.ledger import Ledger
from easydata.format.mapping import map_file
from easydata.format.row_groups import read_row_group
from easydata.format.stream import decode_batch
from easydata.loader.packing_segments import ranges

__all__ = ["OpenBatch", "Shards", "Verify"]

Verify = Literal["lazy", "open", "never"]

_SMALL_BATCH_BYTES = 2 * BLOCK_BYTES  # checking it all costs less than finding what to check
_MAPPED_BATCHES = 4096  # a decoded view costs a few kilobytes, whatever it shows


class OpenBatch:
    """A decoded record batch.

    Attributes:
        batch: the record batch; its token column is a list column, of one length or of any.
        values: uint16[tokens] (or another token type), read-only: all tokens of the batch.
    """

    def __init__(self, batch: pa.RecordBatch, column: pa.Array) -> None:
        self.batch = batch
        self.values = number_view(column.values)
        self._column = column

    @cached_property
    def offsets(self) -> npt.NDArray[np.integer]:
        """int32 or int64[rows + 1]: where each row's tokens start in `values`."""
        if pa.types.is_fixed_size_list(self._column.type):
            return np.arange(len(self._column) + 1) * self._column.type.list_size
        return number_view(self._column.offsets)


class Shards:
    """Reads the record batches of a dataset. Safe to share between threads."""

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        *,
        token_column: str,
        verify: Verify,
        cache_bytes: int,
    ) -> None:
        """Open nothing yet.

        Args:
            directory: where the shards lie.
            ledger: what they consist of.
            token_column: name of the list column of token ids.
            verify: "lazy" checks at first touch, "never" not at all.
            cache_bytes: how much decoded data of compressed shards may be kept.
        """
        self.ledger = ledger
        self.is_mapped = (
            ledger.metadata["shard_format"] == "ipc" and ledger.metadata["compression"] == "none"
        )
        self._directory = directory
        self._token_column = token_column
        self._maps: dict[int, pa.Buffer] = {}
        self._open: OrderedDict[int, OpenBatch] = OrderedDict()
        self._open_bytes = 0
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._ahead = DecodeAhead(self._decode)
        has_checksums = len(ledger.checksums) > 0
        self._checked = np.full(len(ledger.checksums), verify == "never")
        self._all_checked = verify == "never" or not has_checksums
        # Of each batch of a mapped shard: how many bytes after its start token 0 lies.
        self._dtype = np.dtype(ledger.schema.field(token_column).type.value_type.to_pandas_dtype())
        self._token_offsets = np.zeros(len(ledger.batch_offsets), np.int64)
        _all.add(self)

    def start_over(self) -> None:
        """In a forked child: a thread that is not there may have held a lock."""
        self._lock = threading.Lock()
        self._ahead.start_over()
        if not self.is_mapped:
            self._open_bytes = sum(found.batch.nbytes for found in self._open.values())

    def shard_of(self, batch: int) -> int:
        """Index of the shard that holds a batch."""
        return int(self.ledger.first_batches.searchsorted(batch, side="right")) - 1

    def map_shard(self, shard: int) -> pa.Buffer:
        """The whole file, mapped; not checked.

        Raises:
            CorruptShardError: it is missing or has another size than the ledger says.
        """
        buffer = self._maps.get(shard)
        if buffer is None:
            path = f"{self._directory}{os.sep}{self.ledger.shard_name(shard)}"
            try:
                buffer = map_file(path)
            except FileNotFoundError as error:
                raise CorruptShardError(
                    f"Shard {path} is missing. If the dataset was built again since it was "
                    f"opened, open it again. {self._remedy}"
                ) from error
            expected = int(self.ledger.shard_bytes[shard])
            if buffer.size != expected:
                raise CorruptShardError(
                    f"Shard {path} has {buffer.size} bytes, not the {expected} that were "
                    f"written. {self._remedy}"
                )
            # Another thread may have mapped it too: addresses must all refer to one map.
            buffer = self._maps.setdefault(shard, buffer)
        return buffer

    def open_batch(self, batch: int) -> OpenBatch:
        """A record batch, decoded and validated. Its token ids are not checked yet if mapped.

        Raises:
            CorruptShardError: its bytes are not those that were written.
        """
        found = self._open.get(batch)
        if found is None:
            found = self._ahead.take(batch)
            with self._lock:
                if not self.is_mapped and batch not in self._open:
                    self._open_bytes += found.batch.nbytes
                self._open[batch] = found
                while self._is_too_much():
                    _, evicted = self._open.popitem(last=False)
                    self._open_bytes -= 0 if self.is_mapped else evicted.batch.nbytes
        else:
            with self._lock:
                if batch in self._open:
                    self._open.move_to_end(batch)
        return found

    def warm(self, batches: Iterable[int]) -> None:
        """Decode these batches of compressed shards ahead, the first ones first, as far as they
        fit into the cache together.
        """
        room = self._cache_bytes
        wanted: list[int] = []
        for batch in batches:
            room -= self._decoded_bytes(batch)
            if room < 0 and wanted:
                break
            if batch not in self._open:
                wanted.append(batch)
        self._ahead.announce(wanted)

    def _decoded_bytes(self, batch: int) -> int:
        """About how many bytes a decoded batch takes."""
        ledger = self.ledger
        tokens = int(ledger.first_tokens[batch + 1] - ledger.first_tokens[batch])
        rows = int(ledger.first_rows[batch + 1] - ledger.first_rows[batch])
        return tokens * self._dtype.itemsize + rows * 8

    def whole_batch(self, batch: int) -> pa.RecordBatch:
        """A record batch of which every byte has been checked."""
        found = self.open_batch(batch)
        self.check_tokens(batch, 0, len(found.values))
        return found.batch

    def tokens(self, batch: int, start: int, stop: int) -> npt.NDArray[np.integer]:
        """Tokens `start` to `stop` of a batch: a read-only view, checked."""
        found = self.open_batch(batch)
        self.check_tokens(batch, start, stop)
        return found.values[start:stop]

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[rows]: tokens in each row of all batches. Samples of one length are not read."""
        kind = self.ledger.schema.field(self._token_column).type
        if pa.types.is_fixed_size_list(kind):
            return np.full(int(self.ledger.first_rows[-1]), kind.list_size, np.int64)
        found = np.empty(int(self.ledger.first_rows[-1]), np.int64)
        for batch, first in enumerate(self.ledger.first_rows[:-1].tolist()):
            offsets = self.open_batch(batch).offsets
            np.subtract(offsets[1:], offsets[:-1], out=found[first : first + len(offsets) - 1])
        return found

    def check_tokens(self, batch: int, start: int, stop: int) -> None:
        """Check the blocks that hold tokens `start` to `stop` of a mapped batch."""
        if self._all_checked or not self.is_mapped or stop <= start:
            return
        self.open_batch(batch)
        itemsize = self._dtype.itemsize
        offset = int(self._token_offsets[batch])
        self._check(batch, offset + start * itemsize, offset + stop * itemsize)

    def check_runs(
        self,
        batches: npt.NDArray[np.int64],
        starts: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        """Check the blocks that hold these runs of tokens of mapped batches.

        Args:
            batches: int64[n], which have been opened.
            starts: int64[n], tokens from the start of the batch.
            sizes: int64[n], bytes in each run.
        """
        if self._all_checked or not len(batches):
            return
        offsets = self._token_offsets[batches] + starts * self._dtype.itemsize
        low = offsets // BLOCK_BYTES
        counts = np.where(sizes, (offsets + sizes - 1) // BLOCK_BYTES - low + 1, 0)
        first = self.ledger.batch_first_blocks[batches]
        blocks = ranges(first + low, counts)
        doubtful = np.flatnonzero(~self._checked[blocks])
        if not len(doubtful):
            return
        runs = np.repeat(np.arange(len(batches)), counts)[doubtful]
        in_batch = blocks[doubtful] - first[runs]
        for batch, block in sorted(
            set(zip(batches[runs].tolist(), in_batch.tolist(), strict=True))
        ):
            self._check(batch, block * BLOCK_BYTES, block * BLOCK_BYTES + 1)

    def check_shard(self, shard: int) -> None:
        """Check every byte of a shard, and that each batch holds what the ledger says.

        Raises:
            CorruptShardError: at the first difference.
        """
        ledger = self.ledger
        self._check_edges(shard)
        for batch in range(*ledger.first_batches[shard : shard + 2].tolist()):
            self._check(batch, 0, int(ledger.batch_bytes[batch]))
            self._decode(batch)

    def _decode(self, batch: int) -> OpenBatch:
        ledger = self.ledger
        message = self._message(batch)
        try:
            if ledger.metadata["shard_format"] == "parquet":
                self._check_edges(self.shard_of(batch))
                self._check(batch, 0, message.size, message)
                record_batch = self._read_row_group(batch)
            else:
                self._check_before_decoding(batch, message)
                record_batch = decode_batch(message, ledger.schema)
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self._damage(batch, str(error)) from error
        found = OpenBatch(record_batch, record_batch[self._token_column])
        rows = int(ledger.first_rows[batch + 1] - ledger.first_rows[batch])
        tokens = int(ledger.first_tokens[batch + 1] - ledger.first_tokens[batch])
        if (record_batch.num_rows, len(found.values)) != (rows, tokens):
            # Addresses are worked out from these counts.
            raise self._damage(
                batch,
                f"it has {record_batch.num_rows} rows and {len(found.values)} tokens where the "
                f"ledger says {rows} and {tokens}",
            )
        if self.is_mapped:
            offset = found.values.ctypes.data - message.address
            if tokens and not 0 <= offset <= message.size - found.values.nbytes:
                raise self._damage(batch, "it is compressed, but the ledger says that it is not")
            self._token_offsets[batch] = offset
        return found

    def _check_before_decoding(self, batch: int, message: pa.Buffer) -> None:
        """Check all of a batch but the token ids, if those can be checked as they are read."""
        if self._all_checked:
            return
        if not self.is_mapped or message.size <= _SMALL_BATCH_BYTES:
            self._check(batch, 0, message.size, message)
            return
        # The header says where the buffers lie, so it comes first; reading it needs no body.
        self._check(batch, 0, min(message.size, BLOCK_BYTES), message)
        header_bytes = 8 + int.from_bytes(memoryview(message)[4:8], "little")
        self._check(batch, 0, header_bytes, message)
        view = pa.ipc.read_record_batch(pa.ipc.read_message(message), self.ledger.schema)
        for item, column in zip(view.schema, view.columns, strict=True):
            buffers = column.buffers()
            if item.name == self._token_column:
                buffers = buffers[:-1]
            for buffer in buffers:
                if buffer is not None and buffer.size:
                    start = buffer.address - message.address
                    self._check(batch, start, start + buffer.size, message)

    def _read_row_group(self, batch: int) -> pa.RecordBatch:
        shard = self.shard_of(batch)
        index = batch - int(self.ledger.first_batches[shard])
        return read_row_group(self.map_shard(shard), index, self.ledger.schema)

    def _message(self, batch: int) -> pa.Buffer:
        """The bytes of a batch, not checked."""
        ledger = self.ledger
        data = self.map_shard(self.shard_of(batch))
        return data.slice(int(ledger.batch_offsets[batch]), int(ledger.batch_bytes[batch]))

    def _check(self, batch: int, start: int, stop: int, message: pa.Buffer | None = None) -> None:
        """Check the blocks that hold bytes `start` to `stop` of a batch.

        Args:
            batch: its number.
            start: a position in its bytes.
            stop: the position after the last.
            message: its bytes, if they are at hand.
        """
        if self._all_checked or stop <= start:
            return
        first = int(self.ledger.batch_first_blocks[batch])
        low, high = start // BLOCK_BYTES, -(-stop // BLOCK_BYTES)
        if all(self._checked[first + low : first + high]):
            return
        data = self._message(batch) if message is None else message
        bad = self._check_region(memoryview(data), first, low, high)
        if bad is not None:
            where = int(self.ledger.batch_offsets[batch]) + bad
            raise self._damage(batch, f"the checksum of bytes {where} and following does not match")

    def _check_edges(self, shard: int) -> None:
        """Check what lies before and after the batches of a shard."""
        if self._all_checked:
            return
        data = memoryview(self.map_shard(shard))
        header_end, tail_start = self.ledger.region_ends[shard].tolist()
        first, stop = self.ledger.first_blocks[shard : shard + 2].tolist()
        tail_blocks = -(-(len(data) - tail_start) // BLOCK_BYTES)
        for region, block in (
            (data[:header_end], first),
            (data[tail_start:], stop - tail_blocks),
        ):
            if self._check_region(region, block, 0, -(-len(region) // BLOCK_BYTES)) is not None:
                raise CorruptShardError(
                    f"Shard {self._directory / self.ledger.shard_name(shard)} is damaged: its "
                    f"header or footer does not match its checksum. {self._remedy}"
                )

    def _check_region(self, region: memoryview, first: int, low: int, high: int) -> int | None:
        """Check blocks `low` to `high` of a region; the position of the first bad one."""
        for block in range(low, high):
            if not self._checked[first + block]:
                start = block * BLOCK_BYTES
                found = xxhash.xxh3_64_intdigest(region[start : start + BLOCK_BYTES])
                if found != int(self.ledger.checksums[first + block]):
                    return start
                self._checked[first + block] = True
        return None

    def _damage(self, batch: int, what: str) -> CorruptShardError:
        shard = self.shard_of(batch)
        index = batch - int(self.ledger.first_batches[shard])
        path = self._directory / self.ledger.shard_name(shard)
        return CorruptShardError(
            f"Shard {path} is damaged in batch {index}: {what}. {self._remedy}"
        )

    @property
    def _remedy(self) -> str:
        command = self.ledger.repair_command(self._directory)
        return f"Restore it from a copy, or build it again: {command}"

    def _is_too_much(self) -> bool:
        if self.is_mapped:
            return len(self._open) > _MAPPED_BATCHES
        ahead = sum(map(self._decoded_bytes, self._ahead.pending))
        return self._open_bytes + ahead > self._cache_bytes and len(self._open) > 1


def _start_over() -> None:
    for shards in list(_all):
        shards.start_over()


_all: weakref.WeakSet[Shards] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
