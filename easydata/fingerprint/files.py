"""Identities of files: by their content, or by what the file system says of them.

Only the content never misses an edit. Size and times miss one that keeps both: a tool that sets
the time of modification back, a file system with coarse clocks, a store that reports neither.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from easydata.errors import SourceNotFoundError, UsageError
from easydata.fingerprint.canonical import canonical_hash
from easydata.fingerprint.hashing import Hasher

__all__ = ["FileStamp", "HashMode", "fingerprint_file"]

HashMode = Literal["combined", "content", "path"]

_PATH = b"easydata path 1\n"
_BLOCK_BYTES = 4 << 20
_SETTLED_NS = 2_000_000_000
# What stores call them, the most telling first: a tag follows from the content, a time does not.
_MODIFIED = (
    *("ETag", "etag", "md5Hash", "content_md5", "md5", "checksum", "ChecksumCRC32"),
    *("sha", "blob_id", "generation", "version_id", "VersionId", "LastModified"),
    *("last_modified", "Last-Modified", "updated", "modified", "modify", "mtime", "created"),
)


@dataclass(frozen=True)
class FileStamp:
    """What a file system says of a file, which needs no reading.

    Attributes:
        location: absolute path with links resolved, or URL.
        size: bytes, None if unknown.
        modified: time of modification in nanoseconds for a local file; for another one the tag
            or time that its store gives; "" if there is none.
        change: time of the last change of the inode in nanoseconds and its number, for a local
            file: it shows an edit whose time of modification was set back. "" for another one.
    """

    location: str
    size: int | None
    modified: str
    change: str = ""

    @classmethod
    def of_local(cls, path: str | os.PathLike[str]) -> FileStamp:
        """The stamp of a local file, now.

        Raises:
            SourceNotFoundError: there is no such file.
        """
        where = Path(path).resolve()
        try:
            found = where.stat()
        except FileNotFoundError as error:
            raise SourceNotFoundError(f"{where} does not exist.") from error
        change = f"{found.st_ctime_ns} {found.st_ino}"
        return cls(str(where), found.st_size, str(found.st_mtime_ns), change)

    @classmethod
    def of_info(cls, url: str, info: Mapping[str, Any]) -> FileStamp:
        """The stamp of a file from what its fsspec file system's `info` gives."""
        size = info.get("size")
        told = ((name, info.get(name)) for name in _MODIFIED)
        texts = (f"{name} {_text(value)}" for name, value in told if value or value == 0)
        return cls(url, None if size is None else int(size), next(texts, ""))

    @property
    def path_fingerprint(self) -> str | None:
        """Identity of location, size and `modified`; None where nothing says when it changed.

        An edit that keeps all three is missed.
        """
        if not self.modified:
            return None
        return canonical_hash(_PATH, "stamp", (self.location, self.size, self.modified))

    def matches(self, other: FileStamp) -> bool:
        """Whether both say the same, and say when the file changed."""
        return bool(self.modified) and self == other

    def is_settled(self, now_ns: int) -> bool:
        """Whether an edit after `now_ns` must show in the stamp of a local file.

        Within 2 s of a change another one may fall into the same tick of the file system's
        clock. The stamp of a remote file has no such time: True.

        Args:
            now_ns: when the content was read, in nanoseconds since 1970.
        """
        if not self.change:
            return True
        changed = max(int(self.modified), int(self.change.partition(" ")[0]))
        return changed + _SETTLED_NS <= now_ns

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FileStamp:
        """The stamp that `to_json` wrote.

        Raises:
            KeyError: something is missing.
        """
        return cls(value["location"], value["size"], value["modified"], value["change"])


def fingerprint_file(
    path: str | os.PathLike[str],
    mode: HashMode = "content",
    *,
    known: tuple[FileStamp, str] | None = None,
) -> str:
    """Identity of a local file, 32 hexadecimal digits.

    Args:
        path: the file.
        mode: "content" reads all of it and never misses an edit. "path" is the stamp's
            `path_fingerprint`: nothing is read, and a copy of the file has another identity.
            "combined" is the content's identity, taken from `known` where the file's stamp is
            still that one; like "path" it can miss an edit that keeps size and times.
        known: for "combined", the stamp and content fingerprint of an earlier reading. Keep
            only stamps that were settled (`FileStamp.is_settled`) when the reading began.

    Raises:
        SourceNotFoundError: there is no such file.
        UsageError: the mode is unknown, or `known` is given with another mode.
    """
    if mode not in get_args(HashMode):
        raise UsageError(f"mode is {mode!r}; it must be one of {', '.join(get_args(HashMode))}.")
    if known is not None and mode != "combined":
        raise UsageError(f"known is given, but mode={mode!r} does not use it. Leave it out.")
    if mode == "content":
        return _content(path)
    stamp = FileStamp.of_local(path)
    if mode == "path":
        return canonical_hash(_PATH, "stamp", (stamp.location, stamp.size, stamp.modified))
    if known is not None and known[0].matches(stamp) and stamp.is_settled(time.time_ns()):
        return known[1]
    return _content(path)


def _content(path: str | os.PathLike[str]) -> str:
    hasher = Hasher()
    block = memoryview(bytearray(_BLOCK_BYTES))
    try:
        with Path(path).open("rb", buffering=0) as file:
            while count := file.readinto(block):
                hasher.update(block[:count])
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{Path(path)} does not exist.") from error
    return hasher.hexdigest()


def _text(value: object) -> str:
    if isinstance(value, dt.datetime):
        return value.isoformat(timespec="microseconds")
    return value.hex() if isinstance(value, bytes | bytearray) else str(value)
