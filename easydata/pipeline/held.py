"""Datasets that this process holds: opened ones, and folders that live as long as it does."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from pathlib import Path

from easydata.dataset import TokenDataset, open_dataset
from easydata.format.directory import read_state

__all__ = ["HeldDatasets", "open_temporary", "temporary_folder"]


class HeldDatasets:
    """Opened datasets by their directory, the least recently used first.

    One that is held is handed out again without being opened, with all that it has decoded, as
    long as its directory still holds what it was opened from. Safe to use from several threads.
    """

    def __init__(self, *, delete: bool = False) -> None:
        """
        Args:
            delete: delete the directory of one that is held no more, once nobody uses it.
        """
        self._delete = delete
        self._held: OrderedDict[Path, tuple[str | None, TokenDataset]] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, path: Path, *, capacity: int) -> TokenDataset:
        """The dataset at `path`; at most `capacity` stay held."""
        path = path.resolve()
        generation = read_state(path)
        with self._lock:
            held = self._held.pop(path, None)
        if held is None or held[0] != generation:
            held = (generation, open_dataset(path))
        with self._lock:
            self._held[path] = held
            while len(self._held) > capacity:
                old_path, (_, old) = self._held.popitem(last=False)
                if self._delete:
                    weakref.finalize(old, self._remove, old_path, os.getpid())
                del old
        return held[1]

    def _remove(self, path: Path, owner: int) -> None:
        # It may have been made and held again since.
        if path not in self._held:
            _delete(path, owner)


def temporary_folder() -> Path:
    """A new folder for data of this process; it is deleted at exit, if not before."""
    folder = Path(tempfile.mkdtemp(prefix="easydata-"))
    atexit.register(_delete, folder, os.getpid())
    return folder


def open_temporary(path: Path) -> TokenDataset:
    """The dataset at `path`, which is deleted when nothing refers to the result any more."""
    dataset = open_dataset(path)
    weakref.finalize(dataset, _delete, path, os.getpid())
    return dataset


def _delete(path: Path, owner: int) -> None:
    # A forked child ends, too, and what it has inherited is not its own.
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
