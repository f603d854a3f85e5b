"""HuggingFaceTokens: a column of a `datasets` dataset as a stream of tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._lazy import cached_property
from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_strings
from easydata.format.arrays import number_view
from easydata.loader._checks import check_runs
from easydata.loader.regions import Regions
from easydata.loader.rows import Pieces

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
            UsageError: there is no such column, a row of it is missing or has a missing id, or a
                row lies outside the values of the column.
        """
        self._name = _token_column(dataset, column)
        self._fingerprint = str(dataset._fingerprint)  # noqa: SLF001 - it has no public name
        table = dataset.data.table
        chunks = [chunk for chunk in table.column(self._name).chunks if len(chunk)]
        lists = [_Lists(chunk, self._name) for chunk in chunks]
        self._owner = [found.values for found in lists]
        kind = table.schema.field(self._name).type.value_type
        self.dtype: np.dtype[Any] = np.dtype(kind.to_pandas_dtype())
        itemsize = self.dtype.itemsize
        if dataset._indices is None:  # noqa: SLF001 - it has no public name
            # A region of memory for each chunk: its rows follow one another.
            self._lengths = _joined([found.lengths for found in lists])
            firsts = [found.address + int(found.starts[0]) * itemsize for found in lists]
            self._addresses = np.array(firsts, np.int64)
            sizes = np.array([found.lengths.sum() for found in lists], np.int64)
        else:
            rows = dataset._indices.column(0).to_numpy()  # noqa: SLF001 - as above
            if len(rows) and (rows.min() < 0 or rows.max() >= table.num_rows):
                raise UsageError(
                    f"the dataset is a selection of rows {rows.min()} to {rows.max()} of "
                    f"{table.num_rows}; load it again, or select its rows again."
                )
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

    @cached_property
    def _regions(self) -> Regions:
        return Regions(self.first_tokens)

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[rows]: tokens in each row."""
        return self._lengths

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        """See `TokenSource.locate`."""
        check_runs(starts, lengths, self.num_tokens)
        runs = self._regions.split(starts, lengths)
        itemsize = self.dtype.itemsize
        addresses = self._addresses.take(runs.regions) + runs.starts * itemsize
        return Pieces(addresses, runs.lengths * itemsize, runs.counts, self._owner)


class _Lists:
    """The lists of a chunk.

    Attributes:
        values: of all lists, and perhaps others around them.
        address: where value 0 lies.
        starts: int64[lists], the first value of each list.
        lengths: int64[lists], how many values each list has.
    """

    def __init__(self, chunk: pa.Array, name: str) -> None:
        if chunk.null_count:
            raise UsageError(f"the column {name!r} has rows without tokens; filter them out.")
        try:
            chunk.validate()
        except pa.ArrowInvalid as error:
            raise _damaged(name, str(error)) from error
        if pa.types.is_fixed_size_list(chunk.type):
            size = chunk.type.list_size
            ends = np.arange(chunk.offset, chunk.offset + len(chunk) + 1) * size
        else:
            ends = number_view(chunk.offsets).astype(np.int64)
        self.values = chunk.values
        self.starts, self.lengths = ends[:-1], np.diff(ends)
        backwards = np.flatnonzero(ends[1:] < ends[:-1])
        if len(backwards):  # Arrow has looked at the first and the last end alone
            row = int(backwards[0])
            raise _damaged(
                name,
                f"its lists run from {ends[0]} to {ends[-1]} of {len(self.values)} values, and row "
                f"{row} of a chunk has length {self.lengths[row]}",
            )
        if self.values.slice(ends[0], ends[-1] - ends[0]).null_count:
            raise UsageError(f"the column {name!r} has missing ids in its lists; fill them.")
        self.address = number_view(self.values).ctypes.data


def _damaged(name: str, what: str) -> UsageError:
    return UsageError(f"the column {name!r} is damaged: {what}. Save or load the dataset again.")


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
