"""Opening a dataset directory, whoever wrote it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from easydata._paths import local_folder
from easydata._units import parse_bytes
from easydata.dataset._shards import Verify
from easydata.dataset.token_dataset import TokenDataset
from easydata.errors import CorruptShardError, NotADatasetError, UsageError
from easydata.format.directory import (
    TOKENS,
    read_fingerprint,
    read_shard_names,
    read_splits,
    read_state,
)
from easydata.format.foreign import scan_directory
from easydata.format.ledger import Ledger

if TYPE_CHECKING:
    import os

__all__ = ["open_dataset", "open_splits", "read_ledger", "reopen"]


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
        UsageError: the path is none, or another argument is wrong.
        NotADatasetError: there is no complete dataset.
        CorruptShardError: the ledger is damaged, or with verify="open" anything is.
        FormatVersionError: a newer easydata wrote it.
    """
    if verify not in ("lazy", "open", "never"):
        raise UsageError(f"verify is {verify!r}; choose 'lazy', 'open' or 'never'.")
    directory = local_folder(path, name="path")
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
        UsageError: the path is none.
    """
    names = read_splits(local_folder(path, name="path"))
    if names is None:
        raise NotADatasetError(f"{path} has no splits. Open it with easydata.open_dataset.")
    return {name: open_dataset(path, split=name, verify=verify) for name in names}


def reopen(path: Path, verify: Verify, cache_bytes: int) -> TokenDataset:
    """A dataset again, in another process."""
    # What was checked at opening need not be checked again in every worker process.
    return open_dataset(
        path, verify="lazy" if verify == "open" else verify, cache_bytes=cache_bytes
    )


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
        return scan_directory(
            directory,
            read_shard_names(directory),
            TOKENS,
            fingerprint=read_fingerprint(directory),
        )
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
