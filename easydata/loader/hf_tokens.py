"""HuggingFaceTokens: a column of a `datasets` dataset as a stream of tokens."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_strings
from easydata.format.arrays import number_view
from easydata.loader._checks import check_runs
from easydata.loader.rows import Pieces, split_runs

if TYPE_CHECKING:
    import datasets

__all__ = ["HuggingFaceTokens"]

_USUAL = "input_ids"


class HuggingFaceTokens:
    """The token ids of all rows, one after another, where they lie: nothing is copied.

    A dataset that was shuffled, selected or filtered is read in its order. What was set with
    `set_format` or `set_transform` does not matter.
    """

    def __init__(self, dataset: datasets.Dataset, column: str | None = None) -> None:
        """
        Args:
            dataset: its rows have a list of whole numbers.
            column: its name; None for `input_ids`, or the only column of such lists.

        Raises:
            UsageError: there is no such column, or a row of it is missing or has a missing id.
        """
        self._name = _token_column(dataset, column)
        self._fingerprint = str(dataset._fingerprint)  # noqa: SLF001 - it has no public name
        table = dataset.data.table
        self._owner = table
        chunks = [chunk for chunk in table.column(self._name).chunks if len(chunk)]
        lists = [_Lists(chunk, self._name) for chunk in chunks]
        kind = table.schema.field(self._name).type.value_type
        self.dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        itemsize = self.dtype.itemsize
        if dataset._indices is None:  # noqa: SLF001 - it has no public name
            # A region of memory for each chunk: its rows follow one another.
            self._lengths = _joined([found.lengths for found in lists])
            self._addresses = np.array([found.address for found in lists], np.int64)
            sizes = np.array([found.lengths.sum() for found in lists], np.int64)
        else:
            rows = dataset._indices.column(0).to_numpy().astype(np.int64)  # noqa: SLF001 - as above
            starts = _joined([found.starts * itemsize + found.address for found in lists])
            self._lengths = sizes = _joined([found.lengths for found in lists])[rows]
            self._addresses = starts[rows]
        self.first_tokens = np.append(0, sizes.cumsum())

    @property
    def num_tokens(self) -> int:
        """Tokens in all rows."""
        return int(self.first_tokens[-1])

    @cached_property
    def fingerprint(self) -> str:
        """Follows from the fingerprint that `datasets` gave the dataset, and the column."""
        return fingerprint_strings([self._fingerprint, self._name])

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[rows]: tokens in each row."""
        return self._lengths

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        """See `TokenSource.locate`."""
        check_runs(starts, lengths, self.num_tokens)
        runs = split_runs(self.first_tokens, starts, lengths)
        itemsize = self.dtype.itemsize
        addresses = self._addresses[runs.regions] + runs.starts * itemsize
        return Pieces(addresses, runs.lengths * itemsize, runs.counts, self._owner)


class _Lists:
    """The lists of a chunk: where their items begin, and how many each has."""

    def __init__(self, chunk: pa.Array, name: str) -> None:
        if chunk.null_count:
            raise UsageError(f"the column {name!r} has rows without tokens; filter them out.")
        values = chunk.flatten()
        if values.null_count:
            raise UsageError(f"the column {name!r} has missing ids in its lists; fill them.")
        if pa.types.is_fixed_size_list(chunk.type):
            self.lengths = np.full(len(chunk), chunk.type.list_size, np.int64)
        else:
            self.lengths = np.diff(number_view(chunk.offsets)).astype(np.int64)
        self.starts = self.lengths.cumsum() - self.lengths
        self.address = number_view(values).ctypes.data


def _joined(parts: list[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.empty(0, np.int64), *parts])


def _token_column(dataset: datasets.Dataset, column: str | None) -> str:
    schema = dataset.data.table.schema
    found = [field.name for field in schema if _holds_ids(field.type)]
    if column is None:
        column = _USUAL if _USUAL in found or len(found) != 1 else found[0]
    if column not in found:
        shown = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise UsageError(
            f"the dataset has no column {column!r} with lists of whole numbers, only {shown}; "
            "tokenize it first, for example with easydata.build."
        )
    return column


def _holds_ids(kind: pa.DataType) -> bool:
    types = pa.types
    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and types.is_integer(kind.value_type)
