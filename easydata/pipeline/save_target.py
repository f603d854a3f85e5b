"""Where a result is saved: a local folder that is there whole or not at all, or a URL."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from easydata._fs import publish_bytes, storage_errors, sync_directory, temporary_path
from easydata._optional import require
from easydata.cache.datasets.leases import remove_unheld, take
from easydata.cache.datasets.names import LEASE_FILE
from easydata.errors import OutputExistsError, StorageError, UsageError
from easydata.pipeline.save_manifest import MANIFEST, Manifest, refuse_foreign

__all__ = ["LocalTarget", "RemoteTarget", "Target", "make_target"]

_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_UNFINISHED = ".easydata-save.unfinished"

Write = Callable[[Path], Manifest]


class Target(Protocol):
    """A place for one result."""

    @property
    def path(self) -> str:
        """The folder or URL."""

    def manifest(self) -> Manifest | None:
        """What is saved there whole; None if nothing is.

        Raises:
            StorageError: nobody can say.
        """

    def check(self, *, overwrite: bool) -> None:
        """Check that a result may be put there.

        Raises:
            OutputExistsError: something is there that must not be replaced.
        """

    def tidy(self) -> None:
        """Delete what killed saves to this place left beside it."""

    def save(self, write: Write, *, overwrite: bool) -> None:
        """Let `write` fill an empty folder, and put what it wrote there.

        Raises:
            OutputExistsError: as `check`; perhaps another process was faster.
            StorageError: it cannot be written; what was there is still there.
        """


def make_target(path: str, storage_options: Mapping[str, Any] | None) -> Target:
    """The target for a path or an fsspec URL.

    Raises:
        MissingDependencyError: the package of this file system is not installed.
        UsageError: fsspec knows no such file system.
    """
    if "://" not in path:
        return LocalTarget(Path(path))
    protocol = path.partition("://")[0]
    if protocol in _EXTRAS:
        module = "s3fs" if _EXTRAS[protocol] == "s3" else "gcsfs"
        require(module, extra=_EXTRAS[protocol], purpose=f"Saving to {path}")
    return RemoteTarget(path, storage_options or {})


class LocalTarget:
    """A folder of this machine. It is written beside its place, and renamed.

    A process that is killed leaves what was there, or nothing; between two renames of an
    `overwrite` the old result is under another name. The next save to the same place deletes
    what it left, also one that finds its result there already.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.absolute()

    @property
    def path(self) -> str:
        return str(self._folder)

    def manifest(self) -> Manifest | None:
        with storage_errors(self._folder, "read"):
            try:
                data = (self._folder / MANIFEST).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                return None
            found = Manifest.from_bytes(data, self.path)
            if found is None or found.files != _sizes(self._folder, found.files):
                return None
        return found

    def check(self, *, overwrite: bool) -> None:
        if self._folder.exists() and not self._folder.is_dir():
            raise OutputExistsError(f"{self._folder} is a file. Choose another folder.")
        with storage_errors(self._folder, "read"):
            names = _files_below(self._folder)
            if not names:
                return
            data = self._folder / MANIFEST
            known = Manifest.from_bytes(data.read_bytes(), self.path) if data.is_file() else None
        refuse_foreign(self.path, names, known, overwrite=overwrite)

    def tidy(self) -> None:
        ours = re.compile(r"(\.tmp-[0-9a-f]{16}-)+" + re.escape(self._folder.name))
        for path in list(self._folder.parent.iterdir()):
            if ours.fullmatch(path.name) and path.is_dir():
                with contextlib.suppress(StorageError):  # the next one tries again
                    remove_unheld(path, lambda: False)

    def save(self, write: Write, *, overwrite: bool) -> None:
        self.check(overwrite=overwrite)
        with storage_errors(self._folder, "make"):
            self._folder.parent.mkdir(parents=True, exist_ok=True)
        self.tidy()
        staging = self._begin()
        lease = take(staging, create=True)
        try:
            publish_bytes(staging / MANIFEST, write(staging).to_bytes())
            _sync_below(staging)
            self.check(overwrite=overwrite)
            with storage_errors(self._folder):
                self._commit(staging)
        except BaseException:  # also Ctrl-C: nothing may be left
            shutil.rmtree(staging, ignore_errors=True)
            raise
        finally:
            if lease is not None:
                lease.close()

    def _begin(self) -> Path:
        staging = temporary_path(self._folder)
        with storage_errors(staging, "make"):
            staging.mkdir()
        return staging

    def _commit(self, staging: Path) -> None:
        displaced = None
        if self._folder.exists():
            displaced = temporary_path(self._folder)
            self._folder.rename(displaced)
        try:
            staging.rename(self._folder)
        except OSError:
            if displaced is not None:
                displaced.rename(self._folder)
            raise
        (self._folder / LEASE_FILE).unlink(missing_ok=True)
        sync_directory(self._folder.parent)
        if displaced is not None:
            shutil.rmtree(displaced, ignore_errors=True)


class RemoteTarget:
    """A folder of an fsspec file system. Files are made here and copied, the manifest last."""

    def __init__(self, url: str, storage_options: Mapping[str, Any]) -> None:
        import fsspec

        self.path = url.rstrip("/")
        try:
            self._filesystem, self._root = fsspec.core.url_to_fs(self.path, **storage_options)
        except (ValueError, ImportError) as error:
            raise UsageError(f"{url} is no address that fsspec knows: {error}") from error

    def manifest(self) -> Manifest | None:
        found = self._read_manifest()
        if found is None:
            return None
        sizes = self._sizes()
        is_whole = _UNFINISHED not in sizes and all(
            sizes.get(name) == size for name, size in found.files.items()
        )
        return found if is_whole else None

    def check(self, *, overwrite: bool) -> None:
        sizes = self._sizes()
        if sizes and _UNFINISHED not in sizes:
            refuse_foreign(self.path, sizes, self._read_manifest(), overwrite=overwrite)

    def tidy(self) -> None:
        """Nothing lies beside it: files are made on this machine."""

    def save(self, write: Write, *, overwrite: bool) -> None:
        self.check(overwrite=overwrite)
        with tempfile.TemporaryDirectory(prefix="easydata-save-") as name:
            folder = Path(name)
            manifest = write(folder)
            with self._errors("write"):
                self._filesystem.makedirs(self._root, exist_ok=True)
                self._filesystem.pipe_file(self._inside(_UNFINISHED), b"")
                before = self._sizes()
                if MANIFEST in before:
                    self._filesystem.rm_file(self._inside(MANIFEST))
                for file in manifest.files:
                    if "/" in file:
                        parent = self._inside(file.rpartition("/")[0])
                        self._filesystem.makedirs(parent, exist_ok=True)
                    self._filesystem.put_file(str(folder / file), self._inside(file))
                for old in before.keys() - manifest.files.keys() - {MANIFEST, _UNFINISHED}:
                    self._filesystem.rm_file(self._inside(old))
                self._filesystem.rm_file(self._inside(_UNFINISHED))
                self._filesystem.pipe_file(self._inside(MANIFEST), manifest.to_bytes())

    def _read_manifest(self) -> Manifest | None:
        with self._errors("read"):
            try:
                data = self._filesystem.cat_file(self._inside(MANIFEST))
            except FileNotFoundError:
                return None
        return Manifest.from_bytes(data, self.path)

    def _sizes(self) -> dict[str, int]:
        """Bytes of all files below the folder, by path."""
        with self._errors("read"):
            self._filesystem.invalidate_cache()
            if not self._filesystem.exists(self._root):
                return {}
            found = self._filesystem.find(self._root, detail=True)
        root = self._root.rstrip("/") + "/"
        return {str(name).removeprefix(root): int(info["size"]) for name, info in found.items()}

    def _inside(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    @contextlib.contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StorageError(
                error.errno or 5, f"Cannot {doing} {self.path}: {error}. Check it and save again."
            ) from error


def _files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, and of its empty folders; none if it is not there."""
    found = []
    for parent, folders, names in os.walk(folder):
        if not folders and not names and Path(parent) != folder:
            found.append(Path(parent).relative_to(folder).as_posix())
        found += [(Path(parent) / name).relative_to(folder).as_posix() for name in names]
        found += [
            (Path(parent) / name).relative_to(folder).as_posix()
            for name in folders
            if (Path(parent) / name).is_symlink()
        ]
    return sorted(found)


def _sizes(folder: Path, names: Mapping[str, int]) -> dict[str, int]:
    """Bytes of those of the files that are there."""
    return {name: (folder / name).stat().st_size for name in names if (folder / name).is_file()}


def _sync_below(folder: Path) -> None:
    """Let all files and folders survive a power failure."""
    with storage_errors(folder, "flush"):
        for path in folder.rglob("*"):
            if path.is_file():
                descriptor = os.open(path, os.O_RDWR)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            else:
                sync_directory(path)
    sync_directory(folder)
