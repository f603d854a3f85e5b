"""Finished parts: in the work folder of a build, and in the dataset that is being replaced.

A part is a shard with a ledger of its own. Sealing a shard copies its parts' batches as they
are, so that a part may lie alone in a file or among others in a sealed shard; either way a
ledger tells where. A part is found again by its key, which says what it was made from.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._fs import is_temporary, publish_file
from easydata.errors import DatasetError
from easydata.format.arrays import count_values, empty_batch
from easydata.format.checksums import block_checksums, block_count
from easydata.format.codecs import Codec
from easydata.format.ledger import Ledger, PartEntry, ShardEntry, SpanEntry
from easydata.format.mapping import map_file
from easydata.format.shards import IpcShardWriter
from easydata.format.stream import decode_batch

__all__ = ["PartStore", "StoredPart", "StoredSpan"]

_log = logging.getLogger("easydata")
MAX_BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class StoredPart:
    """A finished part of one split: which batches of which file, and what they came from.

    Attributes:
        entry: key, number of batches, spans (with record numbers of when it was made).
        path: the file that holds it.
        batches: int64[batches, 4]: offset, bytes, rows, tokens in that file.
        checksums: for each batch those of its blocks.
    """

    entry: PartEntry
    path: Path
    batches: npt.NDArray[np.int64]
    checksums: tuple[npt.NDArray[np.uint64], ...]

    @property
    def nbytes(self) -> int:
        """Encoded size."""
        return int(self.batches[:, 1].sum())

    @property
    def rows(self) -> int:
        return int(self.batches[:, 2].sum())

    @property
    def tokens(self) -> int:
        return int(self.batches[:, 3].sum())

    def at(self, places: Sequence[tuple[int, int]]) -> StoredPart:
        """The same part, made from records at these places: source and first record per span."""
        spans = tuple(
            replace(span, source=source, first_record=first)
            for span, (source, first) in zip(self.entry.spans, places, strict=True)
        )
        return replace(self, entry=replace(self.entry, spans=spans))

    def read(self) -> list[memoryview] | None:
        """The bytes of each batch, or None if they are not those that were written."""
        try:
            data = memoryview(map_file(self.path))
        except FileNotFoundError:
            return None
        pieces = [data[offset : offset + size] for offset, size in self.batches[:, :2].tolist()]
        for piece, expected in zip(pieces, self.checksums, strict=True):
            if not np.array_equal(block_checksums([piece]), expected):
                return None
        return pieces


@dataclass(frozen=True)
class StoredSpan:
    """The rows of one span of a finished part.

    Attributes:
        entry: where its records came from when it was made, and what became of them.
        batches: its rows; views of the part.
    """

    entry: SpanEntry
    batches: list[pa.RecordBatch]

    @property
    def tokens(self) -> int:
        return sum(count_values(batch.column(0)) for batch in self.batches)


class PartStore:
    """The finished parts of one split, by key.

    With `keep_loose` parts stay in files of their own when a shard is sealed: encoded batches
    cannot be taken out of a Parquet file.
    """

    def __init__(self, folder: Path, codec: Codec, *, keep_loose: bool) -> None:
        """Index what an earlier, killed build of the same recipe left in `folder`."""
        self.folder = folder
        self._keep_loose = keep_loose
        self._codec = codec
        self._parts: dict[str, StoredPart] = {}
        self._spans: dict[str, tuple[str, int]] = {}  # key -> key of its part, place in it
        self._decoded: tuple[str, pa.Table | None] = ("", None)  # the part decoded last
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(folder.iterdir()):
            if is_temporary(path.name):
                path.unlink(missing_ok=True)
            elif path.name.startswith("ledger-part-"):
                self._index_ledger(path, folder)
        if keep_loose:
            return
        # Sealed shards last: their loose parts may already be gone.
        for path in sorted(folder.glob("ledger-shard-*")):
            self._index_ledger(path, folder)

    def index_dataset(self, directory: Path, ledger: Ledger) -> None:
        """Offer the parts of a complete dataset for reuse too."""
        for part in stored_parts(directory, ledger):
            if part.entry.key not in self._parts:
                self._index(part)

    def _index(self, part: StoredPart) -> None:
        self._parts[part.entry.key] = part
        for place, span in enumerate(part.entry.spans):
            self._spans[span.key] = (part.entry.key, place)

    def find(self, key: str) -> StoredPart | None:
        """The part called `key`, if it is there and undamaged."""
        part = self._parts.get(key)
        if part is not None and part.read() is None:
            _log.warning("A finished part in %s is damaged; it is made again.", part.path)
            del self._parts[key]
            return None
        return part

    def find_span(self, key: str, schema: pa.Schema) -> StoredSpan | None:
        """The rows of the span called `key`, if it is in a part that is there and undamaged.

        Args:
            key: its identity.
            schema: of its rows.
        """
        part_key, place = self._spans.get(key, ("", 0))
        if self._decoded[0] != part_key:
            self._decoded = (part_key, self._decode(part_key, schema))
        table = self._decoded[1]
        if table is None:
            return None
        spans = self._parts[part_key].entry.spans
        start = sum(span.rows for span in spans[:place])
        return StoredSpan(spans[place], table.slice(start, spans[place].rows).to_batches())

    def _decode(self, key: str, schema: pa.Schema) -> pa.Table | None:
        part = self.find(key)
        pieces = part.read() if part is not None else None
        if pieces is None:
            return None
        batches = [decode_batch(pa.py_buffer(piece), schema) for piece in pieces]
        return pa.Table.from_batches(batches, schema)

    def current(self, part: StoredPart) -> StoredPart:
        """`part`, read from where it lies now: sealing a shard moves the parts it holds."""
        found = self._parts.get(part.entry.key)
        if found is None:
            return part
        return replace(found, entry=replace(found.entry, spans=part.entry.spans))

    def add(
        self,
        entry: PartEntry,
        schema: pa.Schema,
        batches: Sequence[pa.RecordBatch],
        row_bytes: npt.NDArray[np.int64],
    ) -> StoredPart:
        """Write a finished part; once this returns, a killed build need not make it again.

        Power may fail: then its checksums tell, and it is made again.

        Args:
            entry: of the part, without its number of batches.
            schema: of the rows.
            batches: the rows.
            row_bytes: int64[rows], bytes of the record that each was made from.
        """
        name = f"part-{entry.key}.arrow"
        with publish_file(self.folder / name, sync=False) as file:
            writer = IpcShardWriter(file, schema, {}, self._codec)
            for batch in _regroup(batches, schema, row_bytes):
                writer.write(batch, count_values(batch.column(0)))
            shard = writer.finish(name)
        entry = replace(entry, batches=len(shard.batches))
        ledger = Ledger.build(schema, {}, shards=[shard], parts=[entry])
        ledger.publish(self.folder, prefix=f"ledger-part-{entry.key}", sync=False)
        (part,) = stored_parts(self.folder, ledger)
        self._parts[entry.key] = part
        return part

    def seal(self, shard: ShardEntry, parts: Sequence[StoredPart], schema: pa.Schema) -> None:
        """Record that `shard`, lying in the folder, holds these parts; drop their own files."""
        entries = [part.entry for part in parts]
        ledger = Ledger.build(schema, {}, shards=[shard], parts=entries)
        ledger.publish(self.folder, prefix=f"ledger-{Path(shard.name).stem}")
        if self._keep_loose:
            return
        for part in stored_parts(self.folder, ledger):
            loose = self._parts[part.entry.key].path
            self._parts[part.entry.key] = part
            if loose.parent == self.folder and loose.name.startswith("part"):
                loose.unlink(missing_ok=True)

    def sealed(self, stem: str) -> ShardEntry | None:
        """The sealed shard called `stem`, if it was finished before and is undamaged."""
        for path in self.folder.glob(f"ledger-{stem}-*"):
            ledger = _open_or_none(path)
            if ledger is None:
                continue
            shard = ledger_shards(ledger)[0]
            if all(part.read() is not None for part in stored_parts(self.folder, ledger)):
                return shard
        return None

    def _index_ledger(self, path: Path, folder: Path) -> None:
        ledger = _open_or_none(path)
        if ledger is not None:
            for part in stored_parts(folder, ledger):
                self._index(part)


def ledger_shards(ledger: Ledger) -> list[ShardEntry]:
    """The shards of a ledger as they were when it was built."""
    table = _batch_table(ledger)
    return [
        ShardEntry(
            ledger.shard_name(index),
            int(ledger.shard_bytes[index]),
            table[slice(*ledger.first_batches[index : index + 2].tolist())],
            ledger.checksums[slice(*ledger.first_blocks[index : index + 2].tolist())],
        )
        for index in range(ledger.num_shards)
    ]


def stored_parts(directory: Path, ledger: Ledger) -> list[StoredPart]:
    """Every part that a ledger names."""
    table = _batch_table(ledger)
    parts = []
    start = 0
    for entry in ledger.parts():
        stop = start + entry.batches
        shard = int(np.searchsorted(ledger.first_batches, start, side="right")) - 1
        checksums = tuple(
            ledger.checksums[first : first + block_count(size)]
            for first, size in zip(
                ledger.batch_first_blocks[start:stop].tolist(),
                ledger.batch_bytes[start:stop].tolist(),
                strict=True,
            )
        )
        path = directory / ledger.shard_name(min(shard, ledger.num_shards - 1))
        parts.append(StoredPart(entry, path, table[start:stop], checksums))
        start = stop
    return parts


def _batch_table(ledger: Ledger) -> npt.NDArray[np.int64]:
    return np.stack(
        [
            ledger.batch_offsets,
            ledger.batch_bytes,
            np.diff(ledger.first_rows),
            np.diff(ledger.first_tokens),
        ],
        axis=1,
    )


def _open_or_none(path: Path) -> Ledger | None:
    try:
        return Ledger.open(path)
    except (DatasetError, FileNotFoundError, pa.ArrowInvalid):
        # A torn file of a build that lost power. What it named is made again.
        path.unlink(missing_ok=True)
        return None


def _regroup(
    batches: Sequence[pa.RecordBatch], schema: pa.Schema, row_bytes: npt.NDArray[np.int64]
) -> list[pa.RecordBatch]:
    """The same rows in batches made from about MAX_BATCH_BYTES; at least one, be it empty.

    Where a batch ends follows from the records alone, not from how the rows came.
    """
    table = pa.Table.from_batches(batches, schema)
    found = []
    start = 0
    ends = np.cumsum(row_bytes)
    while start < len(table):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + MAX_BATCH_BYTES, side="right"))
        stop = max(stop, start + 1)
        found.append(pa.concat_batches(table.slice(start, stop - start).to_batches()))
        start = stop
    return found or [empty_batch(schema)]
