"""The last step of a build: its shards become the dataset."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from easydata._fs import publish_bytes, storage_errors
from easydata.build.assemble import place_file
from easydata.build.existing import find_documents, inspect_output
from easydata.build.sample_options import DOCUMENTS
from easydata.fingerprint import Hasher
from easydata.format.directory import (
    INFO_FILE,
    SPLITS_FILE,
    STATE_FILE,
    TOKENIZER_PREFIX,
    WORK_FOLDER,
    read_state,
    remove_superseded,
    remove_temporary,
    write_splits,
    write_state,
)
from easydata.format.ledger import Ledger, PartEntry, ShardEntry
from easydata.format.stream import encode_schema
from easydata.loader.plan_store import remove_plans
from easydata.metadata import CacheMetadata

__all__ = ["Assembled", "Prepared", "commit", "finish_commit", "prepare"]


class Assembled(Protocol):
    """Finished shards.

    Attributes:
        folder: where they lie.
        shards: their entries in the ledger, in order.
        parts: what they consist of; empty where there are none.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def shards(self) -> Sequence[ShardEntry]: ...

    @property
    def parts(self) -> Sequence[PartEntry]: ...


@dataclass(frozen=True)
class Prepared:
    """A dataset of which everything lies in its directory but the file that makes it visible."""

    folder: Path
    split: str | None
    shard_names: tuple[str, ...]
    ledger_name: str
    tokenizer_name: str | None
    fingerprint: str

    def publish(self) -> None:
        """Make the dataset visible, in place of an earlier one."""
        write_state(
            self.folder,
            shard_names=self.shard_names,
            ledger_name=self.ledger_name,
            fingerprint=self.fingerprint,
            split=self.split,
        )


def prepare(
    folder: Path,
    assembled: Assembled,
    *,
    schema: pa.Schema,
    split: str | None,
    sources: Sequence[Mapping[str, Any]],
    metadata: Mapping[str, Any],
    cache: CacheMetadata,
    tokenizer_files: Mapping[str, bytes],
) -> Prepared:
    """Place shards, tokenizer and ledger in the dataset directory.

    Args:
        folder: the dataset directory.
        assembled: the shards.
        schema: their schema.
        split: the split's name, if there are several.
        sources: names, sizes and identities of the sources.
        metadata: what else the ledger records.
        cache: what the dataset was made from.
        tokenizer_files: content of the tokenizer's files by name.
    """
    with storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(schema, assembled.shards)
    count = len(assembled.shards)
    shards: list[ShardEntry] = []
    for index, shard in enumerate(assembled.shards):
        suffix = Path(shard.name).suffix
        name = f"data-{index:05d}-of-{count:05d}-{fingerprint}{suffix}"
        place_file(assembled.folder / shard.name, folder / name)
        shards.append(replace(shard, name=name))
    tokenizer_name = _store_tokenizer(folder, tokenizer_files)
    rows = sum(int(shard.batches[:, 2].sum()) for shard in shards)
    ledger = Ledger.build(
        schema,
        {
            **metadata,
            "fingerprint": fingerprint,
            "tokenizer": {**metadata["tokenizer"], "folder": tokenizer_name},
            "cache": vars(replace(cache, num_examples=rows)),
        },
        shards=shards,
        parts=assembled.parts,
        sources=sources,
    )
    return Prepared(
        folder,
        split,
        tuple(shard.name for shard in shards),
        ledger.publish(folder),
        tokenizer_name,
        fingerprint,
    )


def commit(
    out: Path, prepared: Sequence[Prepared], old_folders: Sequence[Path], *, has_documents: bool
) -> None:
    """Make all splits visible, then delete what they replace.

    One dataset appears by one rename. For several splits the list of splits is taken away
    first and put back last: killed in between, none is visible, and never a mixture.

    Args:
        out: the output directory.
        prepared: the dataset, or all splits.
        old_folders: directories of the dataset or splits that were there before.
        has_documents: it is made of documents in a folder of its own, which stays.
    """
    names = [item.split for item in prepared if item.split is not None]
    with storage_errors(out):
        if names:
            (out / SPLITS_FILE).unlink(missing_ok=True)
            (out / STATE_FILE).unlink(missing_ok=True)
        for item in prepared:
            item.publish()
        if names:
            write_splits(out, names)
        else:
            (out / SPLITS_FILE).unlink(missing_ok=True)
        for folder in {*old_folders} - {item.folder for item in prepared}:
            _remove_dataset(folder)
        for item in prepared:
            keep = [*item.shard_names, item.ledger_name, item.tokenizer_name or ""]
            remove_superseded(item.folder, keep)
            remove_plans(item.folder, keep=[item.fingerprint])
        if not has_documents:
            _remove_documents(out)


def finish_commit(out: Path) -> None:
    """Delete what a build at `out` that was killed right after its commit had no time to."""
    existing = inspect_output(out, overwrite=False)
    if existing is None:
        return
    for split, folder in existing.folders.items():
        ledger = existing.ledgers[split]
        names = [ledger.shard_name(index) for index in range(ledger.num_shards)]
        keep = [*names, read_state(folder), ledger.metadata["tokenizer"]["folder"]]
        with storage_errors(folder):
            remove_superseded(folder, [name for name in keep if name is not None])
            remove_plans(folder, keep=[ledger.metadata["fingerprint"]])
    if not existing.holds_samples:
        with storage_errors(out):
            _remove_documents(out)


def _remove_documents(out: Path) -> None:
    """Remove the documents of samples that were at `out`, at once to whoever looks for them."""
    # What lies in the work folder is gone for everybody, and its end takes all that is left.
    target = out / WORK_FOLDER / DOCUMENTS
    shutil.rmtree(target, ignore_errors=True)
    if find_documents(out) is not None:
        (out / DOCUMENTS).rename(target)
        shutil.rmtree(target, ignore_errors=True)


def _remove_dataset(folder: Path) -> None:
    """Remove an earlier dataset, and its folder if nothing else is in it."""
    (folder / STATE_FILE).unlink(missing_ok=True)
    (folder / INFO_FILE).unlink(missing_ok=True)
    remove_superseded(folder, [])
    remove_plans(folder)
    with contextlib.suppress(OSError):
        folder.rmdir()


def _store_tokenizer(folder: Path, files: Mapping[str, bytes]) -> str | None:
    if not files:
        return None
    hasher = Hasher()
    for name in sorted(files):
        hasher.update(name.encode() + b"\0" + files[name])
    target = folder / f"{TOKENIZER_PREFIX}{hasher.hexdigest()}"
    if target.is_dir():
        remove_temporary(target)
    for name, data in files.items():
        path = target / name
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        publish_bytes(path, data)
    return target.name


def _fingerprint(schema: pa.Schema, shards: Sequence[ShardEntry]) -> str:
    """16 hexadecimal digits over every byte of every shard, by way of their checksums."""
    hasher = Hasher(encode_schema(schema))
    for shard in shards:
        hasher.update(shard.batches.tobytes())
        hasher.update(shard.checksums.tobytes())
    return hasher.hexdigest()[:16]
