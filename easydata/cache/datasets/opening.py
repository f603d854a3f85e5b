"""A generation, opened: its ledgers, its bytes compared with them, its rows.

What is opened keeps its generation on the disk. The columns of a `Dataset` are views of memory
maps, and each map refers to the lease: so the lease lasts as long as any dataset, table or array
that was made from them, whatever became of the `Dataset` itself.
"""

from __future__ import annotations

import weakref
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from easydata._units import parse_bytes
from easydata.cache.datasets.entry import Held
from easydata.cache.datasets.leases import Lease
from easydata.dataset import TokenDataset
from easydata.errors import CorruptShardError, DatasetError, NotADatasetError
from easydata.format.checksums import block_checksums
from easydata.format.features import HUGGINGFACE_KEY
from easydata.format.ledger import Ledger
from easydata.format.mapping import map_file

__all__ = ["Opened"]

_DECODED_BYTES = parse_bytes("1GiB", name="cache_bytes")  # as open_dataset


class _EntryLedger(Ledger):
    """A ledger whose dataset is not repaired by a build."""

    remedy = ""

    def repair_command(self, directory: Path) -> str:  # noqa: ARG002
        return self.remedy


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
        for split, name in held.record.ledgers.items():
            self._directories[split] = directory = held.folder / split
            try:
                ledger = _EntryLedger.open(directory / name)
            except FileNotFoundError:
                raise CorruptShardError(f"Ledger {directory / name} is missing.") from None
            ledger.remedy = (
                f"DatasetCache({str(held.folder.parents[1])!r}).invalidate({held.record.key!r}), "
                "then put it."
            )
            self._ledgers[split] = ledger
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
        """
        for split, ledger in self._ledgers.items():
            for shard in range(ledger.num_shards):
                path = self._directories[split] / ledger.shard_name(shard)
                if not np.array_equal(_checksums(path, ledger, shard), _expected(ledger, shard)):
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
        dataset = TokenDataset(
            self._directories[split or ""],
            ledger,
            verify="never" if checked else "lazy",
            cache_bytes=_DECODED_BYTES,
        )
        # Its shards are opened when they are first read.
        weakref.finalize(dataset, self.lease.close).atexit = False
        return dataset

    def _load_split(self, split: str) -> Any:
        import datasets
        from datasets.table import InMemoryTable, concat_tables

        ledger, directory = self._ledgers[split], self._directories[split]
        paths = [directory / ledger.shard_name(shard) for shard in range(ledger.num_shards)]
        read = _read_parquet if ledger.metadata["shard_format"] == "parquet" else _read_ipc
        is_mapped = ledger.metadata["compression"] == "none"
        try:
            if is_mapped:
                table = concat_tables([_map_ipc(path, self.lease) for path in paths])
            else:
                # Not a MemoryMappedTable, which is pickled by its path: nothing would tell how
                # long that must stay, as these columns view no map.
                table = InMemoryTable(pa.concat_tables([read(path) for path in paths]))
        except (pa.ArrowException, OSError) as error:
            raise CorruptShardError(f"The shards in {directory} cannot be read: {error}") from error
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
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            raise CorruptShardError(f"Shard {path} is missing.") from None
        if size != expected:
            raise CorruptShardError(
                f"Shard {path} has {size} bytes, not the {expected} that were written."
            )


def _checksums(path: Path, ledger: Ledger, shard: int) -> Any:
    """uint64[blocks] of a shard as it is now."""
    data = memoryview(map_file(path))
    offsets = ledger.batch_offsets[slice(*ledger.first_batches[shard : shard + 2].tolist())]
    edges = [0, *offsets.tolist(), int(ledger.region_ends[shard, 1]), len(data)]
    return np.concatenate([block_checksums([data[a:b]]) for a, b in pairwise(edges)])


def _expected(ledger: Ledger, shard: int) -> Any:
    return ledger.checksums[slice(*ledger.first_blocks[shard : shard + 2].tolist())]


def _map_ipc(path: Path, lease: Lease) -> Any:
    from datasets.table import MemoryMappedTable

    data = map_file(path)
    # A buffer refers to its base, and every array to its buffers.
    held = pa.foreign_buffer(data.address, data.size, base=(data, lease))
    return MemoryMappedTable(pa.ipc.open_stream(held).read_all(), str(path))


def _read_ipc(path: Path) -> pa.Table:
    return pa.ipc.open_stream(map_file(path)).read_all()


def _read_parquet(path: Path) -> pa.Table:
    import pyarrow.parquet as pq

    file = pq.ParquetFile(pa.BufferReader(map_file(path)), page_checksum_verification=True)
    metadata = {HUGGINGFACE_KEY: file.schema_arrow.metadata[HUGGINGFACE_KEY]}
    return file.read().replace_schema_metadata(metadata)
