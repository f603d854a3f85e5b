"""Samples by their number, for libraries that choose the order themselves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader._checks import check_numbers
from easydata.loader.columns import Columns
from easydata.loader.inputs import as_samples, is_mixture
from easydata.loader.protocols import Arrays

__all__ = ["SampleReader"]


class SampleReader:
    """Item i is sample i of the data, in the order of the data.

    Pickling keeps the arguments, of which a dataset is no more than its path.
    """

    def __init__(
        self,
        data: Any,
        seq_len: int | None = None,
        *,
        pack: str = "concat",
        columns: Sequence[str] | None = None,
        dtype: npt.DTypeLike | None = None,
        pad_token_id: int | None = None,
    ) -> None:
        """
        Args:
            data: as for `easydata.DataLoader`, but no mixture: its samples have no numbers.
            seq_len: as there.
            pack: as there.
            columns: the arrays of a sample.
            dtype: of `input_ids`.
            pad_token_id: as there.

        Raises:
            UsageError: an argument is out of range or contradicts another or the data, or the data
                is a mixture.
        """
        if is_mixture(data) or (isinstance(data, Mapping) and not hasattr(data, "with_format")):
            raise UsageError(
                "the samples of a mixture are not numbered; read it in batches, with "
                "easydata.DataLoader."
            )
        self.columns = Columns(columns, dtype)
        samples = as_samples(
            data,
            seq_len,
            pack=pack,
            pad_token_id=pad_token_id,
            columns=self.columns,
            mixing={"weights": None, "schedule": None, "stop_strategy": "restart"},
        )
        assert not is_mixture(samples)
        self._source = samples
        if seq_len is not None and seq_len != self._source.seq_len:
            raise UsageError(
                f"seq_len is {seq_len}, but the samples have {self._source.seq_len} tokens; leave "
                "seq_len out."
            )
        self._arguments = data, seq_len
        self._options: dict[str, Any] = {
            "pack": pack,
            "columns": columns,
            "dtype": dtype,
            "pad_token_id": pad_token_id,
        }

    def __len__(self) -> int:
        """Number of samples."""
        return self._source.num_samples

    def __reduce__(self) -> tuple[Callable[[], SampleReader], tuple[()]]:
        return partial(type(self), *self._arguments, **self._options), ()

    def __repr__(self) -> str:
        """Follows from the content of the data alone: not from where it lies."""
        columns = self.columns
        return (
            f"{type(self).__name__}(<{len(self)} samples {self._source.fingerprint}>, "
            f"columns={columns.names}, dtype={columns.dtype})"
        )

    def read(self, numbers: Sequence[int]) -> Arrays:
        """Some samples in one call.

        Args:
            numbers: of the samples, each 0 ≤ number < len(self).

        Returns:
            By name, an array [len(numbers), seq_len]; `input_ids` may be a read-only view.

        Raises:
            IndexError: there is no such sample.
            TypeError: a number is no integer.
        """
        given = np.asarray(numbers)
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"the numbers of samples must be integers, not {given.dtype}")
        if given.ndim != 1:
            raise TypeError(
                f"the numbers of samples have shape {given.shape}, but an item is one sample; give "
                "PyTorch's DataLoader a batch_sampler, which asks for several at once"
            )
        check_numbers(given, len(self), "sample")
        return self.columns.finish(self._source.read(given.astype(np.int64, copy=False)))
