"""TokenDataset: one dataset directory, opened."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._lazy import cached_property
from easydata.dataset._lineage import Lineage, lineage_of
from easydata.dataset._locating import TokenMemory
from easydata.dataset._shards import Shards, Verify
from easydata.dataset._verify import find_damage
from easydata.errors import (
    CorruptShardError,
    TokenizerError,
)
from easydata.format.arrays import number_array
from easydata.format.ledger import Ledger
from easydata.loader import DataLoader
from easydata.loader._checks import check_runs
from easydata.loader.rows import Pieces, fill_rows
from easydata.metadata import CacheMetadata

if TYPE_CHECKING:
    from easydata.stages import Tokenizer

__all__ = ["Lineage", "TokenDataset"]


class TokenDataset:
    """Rows of token ids (and other columns) on disk. Immutable; safe to share between threads.

    A row is a dict; its tokens are a read-only NumPy view of the file where the dataset is not
    compressed. Pickling stores the path alone.
    """

    def __init__(
        self, directory: Path, ledger: Ledger, *, verify: Verify, cache_bytes: int
    ) -> None:
        """Use `open_dataset`."""
        self.path = directory = directory.absolute()  # shards are opened after a chdir too
        self.ledger = ledger
        self._verify = verify
        self._cache_bytes = cache_bytes
        self._token_column: str = ledger.metadata["token_column"]
        self._shards = Shards(
            directory,
            ledger,
            token_column=self._token_column,
            verify=verify,
            cache_bytes=cache_bytes,
        )

    @cached_property
    def _memory(self) -> TokenMemory:
        return TokenMemory(self._shards, self.dtype.itemsize)

    def __reduce__(self) -> tuple[Callable[..., TokenDataset], tuple[Any, ...]]:
        from easydata.dataset._opening import reopen

        return reopen, (self.path, self._verify, self._cache_bytes)

    def __repr__(self) -> str:
        return (
            f"<TokenDataset {str(self.path)!r}: {len(self):,} rows, {self.num_tokens:,} tokens, "
            f"{self.dtype.name}>"
        )

    def __len__(self) -> int:
        return int(self.ledger.first_rows[-1])

    @cached_property
    def num_tokens(self) -> int:
        """Tokens in all rows, BOS and EOS included."""
        return int(self.ledger.first_tokens[-1])

    @property
    def schema(self) -> pa.Schema:
        """Arrow schema of the columns, without metadata."""
        return self.ledger.schema

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Type of the token ids."""
        kind = self.schema.field(self._token_column).type.value_type
        return np.dtype(kind.to_pandas_dtype())

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that follow from the content of the dataset; of one that `datasets`
        wrote, its own fingerprint.
        """
        return str(self.ledger.metadata.get("fingerprint", ""))

    @property
    def pad_token_id(self) -> int | None:
        """What the tokenizer pads with; None if it does not say."""
        found = self.ledger.metadata.get("tokenizer", {}).get("pad_id")
        return None if found is None else int(found)

    @property
    def metadata(self) -> CacheMetadata:
        """What the dataset was made from."""
        return CacheMetadata.from_dict(self.ledger.metadata.get("cache", {}))

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One row: tokens as an array of `dtype` (a read-only view where possible), the other
        columns as Python values.

        Raises:
            IndexError: there is no such row.
            TypeError: `row` is no integer.
        """
        index = self._row_number(row)
        batch = bisect.bisect_right(self._first_rows, index) - 1
        local = index - self._first_rows[batch]
        found = self._shards.open_batch(batch)
        start, stop = int(found.offsets[local]), int(found.offsets[local + 1])
        values: dict[str, Any] = {}
        for name in found.batch.schema.names:
            if name == self._token_column:
                values[name] = self._shards.tokens(batch, start, stop)
            else:
                values[name] = found.batch[name][local].as_py()
        return values

    def take(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> pa.Table:
        """The rows at `indices` (negative ones count from the end), in this order, copied.

        Raises:
            IndexError: there is no such row.
            TypeError: an index is no integer.
        """
        given = np.asarray(indices).reshape(-1)
        if given.size and given.dtype.kind not in "iu":
            raise TypeError(f"row numbers must be integers, not {given.dtype}")
        wanted = given.astype(np.int64)
        rows = np.where(wanted < 0, wanted + len(self), wanted)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            bad = wanted[(rows < 0) | (rows >= len(self))][0]
            raise IndexError(f"row {bad} of a dataset of {len(self)} rows")
        order = np.argsort(rows, kind="stable")
        in_order = rows[order]
        batches = np.searchsorted(self.ledger.first_rows, in_order, side="right") - 1
        pieces = []
        for group in np.split(np.arange(len(batches)), np.flatnonzero(np.diff(batches)) + 1):
            if len(group):
                batch = int(batches[group[0]])
                local = in_order[group] - self.ledger.first_rows[batch]
                pieces.append(self._shards.whole_batch(batch).take(number_array(local)))
        table = pa.Table.from_batches(pieces, self.schema)
        inverse = np.empty_like(order)
        inverse[order] = np.arange(len(order))
        return table.take(number_array(inverse))

    def column(self, name: str) -> pa.ChunkedArray:
        """A whole column, one chunk per record batch: views where the dataset is mapped.

        Raises:
            KeyError: there is no such column.
        """
        if name not in self.schema.names:
            raise KeyError(f"no column {name!r}; the columns are {', '.join(self.schema.names)}")
        return pa.chunked_array(
            [self._shards.whole_batch(batch)[name] for batch in range(self._num_batches)],
            self.schema.field(name).type,
        )

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[rows]: tokens in each row. Decodes every record batch that is not open."""
        return self._shards.lengths()

    def to_table(self) -> pa.Table:
        """All rows as an Arrow table: views where the dataset is mapped."""
        batches = [self._shards.whole_batch(batch) for batch in range(self._num_batches)]
        return pa.Table.from_batches(batches, self.schema)

    def to_pandas(self) -> Any:
        """All rows as a pandas DataFrame, copied."""
        return self.to_table().to_pandas()

    def tokens(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Tokens `start` to `stop` of the stream of all rows, one after another.

        Returns:
            dtype[stop - start], read-only: a view wherever the range lies in one record batch
            of an uncompressed dataset, else a copy.

        Raises:
            IndexError: the range is not within 0 ≤ start ≤ stop ≤ num_tokens.
        """
        if not 0 <= start <= stop <= self.num_tokens:
            raise IndexError(f"tokens {start} to {stop} of a dataset of {self.num_tokens} tokens")
        first_tokens = self.ledger.first_tokens
        batch = int(np.searchsorted(first_tokens, start, side="right")) - 1
        pieces = []
        while start < stop:
            base, end = int(first_tokens[batch]), int(first_tokens[batch + 1])
            until = min(stop, end)
            if until > start:
                pieces.append(self._shards.tokens(batch, start - base, until - base))
            start, batch = until, batch + 1
        if len(pieces) == 1:
            return pieces[0]
        joined = np.concatenate(pieces) if pieces else np.empty(0, self.dtype)
        joined.flags.writeable = False
        return joined

    def gather(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        """Equally long runs of the token stream, copied.

        Args:
            starts: int64[n], index of the first token of each run.
            length: tokens in each run, at least 1.

        Returns:
            dtype[n, length], newly allocated, at an address that is a multiple of 64.

        Raises:
            IndexError: a run does not lie within the stream.
        """
        pieces = self.locate(starts, length)
        rows = fill_rows(pieces, None, num_items=length, dtype=self.dtype, pad_token_id=None)
        return rows.copy(0, len(starts))

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        """Where runs of the token stream lie in memory, for a loader; see `TokenSource.locate`."""
        check_runs(starts, lengths, self.num_tokens)
        return self._memory.locate(starts, lengths)

    def loader(self, batch_size: int, seq_len: int | None = None, **options: Any) -> DataLoader:
        """Batches of fixed-length samples: `easydata.DataLoader` of this dataset."""
        return DataLoader(self, batch_size, seq_len, **options)

    @property
    def is_mapped(self) -> bool:
        """Whether tokens are read where they lie in the files; else they are decoded first."""
        return self._shards.is_mapped

    @property
    def seq_len(self) -> int | None:
        """Tokens in every row of a dataset of samples; None of a dataset of documents."""
        kind = self.schema.field(self._token_column).type
        return int(kind.list_size) if pa.types.is_fixed_size_list(kind) else None

    @property
    def first_rows(self) -> npt.NDArray[np.int64]:
        """int64[batches + 1]: the first row of each record batch, and the number of all."""
        return self.ledger.first_rows

    @property
    def first_tokens(self) -> npt.NDArray[np.int64]:
        """int64[batches + 1]: the first token of each record batch, and the number of all."""
        return self.ledger.first_tokens

    @cached_property
    def sample_columns(self) -> dict[str, np.dtype[Any]]:
        """Of samples of one length: the type of each column of such lists of numbers, the token
        ids first.
        """
        names = [self._token_column, *self.schema.names]
        return {
            name: np.dtype(kind.value_type.to_pandas_dtype())
            for name in names
            if pa.types.is_fixed_size_list(kind := self.schema.field(name).type)
            and kind.list_size == self.seq_len
            and pa.types.is_integer(kind.value_type)
        }

    def locate_samples(self, column: str, samples: npt.NDArray[np.int64]) -> Pieces:
        """Where rows of samples of one length lie in memory, for a loader.

        Args:
            column: one of `sample_columns`.
            samples: int64[n], numbers of rows.
        """
        assert self.seq_len is not None
        if column == self._token_column:
            return self.locate(samples * self.seq_len, self.seq_len)
        itemsize = self.sample_columns[column].itemsize
        return self._memory.locate_rows(column, samples, self.seq_len, itemsize)

    def warm(self, runs: npt.NDArray[np.int64]) -> None:
        """Decode ahead, on threads, what holds these runs of tokens; for a loader.

        Args:
            runs: int64[n, 2], from the first token to before the second, soonest first.
        """
        if self.is_mapped:
            return
        lows = self.first_tokens.searchsorted(runs[:, 0], side="right") - 1
        highs = self.first_tokens.searchsorted(runs[:, 1])
        self._shards.warm(
            batch
            for low, high in zip(lows.tolist(), highs.tolist(), strict=True)
            for batch in range(low, high)
        )

    def lineage(self, row: int) -> Lineage:
        """The source and the record in it that a row was made from.

        Raises:
            IndexError: there is no such row.
            DatasetError: the dataset records no lineage.
        """
        index = self._row_number(row)
        return lineage_of(self.ledger, index, self.path)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer stored beside the data.

        Raises:
            TokenizerError: none is stored, or a package to load it is missing.
        """
        from easydata.stages import load_tokenizer

        stored = self.ledger.metadata.get("tokenizer", {})
        if not stored.get("folder"):
            raise TokenizerError(
                f"{self.path} has no tokenizer beside it: {stored.get('name', 'its tokenizer')} "
                "is code that cannot be stored, or none was recorded."
            )
        return load_tokenizer(self.path / stored["folder"])

    def decode(self, row: int) -> str:
        """The text of a row, without the BOS and EOS that the build added."""
        ids = self[row][self._token_column]
        special = self.ledger.metadata.get("tokenizer", {})
        if len(ids) and ids[0] == special.get("bos_id", -1):
            ids = ids[1:]
        if len(ids) and ids[-1] == special.get("eos_id", -1):
            ids = ids[:-1]
        return self.tokenizer().decode(ids)

    def verify(self) -> None:
        """Check every byte of every shard now, whatever was checked before.

        Raises:
            CorruptShardError: the first damage; it names the file, the batch, the remedy.
        """
        for error in self.find_damage():
            raise error

    def find_damage(self) -> Iterator[CorruptShardError]:
        """Check every byte; the first damage of each shard."""
        return find_damage(self.path, self.ledger, self._token_column)

    def _row_number(self, row: SupportsIndex) -> int:
        if not hasattr(row, "__index__"):
            kind = type(row).__name__
            raise TypeError(f"a row number is an integer, not {kind}; see take() and column()")
        number = operator.index(row)
        if not -len(self) <= number < len(self):
            raise IndexError(f"row {number} of a dataset of {len(self)} rows")
        return number % len(self)

    @property
    def _num_batches(self) -> int:
        return len(self.ledger.batch_offsets)

    @cached_property
    def _first_rows(self) -> list[int]:
        # For one number, bisecting a list takes a tenth of the time of np.searchsorted.
        first_rows: list[int] = self.ledger.first_rows.tolist()
        return first_rows
