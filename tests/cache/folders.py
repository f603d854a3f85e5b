"""Folders of caches, and what happens to their bytes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from easydata.cache.disk import DiskCache

OLD, NEW = b"old " * 25, b"new " * 25


def value_of(cache: DiskCache, key: str) -> Any:
    """What is stored for a key; None if nothing is."""
    found = cache.get(key)
    return None if found is None else found[0]


def segments(folder: Path, kind: str = "seg") -> list[Path]:
    """Segment files, the oldest first."""
    return sorted([*folder.glob(f"{kind}-*.arrow"), *folder.glob(f"{kind}-*.parquet")])


def overwrite(path: Path, position: int, data: bytes) -> None:
    """Change bytes in place, as a failing disk does: under whoever has mapped them."""
    with path.open("r+b") as file:
        file.seek(position)
        file.write(data)


def spoil(folder: Path, content: bytes) -> None:
    """Flip one bit of the one place where a folder holds some bytes."""
    (path,) = [path for path in folder.glob("*.arrow") if content in path.read_bytes()]
    overwrite(path, path.read_bytes().index(content), bytes([content[0] ^ 1]))


def two_versions(folder: Path, **options: Any) -> Path:
    """A closed cache with two versions of "k" in two segments, and "gone" deleted in the newer;
    the newer segment's file."""
    cache = DiskCache(folder, **options)
    cache.put_many({"k": OLD, "gone": OLD})
    cache.close()
    cache.put("k", NEW)
    cache.close()
    return segments(folder)[-1]


def in_another_process(folder: Path, program: str) -> None:
    """Run a program that has opened a `cache`, and let it die without closing that."""
    start = (
        f"import os; from easydata.cache.disk import DiskCache; cache = DiskCache({str(folder)!r})"
    )
    subprocess.run([sys.executable, "-c", f"{start}\n{program}\nos._exit(0)"], check=True)
