"""Check every byte of a dataset."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from easydata.dataset._shards import Shards
from easydata.errors import CorruptShardError
from easydata.format.directory import STATE_FILE, read_shard_names
from easydata.format.ledger import Ledger

__all__ = ["find_damage"]


def find_damage(directory: Path, ledger: Ledger, token_column: str) -> Iterator[CorruptShardError]:
    """What is damaged: the first thing in each shard.

    Raises:
        NotADatasetError: the dataset is there no more.
    """
    names = [ledger.shard_name(index) for index in range(ledger.num_shards)]
    if read_shard_names(directory) != names:
        yield CorruptShardError(
            f"{directory / STATE_FILE} names other shards than the ledger. If the dataset was "
            "built again since it was opened, open it again. If not, build it again: "
            f"{ledger.repair_command(directory)}"
        )
        return
    shards = Shards(directory, ledger, token_column=token_column, verify="lazy", cache_bytes=0)
    for shard in range(ledger.num_shards):
        try:
            shards.check_shard(shard)
        except CorruptShardError as error:
            yield error
