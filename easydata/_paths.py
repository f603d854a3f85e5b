"""What a caller gives as the path of a folder."""

from __future__ import annotations

import os
from pathlib import Path

from easydata.errors import UsageError

__all__ = ["local_folder"]


def local_folder(path: object, *, name: str) -> Path:
    """The path of a folder of this machine, which need not be there.

    Args:
        path: what the caller gave.
        name: what the message calls it.

    Raises:
        UsageError: it is no path, or a URL.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{name} is {path!r}; give the path of a folder.")
    if "://" in text:
        raise UsageError(
            f"{name} is {text!r}; give a folder of a local disk. Where it is not on one, copy it."
        )
    return Path(text)
