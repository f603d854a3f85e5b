"""What lies at the output path before a build, and whether the build has anything to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easydata._lazy import cached_property
from easydata.build.sample_options import DOCUMENTS
from easydata.build.sources_changed import source_differences
from easydata.errors import DatasetError, OutputExistsError
from easydata.fingerprint import HashMode
from easydata.format.directory import (
    SPLITS_FILE,
    STATE_FILE,
    WORK_FOLDER,
    read_splits,
    read_state,
)
from easydata.format.ledger import Ledger
from easydata.loader.plan_store import PLANS_FOLDER
from easydata.sources import Source

__all__ = ["Existing", "find_documents", "inspect_output"]


@dataclass(frozen=True)
class Existing:
    """A complete dataset that a build finds at its output path.

    Attributes:
        out: the output path.
        folders: dataset directory of each split; its only name is None without splits.
        ledgers: the ledger of each.
    """

    out: Path
    folders: dict[str | None, Path]
    ledgers: dict[str | None, Ledger]

    @property
    def _first(self) -> Ledger:
        return next(iter(self.ledgers.values()))

    @property
    def holds_samples(self) -> bool:
        """Whether its rows are samples, not documents."""
        return "samples" in self.metadata

    @cached_property
    def documents(self) -> Existing | None:
        """What its samples were made of, if that is still there."""
        found = find_documents(self.out) if self.holds_samples else None
        return found if found is not None and self.is_made_of(found) else None

    def is_made_of(self, documents: Existing) -> bool:
        """Whether its rows are samples of just these documents."""
        return self.holds_samples and documents.fingerprints == {
            name: ledger.metadata["samples"]["documents"] for name, ledger in self.ledgers.items()
        }

    @property
    def fingerprints(self) -> dict[str | None, str]:
        """That of each split."""
        return {name: ledger.metadata["fingerprint"] for name, ledger in self.ledgers.items()}

    @property
    def sources(self) -> list[dict[str, Any]] | None:
        """What is recorded of the sources; None if it is gone with the documents."""
        if not self.holds_samples:
            return self._first.sources()
        return None if self.documents is None else self.documents.sources

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the ledger says of the whole dataset."""
        return self._first.metadata

    @property
    def part_keys(self) -> list[str]:
        """The keys of its parts, in order."""
        return [part.key for part in self._first.parts()]

    @property
    def has_unfinished_work(self) -> bool:
        """Whether a build was killed here, and left something."""
        return (self.out / WORK_FOLDER).exists()

    def tokenizer_files(self) -> dict[str, bytes]:
        """Names and contents of the files of the tokenizer that is stored beside the data."""
        name = self.metadata["tokenizer"]["folder"]
        if name is None:
            return {}
        folder = next(iter(self.folders.values())) / name
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    def tells_all(self, sources: Sequence[Source]) -> bool:
        """True if no reason to rebuild means no difference: every source has an identity."""
        known = self.sources or []
        return len(known) == len(sources) and all(entry["hash"] for entry in known)

    def changed_sources(self, sources: Sequence[Source], hash_fn: HashMode) -> list[str]:
        """What differs between these sources and those that the dataset was made from, in words.

        Only sources that have an identity can be compared, with what is recorded.
        """
        if self.sources is None:
            return []
        read_as = self.metadata["recipe"]["type"]
        return source_differences(self.sources, sources, hash_fn, type=read_as)


def inspect_output(out: Path, *, overwrite: bool) -> Existing | None:
    """The complete dataset at `out`, if there is one.

    Raises:
        OutputExistsError: something else is there that a build must not touch, or (without
            `overwrite`) a dataset that easydata did not write.
        DatasetError: a damaged dataset is there, and `overwrite` is not set.
    """
    if not out.exists():
        return None
    if not out.is_dir():
        raise OutputExistsError(f"{out} is a file. Choose another folder with --out.")
    names = {path.name for path in out.iterdir()}
    if not {STATE_FILE, SPLITS_FILE} & names:
        ours = {WORK_FOLDER} | ({DOCUMENTS} if _is_for_samples(out / DOCUMENTS) else set())
        others = sorted(names - ours - _unfinished(out, names))
        if others:
            shown = ", ".join(others[:3]) + (", …" if len(others) > 3 else "")
            raise OutputExistsError(
                f"{out} already holds files that are no dataset ({shown}). "
                "Choose an empty or new folder with --out."
            )
        return None
    try:
        return _open_existing(out)
    except (DatasetError, OutputExistsError):
        if overwrite:
            return None
        raise


def find_documents(out: Path) -> Existing | None:
    """The documents in `out` that samples are made of; None if there are none, or damaged ones."""
    try:
        found = _open_existing(out / DOCUMENTS)
    except (DatasetError, OutputExistsError):
        return None
    return found if found.metadata.get("within_samples") else None


def _is_for_samples(folder: Path) -> bool:
    """True for documents that samples are made of, be they unfinished."""
    return (folder / WORK_FOLDER).exists() or find_documents(folder.parent) is not None


def _unfinished(out: Path, names: set[str]) -> set[str]:
    """Names that a build killed while publishing leaves beside its work folder."""
    if WORK_FOLDER not in names:
        return set()
    ours = ("data-", "ledger-", "tokenizer-", ".tmp-", "dataset_info.json", PLANS_FOLDER)
    splits = {path.name for path in out.iterdir() if path.is_dir() and _is_split(path)}
    return {name for name in names if name.startswith(ours)} | splits


def _is_split(path: Path) -> bool:
    names = [item.name for item in path.iterdir()]
    ours = ("ledger-", "data-", ".tmp-", "state.json", PLANS_FOLDER)
    return not names or any(name.startswith(ours) for name in names)


def _open_existing(out: Path) -> Existing:
    splits = read_splits(out)
    # A directory with both files is one dataset to `datasets` too.
    folders: dict[str | None, Path] = {None: out}
    if splits is not None and not (out / STATE_FILE).exists():
        folders = {name: out / name for name in splits}
    ledgers = {}
    for name, folder in folders.items():
        ledger_name = read_state(folder)
        if ledger_name is None:
            raise OutputExistsError(
                f"{folder} holds a dataset that HuggingFace datasets saved. "
                "Choose another folder with --out, or pass --overwrite to replace it."
            )
        try:
            ledgers[name] = Ledger.open(folder / ledger_name)
        except FileNotFoundError as error:
            raise DatasetError(
                f"The ledger of {folder} is missing. Pass --overwrite to build it again."
            ) from error
        if "recipe" not in ledgers[name].metadata:
            raise OutputExistsError(
                f"{folder} holds a dataset that was saved, not built. "
                "Choose another folder with --out, or pass --overwrite to replace it."
            )
    return Existing(out, folders, ledgers)
