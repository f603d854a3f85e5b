"""Which file a row goes to: files of a size, a number of files, or a file for its value."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from easydata._fs import storage_errors
from easydata.format.arrays import empty_batch, number_array
from easydata.pipeline.save_formats import Format, Piece, ShardFile

__all__ = ["ShardFolder", "regroup", "write_by_size", "write_by_value", "write_evenly"]

_BUFFERED_BYTES = 64 << 20


class ShardFolder:
    """Writes files into a folder, which get their names when all are there."""

    def __init__(self, folder: Path, form: Format, schema: pa.Schema) -> None:
        """
        Args:
            folder: an empty folder.
            form: of the files.
            schema: of the rows.
        """
        self._folder = folder
        self._form = form
        self._schema = schema
        self._raw: list[BinaryIO] = []
        self._files: list[ShardFile] = []
        self._num_rows: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for raw, file in zip(self._raw, self._files, strict=True):
            if not raw.closed:
                file.abandon()
                with contextlib.suppress(OSError):  # what is not written yet finds no room
                    raw.close()

    def begin(self) -> int:
        """Open one more file; its number."""
        path = self._folder / f"{len(self._files)}.part"
        with storage_errors(path):
            raw = path.open("x+b")
            self._raw.append(raw)
            try:
                self._files.append(self._form.open(raw))
            except BaseException:
                self._raw.pop().close()
                raise
        self._num_rows.append(0)
        return len(self._files) - 1

    def num_rows(self, number: int) -> int:
        """Rows in a file so far."""
        return self._num_rows[number]

    def num_bytes(self, number: int) -> int:
        """How large a file is at most if it ends here."""
        return self._files[number].num_bytes

    def write(self, number: int, piece: Piece) -> None:
        """Append encoded rows to a file."""
        with storage_errors(self._folder):
            self._files[number].write(piece)
        self._num_rows[number] += piece.num_rows

    def end(self, number: int) -> None:
        """Complete a file."""
        raw = self._raw[number]
        with storage_errors(self._folder):
            if not self._num_rows[number]:
                self._files[number].write(self._form.encode(empty_batch(self._schema)))
            self._files[number].finish()
            raw.close()

    def finish(self) -> list[tuple[str, int]]:
        """Give all files their names: each with its number of rows, in order."""
        names = []
        with storage_errors(self._folder):
            for number in range(len(self._files)):
                name = f"data-{number:05d}-of-{len(self._files):05d}{self._form.suffix}"
                (self._folder / f"{number}.part").rename(self._folder / name)
                names.append(name)
            self._form.finish(self._folder, names, self._files)
        return list(zip(names, self._num_rows, strict=True))


def write_by_size(
    batches: Iterable[pa.RecordBatch], folder: ShardFolder, form: Format, max_bytes: int
) -> None:
    """Files of at most `max_bytes`, or of one row that is larger; at least one file."""
    current = folder.begin()
    # A piece's bound is several times what it takes in the end: small ones fill a file better.
    for batch in _pieces(batches, form, max_bytes // 16):
        waiting = [batch]
        while waiting:
            part = waiting.pop()
            piece = form.encode(part)
            if folder.num_bytes(current) + piece.num_bytes <= max_bytes:
                folder.write(current, piece)
            elif folder.num_rows(current):
                folder.end(current)
                current = folder.begin()
                waiting.append(part)
            elif part.num_rows > 1:
                half = part.num_rows // 2
                waiting += [part.slice(half), part.slice(0, half)]
            else:
                folder.write(current, piece)
    folder.end(current)


def write_evenly(
    batches: Iterable[pa.RecordBatch],
    folder: ShardFolder,
    form: Format,
    num_shards: int,
    num_rows: int,
) -> None:
    """`num_shards` files of rows that follow one another, as many in each, or one more.

    Where batches are encoded as they come and there are enough of them, "rows" are batches.
    """
    pieces = _Queue(_pieces(batches, form, form.piece_bytes))
    unit = form.piece_rows or 1
    if num_rows < num_shards * unit:
        unit = 1
    units = -(-num_rows // unit)
    for number in range(num_shards):
        start, stop = (min(n * units // num_shards * unit, num_rows) for n in (number, number + 1))
        left = stop - start
        current = folder.begin()
        while left:
            part = pieces.take(left)
            folder.write(current, form.encode(part))
            left -= part.num_rows
        folder.end(current)


def write_by_value(
    batches: Iterable[pa.RecordBatch],
    folder: ShardFolder,
    form: Format,
    num_shards: int,
    column: str,
) -> None:
    """`num_shards` files; rows with the same value in `column` go to the same one."""
    numbers = [folder.begin() for _ in range(num_shards)]
    waiting: list[list[pa.RecordBatch]] = [[] for _ in numbers]
    num_bytes = 0

    def flush() -> None:
        for number in numbers:
            for part in regroup(waiting[number], form.piece_bytes):
                folder.write(number, form.encode(part))
            waiting[number].clear()

    for batch in regroup(batches, form.piece_bytes):
        targets = shards_of(batch[column], num_shards)
        for number in sorted(set(targets.tolist())):
            rows = number_array(np.flatnonzero(targets == number))
            waiting[number].append(batch.take(rows))
        num_bytes += batch.nbytes
        if num_bytes > _BUFFERED_BYTES:
            flush()
            num_bytes = 0
    flush()
    for number in numbers:
        folder.end(number)


def shards_of(values: pa.Array, num_shards: int) -> npt.NDArray[np.int64]:
    """int64[rows]: a number below `num_shards` for each value, by XXH3-64 of its JSON text."""
    known: dict[str, int] = {}
    found = np.empty(len(values), np.int64)
    for row, value in enumerate(values.to_pylist()):
        # -0.0 equals 0.0, and adding one of them to the other gives 0.0.
        text = json.dumps(value + 0.0 if isinstance(value, float) else value, default=repr)
        if text not in known:
            known[text] = xxhash.xxh3_64_intdigest(text.encode()) % num_shards
        found[row] = known[text]
    return found


def _pieces(
    batches: Iterable[pa.RecordBatch], form: Format, num_bytes: int
) -> Iterator[pa.RecordBatch]:
    """What is encoded together: at most `num_bytes`, unless batches are encoded as they come."""
    if form.piece_rows is not None:
        return iter(batches)
    return regroup(batches, min(form.piece_bytes, max(num_bytes, 1)))


def regroup(batches: Iterable[pa.RecordBatch], num_bytes: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of about `num_bytes`, or of a row that is larger."""
    group: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        for part in _cut(batch, num_bytes):
            if group and size + part.nbytes > num_bytes:
                yield pa.concat_batches(group)
                group, size = [], 0
            group.append(part)
            size += part.nbytes
    if group:
        yield pa.concat_batches(group)


def _cut(batch: pa.RecordBatch, num_bytes: int) -> Iterator[pa.RecordBatch]:
    if not batch.num_rows:
        return
    if batch.nbytes <= num_bytes or batch.num_rows == 1:
        yield batch
        return
    half = batch.num_rows // 2
    yield from _cut(batch.slice(0, half), num_bytes)
    yield from _cut(batch.slice(half), num_bytes)


class _Queue:
    """Takes rows off a stream of batches."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._rest: Any = None

    def take(self, most: int) -> pa.RecordBatch:
        """Between one row and `most` of them."""
        batch = self._rest if self._rest is not None else next(self._batches)
        self._rest = batch.slice(most) if batch.num_rows > most else None
        return batch.slice(0, most)
