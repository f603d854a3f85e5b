"""A generation, opened: its ledgers, its bytes compared with them, its rows.

What is opened keeps its generation on the disk: the tables of a `Dataset` and a `TokenDataset`
refer to the lease. So it lasts as long as any dataset that was made from them, in any process.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from easydata._fs import storage_errors
from easydata._units import parse_bytes
from easydata.cache.datasets.entry import Held
from easydata.cache.datasets.leases import Lease, Replays
from easydata.cache.datasets.parquet import as_written
from easydata.dataset import TokenDataset
from easydata.errors import CorruptShardError, DatasetError, NotADatasetError
from easydata.fingerprint import fingerprint_bytes
from easydata.format.checksums import block_checksums
from easydata.format.features import HUGGINGFACE_KEY
from easydata.format.ledger import Ledger
from easydata.format.mapping import map_file

__all__ = ["Opened"]

_Verify = Literal["lazy", "never"]
_DECODED_BYTES = parse_bytes("1GiB", name="cache_bytes")  # as open_dataset


class _EntryLedger(Ledger):
    """A ledger whose dataset is not repaired by a build."""

    remedy = ""

    def repair_command(self, directory: Path) -> str:  # noqa: ARG002
        return self.remedy


class _CachedTokens(TokenDataset):
    """Tokens whose files stay as long as it, its copies and what was unpickled live."""

    def __init__(
        self, directory: Path, ledger: _EntryLedger, name: str, verify: _Verify, lease: Lease
    ) -> None:
        """
        Args:
            directory: of its shards, which are opened when they are first read.
            ledger: of the shards.
            name: file name of the ledger.
            verify: as for `open_dataset`.
            lease: of the generation.
        """
        super().__init__(directory, ledger, verify=verify, cache_bytes=_DECODED_BYTES)
        self._parts = (directory, name, ledger.remedy, verify, lease)

    def __reduce__(self) -> tuple[Callable[..., TokenDataset], tuple[Any, ...]]:
        return _reopen, self._parts


def _reopen(directory: Path, name: str, remedy: str, verify: _Verify, lease: Lease) -> TokenDataset:
    return _CachedTokens(directory, _open_ledger(directory, name, remedy), name, verify, lease)


class Opened:
    """A generation whose ledgers are open.

    Attributes:
        record: what is stored there.
        folder: a directory for `datasets.load_from_disk`, if `is_loadable`.
    """

    def __init__(self, held: Held) -> None:
        """Open the ledgers.

        Raises:
            CorruptShardError: one is missing or damaged, or a shard is missing or has another
                size than was written.
            FormatVersionError: a newer easydata wrote it.
        """
        self.record = held.record
        self.folder = held.folder
        self.lease = held.lease
        self._directories: dict[str, Path] = {}
        self._ledgers: dict[str, _EntryLedger] = {}
        remedy = (
            f"DatasetCache({str(held.folder.parents[1])!r}).invalidate({held.record.key!r}), "
            "then put it."
        )
        for split, name in held.record.ledgers.items():
            self._directories[split] = directory = held.folder / split
            self._ledgers[split] = ledger = _open_ledger(directory, name, remedy)
            for shard in range(ledger.num_shards):
                self._check_size(directory / ledger.shard_name(shard), ledger.shard_bytes[shard])

    @property
    def is_loadable(self) -> bool:
        """Whether `datasets.load_from_disk` can read it."""
        return all(item.metadata["shard_format"] == "ipc" for item in self._ledgers.values())

    def check(self) -> None:
        """Compare every byte with its checksum.

        Raises:
            CorruptShardError: the first difference.
            StorageError: a file cannot be read.
        """
        for name, expected in self.record.files.items():
            path = self.folder / name
            with _reading(path):
                if fingerprint_bytes(path.read_bytes()) != expected:
                    raise CorruptShardError(f"{path} is damaged: it does not match its checksum.")
        for split, ledger in self._ledgers.items():
            for shard in range(ledger.num_shards):
                path = self._directories[split] / ledger.shard_name(shard)
                with _reading(path):
                    found = _checksums(path, ledger, shard)
                if not np.array_equal(found, _expected(ledger, shard)):
                    raise CorruptShardError(
                        f"Shard {path} is damaged: its bytes do not match their checksums."
                    )

    def load(self) -> Any:
        """The rows as a `datasets.Dataset`, or the splits as a `DatasetDict`; each time new ones.

        Columns are views of the files where these are not compressed, else copies in memory.

        Raises:
            CorruptShardError: the files cannot be read (with verify="never").
        """
        import datasets

        loaded = {split: self._load_split(split) for split in self._ledgers}
        return loaded[""] if "" in loaded else datasets.DatasetDict(loaded)

    def tokens(self, split: str | None, *, checked: bool) -> TokenDataset:
        """The rows as tokens.

        Args:
            split: which, if there are several.
            checked: whether all bytes have been, or should not be, checked.

        Raises:
            NotADatasetError: there is no such split, or there are several.
            DatasetError: there is no column of tokens.
        """
        if (split or "") not in self._ledgers:
            have = ", ".join(self._ledgers)
            raise NotADatasetError(
                f"The dataset {self.record.key!r} has no split {split!r}; "
                + (f"pass split= one of {have}." if have else "it has no splits at all.")
            )
        ledger = self._ledgers[split or ""]
        if ledger.metadata["token_column"] is None:
            raise DatasetError(
                f"The dataset {self.record.key!r} cannot be opened as tokens: "
                f"{ledger.metadata['why_no_tokens']}. Use get, or tokenize it with easydata.build."
            )
        return _CachedTokens(
            self._directories[split or ""],
            ledger,
            self.record.ledgers[split or ""],
            "never" if checked else "lazy",
            self.lease,
        )

    def _load_split(self, split: str) -> Any:
        import datasets
        from datasets.table import InMemoryTable, MemoryMappedTable, concat_tables

        ledger, directory = self._ledgers[split], self._directories[split]
        paths = [directory / ledger.shard_name(shard) for shard in range(ledger.num_shards)]
        with _reading(directory):
            if ledger.metadata["shard_format"] == "parquet":
                parts = [_read_parquet(path, ledger.schema) for path in paths]
            else:
                parts = [_read_ipc(path) for path in paths]
        if ledger.metadata["compression"] == "none":
            history = Replays(self.lease)
            table = concat_tables(
                [
                    MemoryMappedTable(part, str(path), history)
                    for part, path in zip(parts, paths, strict=True)
                ]
            )
        else:
            table = InMemoryTable(pa.concat_tables(parts))
        if table.num_rows != ledger.first_rows[-1]:
            raise CorruptShardError(
                f"The shards in {directory} have {table.num_rows} rows, not the "
                f"{ledger.first_rows[-1]} that were written."
            )
        name = ledger.metadata["split"]
        return datasets.Dataset(
            table,
            split=None if name is None else datasets.Split(name),
            fingerprint=ledger.metadata["fingerprint"],
        )

    @staticmethod
    def _check_size(path: Path, expected: int) -> None:
        with _reading(path):
            size = path.stat().st_size
        if size != expected:
            raise CorruptShardError(
                f"Shard {path} has {size} bytes, not the {expected} that were written."
            )


def _open_ledger(directory: Path, name: str, remedy: str) -> _EntryLedger:
    path = directory / name
    with _reading(path):
        ledger = _EntryLedger.open(path)
    ledger.remedy = remedy
    return ledger


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """
    Raises:
        CorruptShardError: the block found no file, or not what was written.
        StorageError: the system failed otherwise.
    """
    with storage_errors(path, "read"):
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            raise CorruptShardError(f"{path} is missing.") from None
        except pa.ArrowMemoryError:
            raise
        except (pa.ArrowException, OSError) as error:
            # Arrow's own, about the content, have no number.
            if getattr(error, "errno", None) not in (None, errno.EISDIR):
                raise
            raise CorruptShardError(f"{path} cannot be read: {error}") from error


def _checksums(path: Path, ledger: Ledger, shard: int) -> Any:
    """uint64[blocks] of a shard as it is now."""
    data = memoryview(map_file(path))
    offsets = ledger.batch_offsets[slice(*ledger.first_batches[shard : shard + 2].tolist())]
    edges = [0, *offsets.tolist(), int(ledger.region_ends[shard, 1]), len(data)]
    return np.concatenate([block_checksums([data[a:b]]) for a, b in pairwise(edges)])


def _expected(ledger: Ledger, shard: int) -> Any:
    return ledger.checksums[slice(*ledger.first_blocks[shard : shard + 2].tolist())]


def _read_ipc(path: Path) -> pa.Table:
    return pa.ipc.open_stream(map_file(path)).read_all()


def _read_parquet(path: Path, schema: pa.Schema) -> pa.Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(map_file(path)), page_checksum_verification=True)
    metadata = {HUGGINGFACE_KEY: file.schema_arrow.metadata[HUGGINGFACE_KEY]}
    return as_written(file.read(), schema).replace_schema_metadata(metadata)
