"""TokenDataset: one dataset directory, opened."""

from __future__ import annotations

import bisect
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata._units import parse_bytes
from easydata.dataset._lineage import Lineage, lineage_of
from easydata.dataset._opening import read_ledger
from easydata.dataset._shards import Shards, Verify
from easydata.dataset._verify import find_damage
from easydata.errors import (
    CorruptShardError,
    NotADatasetError,
    TokenizerError,
    UsageError,
)
from easydata.format.arrays import number_array
from easydata.format.directory import read_splits
from easydata.format.ledger import Ledger
from easydata.loader import DataLoader
from easydata.metadata import CacheMetadata

if TYPE_CHECKING:
    import os

    from easydata.stages import Tokenizer

__all__ = ["Lineage", "TokenDataset", "open_dataset", "open_splits"]


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

    def __reduce__(self) -> tuple[Callable[..., TokenDataset], tuple[Any, ...]]:
        return _reopen, (self.path, self._verify, self._cache_bytes)

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
        """16 hexadecimal digits that follow from the content of the dataset."""
        return str(self.ledger.metadata.get("fingerprint", ""))

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
            dtype[n, length], newly allocated.

        Raises:
            IndexError: a run does not lie within the stream.
        """
        if not len(starts):
            return np.empty((0, length), self.dtype)
        # A negative start becomes a huge unsigned one.
        if (starts.view(np.uint64) > max(self.num_tokens - length, 0)).any() or (
            length > self.num_tokens
        ):
            raise IndexError(f"a run of {length} tokens outside the {self.num_tokens} there are")
        if not self._shards.is_mapped:
            return self._gather_one_by_one(starts, length)
        first_tokens = self.ledger.first_tokens
        batches = np.searchsorted(first_tokens, starts, side="right") - 1
        local = starts - first_tokens[batches]
        inside = starts + length <= first_tokens[batches + 1]
        if inside.all():
            return self._shards.gather(batches, local, length)
        out = np.empty((len(starts), length), self.dtype)
        if inside.any():
            out[inside] = self._shards.gather(batches[inside], local[inside], length)
        out[~inside] = self._gather_one_by_one(starts[~inside], length)
        return out

    def _gather_one_by_one(self, starts: npt.NDArray[np.int64], length: int) -> npt.NDArray[Any]:
        out = np.empty((len(starts), length), self.dtype)
        for i, start in enumerate(starts.tolist()):
            out[i] = self.tokens(start, start + length)
        return out

    def loader(
        self,
        batch_size: int,
        seq_len: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        epochs: int | None = 1,
        drop_last: bool = True,
    ) -> DataLoader:
        """Batches of fixed-length chunks of the token stream; see `easydata.DataLoader`."""
        return DataLoader(
            self,
            batch_size,
            seq_len,
            shuffle=shuffle,
            seed=seed,
            epochs=epochs,
            drop_last=drop_last,
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


def open_dataset(
    path: str | os.PathLike[str],
    *,
    split: str | None = None,
    verify: Verify = "lazy",
    cache_bytes: int | str = "1GiB",
) -> TokenDataset:
    """Open a dataset directory. Costs the same for 1 shard and 10,000.

    Args:
        path: a directory made by `build`, or by `Dataset.save_to_disk` (with a warning: it has
            no checksums, no lineage and no metadata).
        split: which split to open, if the directory holds several.
        verify: when bytes are compared with their checksums: "lazy" when first touched, each
            once; "open" all of them now; "never".
        cache_bytes: how much decoded data of a compressed dataset is kept in memory.

    Raises:
        NotADatasetError: there is no complete dataset.
        CorruptShardError: the ledger is damaged, or with verify="open" anything is.
        FormatVersionError: a newer easydata wrote it.
    """
    if verify not in ("lazy", "open", "never"):
        raise UsageError(f"verify is {verify!r}; choose 'lazy', 'open' or 'never'.")
    directory = Path(path)
    if split is not None:
        names = read_splits(directory)
        if names is None or split not in names:
            have = f"its splits are {', '.join(names)}" if names else "it has no splits"
            raise NotADatasetError(f"{directory} has no split {split!r}; {have}.")
        directory = directory / split
    ledger = read_ledger(directory)
    if ledger.metadata["token_column"] is None:
        raise NotADatasetError(f"{directory} has no tokens: {ledger.metadata['why_no_tokens']}")
    dataset = TokenDataset(
        directory,
        ledger,
        verify=verify,
        cache_bytes=parse_bytes(cache_bytes, name="cache_bytes") if cache_bytes != 0 else 0,
    )
    if verify == "open":
        dataset.verify()
    return dataset


def open_splits(
    path: str | os.PathLike[str], *, verify: Verify = "lazy"
) -> dict[str, TokenDataset]:
    """Open every split of a directory that `build(splits=…)` made.

    Raises:
        NotADatasetError: the directory holds no splits.
    """
    names = read_splits(Path(path))
    if names is None:
        raise NotADatasetError(f"{path} has no splits. Open it with easydata.open_dataset.")
    return {name: open_dataset(path, split=name, verify=verify) for name in names}


def _reopen(path: Path, verify: Verify, cache_bytes: int) -> TokenDataset:
    # What was checked at opening need not be checked again in every worker process.
    return open_dataset(
        path, verify="lazy" if verify == "open" else verify, cache_bytes=cache_bytes
    )
