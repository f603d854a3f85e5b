"""fsspec URLs: one file, a folder or a pattern, on any file system that fsspec knows."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from typing import Any

from easydata.errors import MissingDependencyError, SourceError, SourceNotFoundError, UsageError
from easydata.sources.raw import Place
from easydata.sources.retry import Retry

__all__ = ["remote_places"]

_EXTRA_OF_PROTOCOL = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}
_LOOKED_UP = "looked up"


def remote_places(
    url: str, storage_options: Mapping[str, object], retry: Retry
) -> tuple[list[Place], bool]:
    """The files that `url` names, sorted, and whether they were found in a folder.

    Args:
        url: of a file, a folder or a pattern.
        storage_options: for the file system.
        retry: how often the server is asked again, now and when a file is read.

    Raises:
        MissingDependencyError: the package of this file system is not installed.
        SourceNotFoundError: there is no such file, or the pattern matches none.
        SourceError: the server cannot be asked.
        UsageError: fsspec knows no such file system.
    """
    filesystem, path = retry.run(url, lambda: _filesystem(url, storage_options), _LOOKED_UP)
    # File systems live as long as the process, and so does what they remember of folders.
    filesystem.invalidate_cache()
    try:
        return retry.run(url, lambda: _look_up(url, path, filesystem, retry), _LOOKED_UP)
    except NotImplementedError as error:
        raise SourceError(f"{url} cannot be looked up: {error}") from error


def _look_up(url: str, path: str, filesystem: Any, retry: Retry) -> tuple[list[Place], bool]:
    # A query in a web address may hold a "?", so a name that exists comes first.
    if not glob.has_magic(path) or filesystem.exists(path):
        return _named(url, path, filesystem, retry)
    matches = filesystem.glob(path, detail=True)
    files = [match for match, info in matches.items() if info["type"] == "file"]
    if not files:
        raise SourceNotFoundError(f"The pattern {url} matches no file. Check it, and its quotes.")
    return [_place(filesystem, file, retry) for file in sorted(files)], False


def _named(url: str, path: str, filesystem: Any, retry: Retry) -> tuple[list[Place], bool]:
    # Not isfile, which takes a refused login for a missing file.
    if filesystem.info(path)["type"] == "file":
        return [Place(url, path, filesystem, retry)], False
    inside = [(file, file.removeprefix(path)) for file in sorted(filesystem.find(path))]
    return [
        _place(filesystem, file, retry)
        for file, rest in inside
        if not any(part.startswith(".") for part in rest.split("/"))
    ], True


def _place(filesystem: Any, path: str, retry: Retry) -> Place:
    return Place(str(filesystem.unstrip_protocol(path)), path, filesystem, retry)


def _filesystem(url: str, storage_options: Mapping[str, object]) -> tuple[Any, str]:
    # 66 ms to import, and most inputs are local.
    import fsspec

    try:
        filesystem, path = fsspec.core.url_to_fs(url, **storage_options)
    except ImportError as error:
        protocol = url.split(":", 1)[0]
        extra = _EXTRA_OF_PROTOCOL.get(protocol)
        remedy = f"Run: pip install 'easydata[{extra}]'" if extra else str(error)
        raise MissingDependencyError(
            f"Reading {url} needs a package for {protocol}://, which is not installed. {remedy}"
        ) from error
    except ValueError as error:
        raise UsageError(f"{url} is no address that fsspec knows: {error}") from error
    return filesystem, str(path)
