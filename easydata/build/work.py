"""The work folder of a build: finished parts, hidden in the output folder until it is complete."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from easydata._fs import exclusive, storage_errors
from easydata.errors import StorageError
from easydata.format.directory import WORK_FOLDER

__all__ = ["discard_work", "work_folder"]


@contextlib.contextmanager
def work_folder(out: Path, recipe: str) -> Iterator[Path]:
    """A folder for what one build has finished, locked against other builds at `out`.

    It is removed when the block ends well. After an error it stays, if there is anything in it
    to continue from; a folder that holds nothing is removed, and `out` too if it was not there.

    Args:
        out: the dataset directory; made if it is missing.
        recipe: identity of what is built. Only the same build continues from the folder.

    Raises:
        StorageError: the folder cannot be made.
    """
    existed = out.exists()
    base = out / WORK_FOLDER
    work = base / recipe
    lock = base / "lock"
    with storage_errors(work, "make"):
        work.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(lock, on_wait=f"Waiting for another build that writes to {out} …"):
            # The build that was waited for has removed the folder if it succeeded.
            work.mkdir(parents=True, exist_ok=True)
            yield work
            # The lock goes last: whoever waits for it may have it as soon as it is gone.
            for path in base.iterdir():
                if path != lock:
                    shutil.rmtree(path, ignore_errors=True)
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)
                base.rmdir()
    except BaseException:
        with contextlib.suppress(OSError):
            if not any(path.is_file() for path in work.rglob("*")):
                shutil.rmtree(work)
            if not any(path.is_dir() for path in base.iterdir()):
                lock.unlink(missing_ok=True)
                base.rmdir()
                if not existed:
                    out.rmdir()
        raise


def discard_work(out: Path, recipe: str, finish: Callable[[], None]) -> None:
    """Remove what a build that was killed right after its commit left; the dataset is complete.

    Args:
        out: the dataset directory.
        recipe: identity of what was built.
        finish: does what that build had no time for; called if there is such a build.
    """
    base = out / WORK_FOLDER
    if not (base / recipe).exists():
        return
    # A folder that may only be read is as good with what was left in it.
    with (
        contextlib.suppress(StorageError),
        exclusive(base / "lock", on_wait=f"Waiting for another build that writes to {out} …"),
    ):
        finish()
        shutil.rmtree(base / recipe, ignore_errors=True)
        if not any(path.is_dir() for path in base.iterdir()):
            shutil.rmtree(base, ignore_errors=True)
