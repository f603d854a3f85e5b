"""StoredSamples: samples of one length that lie on the disk as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.loader._checks import check_numbers
from easydata.loader.protocols import Arrays
from easydata.loader.rows import Pieces, Rows, fill_rows

__all__ = ["SampleColumns", "StoredSamples"]

_IDS, _MASK = "input_ids", "loss_mask"


class SampleColumns(Protocol):
    """Columns of samples of one length. A `TokenDataset` that was built with `seq_len` is one."""

    @property
    def seq_len(self) -> int | None: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def is_mapped(self) -> bool: ...

    @property
    def first_rows(self) -> npt.NDArray[np.int64]:
        """int64[batches + 1]: the first sample of each record batch, and the number of all."""

    @property
    def sample_columns(self) -> dict[str, np.dtype[Any]]:
        """The type of each column by name, the token ids first."""

    def locate_samples(self, column: str, samples: npt.NDArray[np.int64]) -> Pieces:
        """Where the items of these samples lie."""

    def warm(self, runs: npt.NDArray[np.int64]) -> None:
        """Decode runs of tokens ahead."""


class StoredSamples:
    """The rows of a dataset of samples; see `SampleSource`. All arrays are views where rows that
    follow one another are read.
    """

    def __init__(self, dataset: SampleColumns, columns: Sequence[str] | None = None) -> None:
        """
        Args:
            dataset: of the samples.
            columns: to read beside `input_ids`, as far as they are stored; None for all.

        Raises:
            UsageError: the rows have several lengths, or there are none.
        """
        if dataset.seq_len is None:
            raise UsageError(f"{dataset!r} has rows of several lengths; pack them first.")
        self.num_samples = int(dataset.first_rows[-1])
        if not self.num_samples:
            raise UsageError(f"{dataset!r} has no samples; build it from more data.")
        self.seq_len = dataset.seq_len
        self._dataset = dataset
        ids, *others = dataset.sample_columns
        self._names = {_IDS: ids}
        self._names |= {name: name for name in others if columns is None or name in columns}

    @cached_property
    def fingerprint(self) -> str:
        """That of the dataset. One that has none is told apart by the number of its samples and
        by the names and types of its columns alone.
        """
        columns = {name: dtype.name for name, dtype in self._dataset.sample_columns.items()}
        return self._dataset.fingerprint or fingerprint_json([self.num_samples, columns])

    @property
    def description(self) -> dict[str, Any]:
        """What the samples follow from, in JSON values."""
        return {"samples": self.fingerprint, "seq_len": self.seq_len}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of `input_ids`."""
        return self._dataset.sample_columns[self._names[_IDS]]

    @property
    def is_mapped(self) -> bool:
        """Whether reading needs no decoding."""
        return self._dataset.is_mapped

    def borders(self) -> npt.NDArray[np.int64]:
        """int64[n + 1]: the first sample of each record batch, and the number of all."""
        return self._dataset.first_rows

    def warm(self, samples: npt.NDArray[np.int64]) -> None:
        """Decode ahead what these runs of samples lie in: int64[n, 2]."""
        self._dataset.warm(samples * self.seq_len)

    def read(self, samples: npt.NDArray[np.int64]) -> Arrays:
        """Samples by number; see `SampleSource.read`."""
        return self.locate(samples).read(0, len(samples))

    def locate(self, samples: npt.NDArray[np.int64]) -> LocatedStored:
        """See `LocatedSamples`."""
        check_numbers(samples, self.num_samples, "sample")
        samples = samples.astype(np.int64, copy=False)  # smaller types could not hold places
        dtypes = self._dataset.sample_columns
        return LocatedStored(
            {
                name: fill_rows(
                    self._dataset.locate_samples(column, samples),
                    None,
                    num_items=self.seq_len,
                    dtype=dtypes[column],
                    pad_token_id=None,
                )
                for name, column in self._names.items()
            }
        )


class LocatedStored:
    """Some of the samples of `StoredSamples`, located.

    Attributes:
        rows: of each array, as they were given.
        ids: those of `input_ids`.
    """

    def __init__(self, rows: dict[str, Rows], *, is_copied: bool = False) -> None:
        """
        Args:
            rows: of each array, by name.
            is_copied: the arrays are copies, also where rows follow one another in memory.
        """
        self.rows = rows
        self.ids = rows[_IDS]
        self._read = Rows.copy if is_copied else Rows.read

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Of the arrays, by name."""
        found = {name: rows.dtype for name, rows in self.rows.items()}
        return found | ({_MASK: np.dtype(np.bool_)} if _MASK in found else {})

    def read(self, start: int, stop: int) -> Arrays:
        """See `LocatedSamples.read`."""
        arrays = {name: self._read(rows, start, stop) for name, rows in self.rows.items()}
        if _MASK in arrays:
            arrays[_MASK] = arrays[_MASK].view(np.bool_)
        return arrays
