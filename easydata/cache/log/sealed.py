"""Writes sealed segments: immutable files that any reader of Arrow or Parquet opens.

    NAME.arrow     an Arrow stream: the schema message, one message for each block, the end mark.
                   Without compression the blocks are plain messages (see `layout`). With it
                   their bodies are compressed as Arrow does it, and every message starts at a
                   multiple of 64 bytes, has such a size, and holds in its last 8 bytes the
                   XXH3-64 of all its others, as plain ones do.
    NAME.parquet   a row group for each block. Its pages have checksums, but its headers have none;
                   so the file's metadata hold one of what each block decodes to.

Which compression a file has stands in the metadata of its schema; so does, if one large
entry takes all blocks, how many there are (see `pieces`), and when it expires.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import xxhash

from easydata._fs import publish_file, storage_errors
from easydata.cache.log import locks
from easydata.cache.log.entry import Entry
from easydata.cache.log.framing import Bytes, is_intact, message_bytes, seal
from easydata.cache.log.layout import CHECKSUM_BYTES, NEVER, padded
from easydata.cache.log.message import EntryCodec
from easydata.errors import CorruptShardError, FormatVersionError, UsageError
from easydata.format.alignment import ALIGNMENT, align_header, find_fields, message_header_bytes
from easydata.format.codecs import Codec, ShardFormat, resolve_format
from easydata.format.stream import END_OF_STREAM, decode_batch, decode_schema

__all__ = [
    "CHECKSUMS_KEY",
    "SealedWriter",
    "SegmentKind",
    "content_checksum",
    "segment_kind",
    "segment_metadata",
]

FORMAT = 1
CHECKSUMS_KEY = b"easydata:checksums"  # of a Parquet file: 16 hexadecimal digits for each block
_METADATA_KEY = b"easydata"
_I64 = struct.Struct("<q")
_U64 = struct.Struct("<Q")


class SegmentKind(NamedTuple):
    """What the metadata of a segment's schema say of it.

    Attributes:
        compression: of its blocks.
        pieces: how many blocks there are, if all of them are one large entry; else 0.
        expires: of that entry, as in `Entry`; else `NEVER`. So it need not be decoded for that.
    """

    compression: Codec
    pieces: int = 0
    expires: int = NEVER


def segment_metadata(kind: SegmentKind) -> dict[bytes, bytes]:
    """Metadata of the schema of such a segment."""
    values: dict[str, Any] = {"format": FORMAT, "codec": str(kind.compression)}
    if kind.pieces:
        values |= {"pieces": kind.pieces, "expires": kind.expires}
    return {_METADATA_KEY: json.dumps(values, sort_keys=True).encode()}


def segment_kind(schema: pa.Schema) -> SegmentKind:
    """The inverse of `segment_metadata`.

    Raises:
        CorruptShardError: the schema is not that of a segment.
        FormatVersionError: a newer easydata wrote it.
    """
    text = (schema.metadata or {}).get(_METADATA_KEY)
    try:
        if text is None:
            raise ValueError("its schema has no metadata of easydata")
        found = json.loads(text)
        version, codec = found["format"], found["codec"]
        pieces, expires = found.get("pieces", 0), found.get("expires", NEVER)
        if type(version) is not int or version < 1:
            raise ValueError(f"its format is {version!r}")
        if type(pieces) is not int or pieces < 0 or type(expires) is not int:
            raise ValueError(f"it has {pieces!r} pieces, and expires at {expires!r}")
        if version <= FORMAT:
            return SegmentKind(Codec.parse(codec), pieces, expires)
    except (ValueError, TypeError, KeyError, AttributeError, UsageError) as error:
        raise CorruptShardError(f"This is no segment of a cache: {error}") from error
    raise FormatVersionError(
        f"This segment has format {version}; this easydata reads up to {FORMAT}. Upgrade easydata."
    )


def content_checksum(codec: EntryCodec, message: Bytes) -> int:
    """XXH3-64 of what a plain message and its columns' names say.

    The header is left out: a later pyarrow may write the same one in other bytes.
    """
    columns = [
        [item.name, str(item.kind.value_type) if pa.types.is_list(item.kind) else str(item.kind)]
        for item in codec.layout.columns
    ]
    seed = xxhash.xxh3_64_intdigest(json.dumps(columns).encode())
    body = memoryview(message)[codec.header_bytes : -CHECKSUM_BYTES]
    return xxhash.xxh3_64_intdigest(body, seed)


class SealedWriter:
    """Writes one sealed segment. One thread at a time.

    The file has a temporary name until `finish`. After an error nothing is left of it, and the
    writer takes no more.

    Attributes:
        path: the file, once it has appeared.
        num_bytes: size of what was written so far; of Parquet without the footer.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        codec: EntryCodec,
        compression: Codec,
        shard_format: ShardFormat,
    ) -> None:
        """Start the file.

        Args:
            folder: where to.
            name: file name without extension; an older file of that name is replaced.
            codec: of the messages; made with the `segment_metadata` of this compression.
            compression: of the blocks.
            shard_format: "ipc" for NAME.arrow, "parquet" for NAME.parquet.

        Raises:
            UsageError: Arrow streams do not have this compression.
            ValueError: the codec's metadata tell of another compression.
            StorageError: the file cannot be written.
        """
        is_parquet = resolve_format(shard_format, compression) == "parquet"
        self.path = folder / f"{name}.{'parquet' if is_parquet else 'arrow'}"
        self._codec = codec
        self._compression = compression
        self._schema = decode_schema(codec.schema_message)
        if segment_kind(self._schema).compression != compression:
            raise ValueError(f"the codec's metadata do not tell of compression {compression}")
        self._parquet: Any = None
        self._checksums: list[int] = []
        self.num_bytes = 0
        self._open()
        with self._writing():
            if is_parquet:
                self._parquet = self._open_parquet()
            else:
                self._append(codec.schema_message)

    def add(self, message: Bytes) -> int:
        """Write a block; its bytes are copied.

        Args:
            message: a plain message of one or more rows.

        Returns:
            The block's unit: its position / 64 in an Arrow stream, the number of its row group
            in Parquet.

        Raises:
            ValueError: that is no whole message.
            StorageError: the file cannot be written.
        """
        with self._writing():
            _require_whole(message)
            if self._parquet is None and self._compression.is_zero_copy:
                return self._append(message)
            batch = decode_batch(pa.py_buffer(message), self._schema)
            if self._parquet is None:
                return self._append(_compressed_message(batch, self._compression))
            self._parquet.write_batch(batch, row_group_size=batch.num_rows)
            self._checksums.append(content_checksum(self._codec, message))
            self.num_bytes = self._file.tell()
            return len(self._checksums) - 1

    def add_entry(self, entry: Entry) -> int:
        """Write an entry as a block of its own; without compression nothing is copied.

        Returns:
            The block's unit.

        Raises:
            StorageError: the file cannot be written.
        """
        if self._parquet is not None or not self._compression.is_zero_copy:
            return self.add(self._codec.encode_row(entry))
        with self._writing():
            start = self.num_bytes
            checksum = xxhash.xxh3_64()
            for part in self._codec.row_parts(entry):
                checksum.update(part)
                self._append(part)
            self._append(_U64.pack(checksum.intdigest()))
            return start // ALIGNMENT

    def finish(self) -> None:
        """Let the file appear, its content on the disk; then nothing more can be added.

        Call `sync_directory` to make its name survive a power failure, too.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._writing():
            if self._parquet is None:
                self._append(END_OF_STREAM)
            else:
                checksums = "".join(f"{checksum:016x}" for checksum in self._checksums)
                self._parquet.add_key_value_metadata({CHECKSUMS_KEY: checksums.encode()})
            self._stack.close()

    def abandon(self) -> None:
        """Leave nothing of an unfinished file; a finished one stays."""
        # What could not be written to the temporary file is not wanted any more.
        with contextlib.suppress(_AbandonedError, OSError), self._stack:
            raise _AbandonedError

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        if self._file.closed:
            raise ValueError(f"{self.path} is finished or was abandoned")
        try:
            with storage_errors(self.path):
                yield
        except BaseException:  # also Ctrl-C: nothing may be left
            self.abandon()
            raise

    def _append(self, message: Any) -> int:
        start = self.num_bytes
        self.num_bytes += self._file.write(message)
        return start // ALIGNMENT

    def _open(self) -> None:
        """Make the file, locked until it has its name: nobody may take it for litter."""
        while True:
            self._stack = contextlib.ExitStack()
            self._lock = -1
            self._stack.callback(lambda: locks.unlock(self._lock))
            self._file = self._stack.enter_context(publish_file(self.path))
            self._lock = os.dup(self._file.fileno())
            locks.lock(self._lock)
            if os.fstat(self._lock).st_nlink:
                return
            self.abandon()  # somebody did, before it was locked

    def _open_parquet(self) -> Any:
        import pyarrow.parquet as pq

        writer = pq.ParquetWriter(
            self._file,
            self._schema,
            write_page_checksum=True,
            store_schema=True,
            use_compliant_nested_type=False,  # the compliant one renames the items of lists
            **self._compression.parquet_options(),
        )
        self._stack.callback(writer.close)  # writes the footer
        return writer


class _AbandonedError(Exception):
    """Ends `publish_file` without publishing."""


def _require_whole(message: Bytes) -> None:
    if message_bytes(message, 0) != len(message) or not is_intact(message, 0, len(message)):
        raise ValueError("this is no whole message of a segment")


def _compressed_message(batch: pa.RecordBatch, compression: Codec) -> bytearray:
    """The message of a batch with a compressed body, and its checksum at the end."""
    # Only a stream writer compresses; it writes a schema before the batch and an end after it.
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=compression.ipc_options()) as writer:
        writer.write_batch(batch)
    stream = memoryview(sink.getvalue()).cast("B")
    found = stream[message_header_bytes(stream) : -len(END_OF_STREAM)]
    header_bytes = message_header_bytes(found)
    message = bytearray(align_header(found[:header_bytes]))
    body_bytes = padded(len(found) - header_bytes + CHECKSUM_BYTES, ALIGNMENT)
    _I64.pack_into(message, find_fields(message).body_bytes, body_bytes)
    message += found[header_bytes:]
    message.extend(bytes(padded(len(message) + CHECKSUM_BYTES, ALIGNMENT) - len(message)))
    seal(message)
    return message
