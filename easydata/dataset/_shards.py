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
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from easydata._threads import in_parts
from easydata.dataset._decode_ahead import DecodeAhead, OpenBatch, row_bytes
from easydata.errors import CorruptShardError
from easydata.format.checksums import BLOCK_BYTES, block_count
from easydata.format.ledger import Ledger
from easydata.format.mapping import map_file
from easydata.format.row_groups import read_row_group
from easydata.format.stream import decode_batch, places_beside
from easydata.loader.ranges import ranges

__all__ = ["Shards", "Verify"]

Verify = Literal["lazy", "open", "never"]

_SMALL_BATCH_BYTES = 2 * BLOCK_BYTES  # checking it all costs less than finding what to check
_MAPPED_BATCHES = 4096  # a decoded view costs a few kilobytes, whatever it shows


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
        self.token_column = token_column
        self._directory = directory
        self._maps: dict[int, pa.Buffer] = {}
        self._open: OrderedDict[int, OpenBatch] = OrderedDict()
        self._open_bytes = 0
        self._cache_bytes = cache_bytes
        self._lock = threading.Lock()
        self._ahead = DecodeAhead(self._decode)
        self._is_trusted = verify == "never" or not len(ledger.checksums)
        # Of record batches; what lies around them is checked shard by shard.
        self._checked = np.zeros(len(ledger.checksums), np.bool_)
        self._checked_edges: set[int] = set()
        self._all_checked = self._is_trusted
        self._is_news = False  # whether blocks were checked since it was seen if all are
        self._itemsize = ledger.schema.field(token_column).type.value_type.bit_width // 8
        self._row_bytes = row_bytes(ledger.schema, token_column)
        # Where each batch of a mapped shard begins, once it was decoded.
        self._message_addresses = np.zeros(len(ledger.batch_offsets), np.int64)
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
                while len(self._open) > 1 and self._is_too_much():
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
        wanted: dict[int, int] = {}
        for batch in batches:
            if batch not in wanted:
                nbytes = self._decoded_bytes(batch)
                if wanted and nbytes > room:
                    break
                wanted[batch] = nbytes
                room -= nbytes
        self._ahead.announce({b: n for b, n in wanted.items() if b not in self._open}, room)

    def _decoded_bytes(self, batch: int) -> int:
        """About how many bytes a decoded batch takes, as far as the schema says."""
        ledger = self.ledger
        tokens = int(ledger.first_tokens[batch + 1] - ledger.first_tokens[batch])
        rows = int(ledger.first_rows[batch + 1] - ledger.first_rows[batch])
        return tokens * self._itemsize + rows * self._row_bytes

    def whole_batch(self, batch: int) -> pa.RecordBatch:
        """A record batch of which every byte has been checked."""
        found = self.open_batch(batch)
        self._check_tokens(batch, found, 0, len(found.values))
        return found.batch

    def tokens(self, batch: int, start: int, stop: int) -> npt.NDArray[np.integer]:
        """Tokens `start` to `stop` of a batch: a read-only view, checked."""
        found = self.open_batch(batch)
        self._check_tokens(batch, found, start, stop)
        return found.values[start:stop]

    def items(self, batch: int, column: str) -> npt.NDArray[np.integer]:
        """The items of all lists of a column of a batch, one after another: a read-only view of
        the map or of what was decoded. Mapped token ids are not checked yet.

        Raises:
            CorruptShardError: some are missing, or the bytes are not those that were written.
        """
        found = self.open_batch(batch)
        try:
            items = found.values if column == self.token_column else found.items(column)
        except pa.ArrowInvalid as error:
            raise self._damage(batch, str(error)) from error
        self._check_mapped(batch, self._message(batch), items)
        return items

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[rows]: tokens in each row of all batches. Samples of one length are not read."""
        kind = self.ledger.schema.field(self.token_column).type
        if pa.types.is_fixed_size_list(kind):
            return np.full(int(self.ledger.first_rows[-1]), kind.list_size, np.int64)
        found = np.empty(int(self.ledger.first_rows[-1]), np.int64)
        for batch, first in enumerate(self.ledger.first_rows[:-1].tolist()):
            offsets = self.open_batch(batch).offsets
            np.subtract(offsets[1:], offsets[:-1], out=found[first : first + len(offsets) - 1])
        return found

    def _check_tokens(self, batch: int, found: OpenBatch, start: int, stop: int) -> None:
        """Check the blocks that hold tokens `start` to `stop` of a batch, if it is mapped."""
        if self._all_checked or not self.is_mapped or stop <= start:
            return
        offset = found.address - int(self._message_addresses[batch])
        self._check(batch, offset + start * self._itemsize, offset + stop * self._itemsize)

    def check_runs(
        self,
        batches: npt.NDArray[np.int64],
        addresses: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
    ) -> None:
        """Check the blocks that hold these runs of tokens of mapped batches.

        Args:
            batches: int64[n], which have been opened.
            addresses: int64[n], of the first byte of each run.
            sizes: int64[n], bytes in each run; of one without any, the batch does not matter.
        """
        if self._all_checked or not len(batches):
            return
        offsets = addresses - self._message_addresses.take(batches, mode="clip")
        low = offsets // BLOCK_BYTES
        counts = np.where(sizes, (offsets + sizes - 1) // BLOCK_BYTES - low + 1, 0)
        first = self.ledger.batch_first_blocks.take(batches, mode="clip")
        blocks = ranges(first + low, counts)
        wanted = np.zeros_like(self._checked)
        wanted[blocks] = True
        doubtful = np.flatnonzero(wanted & ~self._checked)
        if not len(doubtful):
            if self._is_news:
                self._is_news = False  # first: another thread may have more
                num_blocks = block_count(self.ledger.batch_bytes).sum()
                self._all_checked = bool(np.count_nonzero(self._checked) == num_blocks)
            return
        # To hash two blocks takes longer than to hand them over.
        in_parts(self._check_blocks, doubtful, least=2)

    def _check_blocks(self, blocks: npt.NDArray[np.int64]) -> None:
        """Check blocks of record batches by their numbers, int64[n] ascending."""
        firsts = self.ledger.batch_first_blocks
        holders = firsts.searchsorted(blocks, side="right") - 1
        for batch, block in zip(holders.tolist(), blocks - firsts[holders], strict=True):
            self._check(batch, int(block) * BLOCK_BYTES, int(block) * BLOCK_BYTES + 1)

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
            found = OpenBatch(record_batch, self.token_column)
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise self._damage(batch, str(error)) from error
        rows = int(ledger.first_rows[batch + 1] - ledger.first_rows[batch])
        tokens = int(ledger.first_tokens[batch + 1] - ledger.first_tokens[batch])
        if (record_batch.num_rows, len(found.values)) != (rows, tokens):
            # Addresses are worked out from these counts.
            raise self._damage(
                batch,
                f"it has {record_batch.num_rows} rows and {len(found.values)} tokens where the "
                f"ledger says {rows} and {tokens}",
            )
        self._check_mapped(batch, message, found.values)
        self._message_addresses[batch] = message.address
        return found

    def _check_mapped(self, batch: int, message: pa.Buffer, items: npt.NDArray[Any]) -> None:
        """See that the items of a mapped batch lie in it, as their addresses are kept."""
        offset = items.ctypes.data - message.address
        if self.is_mapped and items.size and not 0 <= offset <= message.size - items.nbytes:
            raise self._damage(batch, "it is compressed, but the ledger says that it is not")

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
        for start, stop in places_beside(message, self.ledger.schema, self.token_column):
            self._check(batch, start, stop, message)

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
        doubtful = [block for block in range(low, high) if not self._checked[first + block]]
        if not doubtful:
            return
        data = memoryview(self._message(batch) if message is None else message)
        for block in doubtful:
            if not self._is_whole(data, block, first):
                where = int(self.ledger.batch_offsets[batch]) + block * BLOCK_BYTES
                raise self._damage(
                    batch, f"the checksum of bytes {where} and following does not match"
                )
            self._checked[first + block] = True
        self._is_news = True

    def _check_edges(self, shard: int) -> None:
        """Check what lies before and after the batches of a shard."""
        if self._is_trusted or shard in self._checked_edges:
            return
        data = memoryview(self.map_shard(shard))
        header_end, tail_start = self.ledger.region_ends[shard].tolist()
        first, stop = self.ledger.first_blocks[shard : shard + 2].tolist()
        for region, block in (
            (data[:header_end], first),
            (data[tail_start:], stop - block_count(len(data) - tail_start)),
        ):
            if not all(self._is_whole(region, i, block) for i in range(block_count(len(region)))):
                raise CorruptShardError(
                    f"Shard {self._directory / self.ledger.shard_name(shard)} is damaged: its "
                    f"header or footer does not match its checksum. {self._remedy}"
                )
        self._checked_edges.add(shard)

    def _is_whole(self, region: memoryview, block: int, first: int) -> bool:
        """Whether a block of a region matches its checksum; `first` is that of its block 0."""
        start = block * BLOCK_BYTES
        found = xxhash.xxh3_64_intdigest(region[start : start + BLOCK_BYTES])
        return found == int(self.ledger.checksums[first + block])

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
        return self._open_bytes + self._ahead.pending_bytes > self._cache_bytes


def _start_over() -> None:
    for shards in list(_all):
        shards.start_over()


_all: weakref.WeakSet[Shards] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_over)
