"""The raw bytes of a file, local or behind an fsspec URL, hashed while they are read."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import urlsplit

from easydata.errors import SourceError, SourceNotFoundError
from easydata.fingerprint import Hasher
from easydata.fingerprint.files import FileStamp
from easydata.sources.retry import RemoteFile, Retry

if TYPE_CHECKING:
    from typing_extensions import Buffer


__all__ = ["READ_BYTES", "HashedFile", "Place", "hash_open", "read_hash"]

READ_BYTES = 1 << 20

Result = TypeVar("Result")


@dataclass(frozen=True)
class Place:
    """Where the bytes of one file are.

    Attributes:
        name: the path as it was given, for messages.
        path: the path, or the path inside `filesystem`.
        filesystem: an fsspec file system; None for a local file.
        retry: how often it is asked again when it does not answer.
    """

    name: str
    path: str
    filesystem: Any = None
    retry: Retry = Retry()  # noqa: RUF009 - frozen

    @property
    def identity(self) -> str:
        """Equal for two names of one file."""
        if self.filesystem is None:
            return os.path.realpath(self.path)
        return str(self.filesystem.unstrip_protocol(self.path))

    @property
    def file_name(self) -> str:
        """The path without what a web address may say after it: "?token=…"."""
        is_web = self.path.startswith(("http://", "https://"))
        return urlsplit(self.path).path if is_web else self.path

    def size(self) -> int | None:
        """Raw bytes; None where the server does not say."""
        if self.filesystem is None:
            return int(self._local(Path(self.path).stat).st_size)
        size = self.info().get("size")
        return None if size is None else int(size)

    def stamp(self, *, fresh: bool = False) -> FileStamp:
        """What tells whether the file is still the same, without reading it.

        Args:
            fresh: ask the server. Else a remote file may be described as it was when its folder
                was listed.
        """
        if self.filesystem is None:
            return self._local(lambda: FileStamp.of_local(self.path))
        if fresh:
            self.filesystem.invalidate_cache(self.path)
        return FileStamp.of_info(self.identity, self.info())

    def info(self) -> Mapping[str, Any]:
        """What `filesystem` says about the file."""
        found: Mapping[str, Any] = self.retry.run(
            self.name, lambda: self.filesystem.info(self.path)
        )
        return found

    def open(self) -> BinaryIO:
        """Open for reading, unbuffered.

        Raises:
            SourceNotFoundError: it is gone.
            SourceError: it cannot be opened.
        """
        if self.filesystem is None:
            return self._local(lambda: cast("BinaryIO", Path(self.path).open("rb", buffering=0)))
        return cast("BinaryIO", RemoteFile(self.name, self.path, self.filesystem, self.retry))

    def _local(self, action: Callable[[], Result]) -> Result:
        try:
            return action()
        except OSError as error:
            raise _unreadable(self.name, error) from error


class HashedFile(io.RawIOBase):
    """A file read from its first byte to its last, with the hash of what was read.

    Wrap it in `io.BufferedReader`: large reads then pass straight through to the file.
    """

    def __init__(self, place: Place) -> None:
        super().__init__()
        self._name = place.name
        self._file = place.open()
        self._hasher = Hasher()
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        try:
            count = int(cast("Any", self._file).readinto(buffer))
        except OSError as error:
            raise _unreadable(self._name, error) from error
        self._hasher.update(memoryview(buffer)[:count])
        self.bytes_read += count
        return count

    def finish(self) -> str:
        """Read what is left (bytes after a compressed stream) and return the hash of it all."""
        buffer = bytearray(READ_BYTES)
        while self.readinto(buffer):
            pass
        return self._hasher.hexdigest()

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def read_hash(place: Place) -> str:
    """XXH3-128 of the raw bytes of a file, as 32 hexadecimal digits."""
    with HashedFile(place) as file:
        return file.finish()


def hash_open(file: Any, name: str) -> str:
    """As `read_hash`, of a file that is open for reading at any place; it stays open."""
    hasher = Hasher()
    try:
        file.seek(0)
        while block := file.read(READ_BYTES):
            hasher.update(block)
    except OSError as error:
        raise _unreadable(name, error) from error
    return hasher.hexdigest()


def _unreadable(name: str, error: OSError) -> SourceError:
    why = error.strerror or str(error) or type(error).__name__
    if isinstance(error, FileNotFoundError):
        return SourceNotFoundError(f"{name} does not exist. Check the path.")
    return SourceError(f"{name} cannot be read: {why}.")
