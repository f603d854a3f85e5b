"""Decoded record batches, and threads that decode them before they are asked for."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._lazy import cached_property
from easydata.format.arrays import number_view

__all__ = ["DecodeAhead", "OpenBatch", "row_bytes"]

Decoded = TypeVar("Decoded")


class OpenBatch:
    """A decoded record batch.

    Attributes:
        batch: the record batch; its token column is a list column, of one length or of any.
        values: uint16[tokens] (or another token type), read-only: all tokens of the batch.
        address: of the first token.
    """

    def __init__(self, batch: pa.RecordBatch, token_column: str) -> None:
        self.batch = batch
        self.values = self.items(token_column)
        self.address = self.values.ctypes.data
        self._column = batch[token_column]

    def items(self, column: str) -> npt.NDArray[np.integer]:
        """The items of all lists of a column, read-only, one after another.

        Raises:
            pyarrow.ArrowInvalid: some are missing, or some of them are in no list of one length.
        """
        lists = self.batch[column]
        items = lists.values
        if items.null_count or (lists.null_count and len(lists.flatten()) != len(items)):
            raise pa.ArrowInvalid(f"its column {column!r} has missing values")
        if pa.types.is_fixed_size_list(lists.type):
            expected = len(lists) * lists.type.list_size
            if len(items) != expected:
                raise pa.ArrowInvalid(
                    f"its column {column!r} has {len(items)} items where {expected} are expected"
                )
        return number_view(items)

    @cached_property
    def offsets(self) -> npt.NDArray[np.integer]:
        """int32 or int64[rows + 1]: where each row's tokens start in `values`."""
        if pa.types.is_fixed_size_list(self._column.type):
            return np.arange(len(self._column) + 1) * self._column.type.list_size
        return number_view(self._column.offsets)


def row_bytes(schema: pa.Schema, token_column: str) -> int:
    """Bytes that a decoded row takes beside its tokens, as far as its types say: of text and such
    the offsets are counted.
    """
    found = 0
    for item in schema:
        lists = item.type
        is_fixed = pa.types.is_fixed_size_list(lists) and pa.types.is_primitive(lists.value_type)
        if item.name == token_column or not is_fixed:
            found += 8
        else:
            found += lists.list_size * lists.value_type.bit_width // 8
    return found


class _Pending(NamedTuple, Generic[Decoded]):
    future: Future[Decoded]
    nbytes: int


class DecodeAhead(Generic[Decoded]):
    """Decodes what was announced, on as many threads as there are cores. Safe to share between
    threads, and between readers that announce without knowing of each other.
    """

    def __init__(self, decode: Callable[[int], Decoded]) -> None:
        """
        Args:
            decode: a method that decodes a record batch by number, called by several threads at
                once. Its object is not kept alive.
        """
        self._method = weakref.WeakMethod(decode)
        self.start_over()

    def start_over(self) -> None:
        """In a forked child: the threads are not there, and one may have held the lock."""
        self._lock = threading.Lock()
        # What was announced last comes last.
        self._pending: dict[int, _Pending[Decoded]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def announce(self, batches: Mapping[int, int], room: int) -> None:
        """These are decoded soon, in this order.

        What was announced before, perhaps by another reader, is kept too, unless there is no room
        for it: then what was announced longest ago is given up.

        Args:
            batches: about how many bytes each takes, by number.
            room: how many bytes all others may take.
        """
        with self._lock:
            for batch in [batch for batch in reversed(self._pending) if batch not in batches]:
                room -= self._pending[batch].nbytes
                if room < 0:
                    self._pending.pop(batch).future.cancel()
            for batch, nbytes in batches.items():
                found = self._pending.pop(batch) if batch in self._pending else None
                self._pending[batch] = found or self._begin(batch, nbytes)

    def take(self, batch: int) -> Decoded:
        """The record batch: decoded ahead, or here and now.

        Raises:
            Exception: whatever decoding it raised.
        """
        with self._lock:
            found = self._pending.pop(batch, None)
        if found is None or found.future.cancel():  # its turn had not come
            return self._decode(batch)
        return found.future.result()

    def _begin(self, batch: int, nbytes: int) -> _Pending[Decoded]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(os.cpu_count(), "easydata-decode")
        return _Pending(self._pool.submit(self._decode, batch), nbytes)

    def _decode(self, batch: int) -> Decoded:
        decode = self._method()
        if decode is None:
            raise RuntimeError("a dataset was dropped while it was read")
        return decode(batch)

    @property
    def pending_bytes(self) -> int:
        """About how many bytes that take which were announced and not taken."""
        with self._lock:
            return sum(pending.nbytes for pending in self._pending.values())
