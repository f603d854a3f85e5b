"""The fingerprint of rows: it follows from their values and features, and from nothing else.

Equal rows have one fingerprint however they are cut into batches and shards, whatever codec they
are stored with, whatever lies in the buffers of an array under its nulls and around a slice. So
each column is a few streams of bytes, hashed as they come: where its nulls are, the lengths of
lists and strings, and the values that are not null, with nothing in between.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa

from easydata.cache.datasets.views import without_views
from easydata.fingerprint import Hasher

__all__ = ["ContentHasher"]

_Path = tuple[int, ...]  # a column, then its children


class _Stream:
    """What was seen of one column, or of one child of it."""

    def __init__(self) -> None:
        self.items = 0
        self.nulls, self.lengths, self.values = Hasher(), Hasher(), Hasher()


class ContentHasher:
    """Takes rows, batch by batch."""

    def __init__(self, features: dict[str, Any]) -> None:
        """
        Args:
            features: of all columns, as the JSON object of `datasets`.
        """
        self._features = json.dumps(features).encode()
        self._rows = 0
        self._streams: dict[_Path, _Stream] = {}

    def update(self, batch: pa.RecordBatch) -> None:
        """Add rows to the end."""
        self._rows += batch.num_rows
        for number, column in enumerate(batch.columns):
            kind = without_views(column.type)
            self._add((number,), column if kind == column.type else column.cast(kind))

    def fingerprint(self) -> str:
        """16 hexadecimal digits, for all rows so far."""
        whole = Hasher(self._features)
        whole.update(str(self._rows).encode())
        for path, stream in sorted(self._streams.items()):
            whole.update(str((path, stream.items)).encode())
            for part in (stream.nulls, stream.lengths, stream.values):
                whole.update(part.digest())
        return whole.hexdigest()[:16]

    def _add(self, path: _Path, array: pa.Array) -> None:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        stream = self._streams.setdefault(path, _Stream())
        first, stream.items = stream.items, stream.items + len(array)
        if array.null_count:
            is_null = array.is_null().to_numpy(zero_copy_only=False)
            stream.nulls.update((np.flatnonzero(is_null) + first).tobytes())
            array = array.drop_null()
        kind = array.type
        if pa.types.is_struct(kind):
            for number, child in enumerate(array.flatten()):
                self._add((*path, number), child)
        elif pa.types.is_fixed_size_list(kind):
            self._add((*path, 0), array.flatten())
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            _add_lengths(stream, array.value_lengths())
            self._add((*path, 0), array.flatten())
        elif not pa.types.is_null(kind):
            _add_values(stream, array)


def _add_values(stream: _Stream, array: pa.Array) -> None:
    """Add values without nulls that have no children."""
    import pyarrow.compute as pc

    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    buffers = array.buffers()
    if buffers[-1] is None:
        return  # no bytes at all
    if len(buffers) == 3:
        is_large = pa.types.is_large_binary(kind) or pa.types.is_large_string(kind)
        offsets = np.frombuffer(buffers[1], np.int64 if is_large else np.int32)
        offsets = offsets[array.offset :][: len(array) + 1]
        _add_lengths(stream, pc.binary_length(array))
        stream.values.update(memoryview(buffers[2])[int(offsets[0]) : int(offsets[-1])])
    else:
        width = array.type.bit_width // 8
        start = array.offset * width
        stream.values.update(memoryview(buffers[1])[start : start + len(array) * width])


def _add_lengths(stream: _Stream, lengths: pa.Array) -> None:
    stream.lengths.update(lengths.to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
