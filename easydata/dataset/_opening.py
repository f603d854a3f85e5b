"""The ledger of a dataset directory, whoever wrote the directory."""

from __future__ import annotations

import warnings
from pathlib import Path

from easydata.errors import CorruptShardError
from easydata.format.directory import TOKENS, read_shard_names, read_state
from easydata.format.foreign import scan_directory
from easydata.format.ledger import Ledger

__all__ = ["read_ledger"]


def read_ledger(directory: Path) -> Ledger:
    """The ledger, checked; one made by scanning the shards where `datasets` wrote them.

    Raises:
        NotADatasetError: there is no complete dataset.
        CorruptShardError: the ledger is missing or damaged.
        FormatVersionError: a newer easydata wrote it.
    """
    name = read_state(directory)
    if name is None:
        warnings.warn(
            f"{directory} was saved by HuggingFace datasets, which keeps no easydata ledger: "
            "it has no checksums, no lineage and no metadata. Build it again to have them.",
            stacklevel=3,
        )
        return scan_directory(directory, read_shard_names(directory), TOKENS)
    try:
        ledger = Ledger.open(directory / name)
    except FileNotFoundError as error:
        raise CorruptShardError(
            f"Ledger {directory / name} is missing. Restore it from a copy, or build the dataset "
            "again with --overwrite."
        ) from error
    problems = ledger.problems()
    if problems:
        raise CorruptShardError(
            f"Ledger {directory / name} contradicts itself: {'; '.join(problems)}. "
            "Build the dataset again with --overwrite."
        )
    return ledger
