"""Trying again what a server did not answer, and files that are read on where they broke off."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import numbers
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from easydata.errors import SourceError, SourceNotFoundError, UsageError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["RemoteFile", "Retry", "check_retry"]

_log = logging.getLogger("easydata")
_MAX_DELAY_SECONDS = 60.0
_SKIP_BYTES = 1 << 20
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
# Network errors of libraries under fsspec that are no OSError, by the module they are found in.
_FOREIGN = {
    "aiohttp": "ClientError",
    "botocore.exceptions": "BotoCoreError",
    "gcsfs.retry": "HttpError",
}
_NOT_FOUND = 404
# "Request timeout" and "too many requests", which pass.
_PASSING_STATUS = (408, 429)
# What tells the content of a file apart, in the words of several file systems.
_VERSION = ("size", "ETag", "etag", "generation", "mtime")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Retry:
    """How often a server is asked again, and when.

    Attributes:
        retries: how often after the first failure; each success starts the count anew.
        delay: seconds before the first retry; doubles with each, up to a minute.
    """

    retries: int = 0
    delay: float = 0.0

    def run(self, name: str, action: Callable[[], Result], what: str = "read") -> Result:
        """The result of `action`, called again while it fails for want of an answer.

        Args:
            name: the address, for messages.
            action: asks the server.
            what: is done to the address: "read", "looked up".

        Raises:
            SourceNotFoundError: there is no such file.
            SourceError: the server refuses, or the last call failed too.
        """
        failures = 0
        while True:
            try:
                return action()
            except _network_errors() as raised:
                failures += 1
                error = _cause_of(raised)
                if isinstance(error, FileNotFoundError):
                    raise SourceNotFoundError(
                        f"{name} does not exist. Check the address."
                    ) from raised
                why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                if failures > self.retries or _is_final(error):
                    tried = f" after {failures} attempts" if failures > 1 else ""
                    raise SourceError(f"{name} cannot be {what}{tried}: {why}.") from raised
                seconds = min(self.delay * 2 ** (failures - 1), _MAX_DELAY_SECONDS)
                report = "%s cannot be %s: %s. Retry %d of %d in %g s."
                _log.warning(report, name, what, why, failures, self.retries, seconds)
            time.sleep(seconds)


def check_retry(retries: Any, delay: Any) -> Retry:
    """The arguments `retries` and `retry_delay` as a `Retry`.

    Raises:
        UsageError: one of them is no such number.
    """
    if not isinstance(retries, int) or isinstance(retries, bool) or retries < 0:
        raise UsageError(f"retries is {retries!r}; give a whole number, 0 or more.")
    is_number = isinstance(delay, numbers.Real) and not isinstance(delay, bool)
    if not is_number or not math.isfinite(delay) or delay < 0:
        raise UsageError(f"retry_delay is {delay!r}; give a number of seconds, 0 or more.")
    return Retry(retries, float(delay))


class RemoteFile(io.RawIOBase):
    """A file behind an fsspec file system, opened again where a read breaks off.

    Args:
        name: the address, for messages.
        path: the path inside `filesystem`.
        filesystem: an fsspec file system.
        retry: how often a read is tried again.

    Raises:
        SourceNotFoundError: it is not there; from reads too.
        SourceError: it cannot be opened or read, or is another file when it is opened again.
    """

    def __init__(self, name: str, path: str, filesystem: Any, retry: Retry) -> None:
        super().__init__()
        self._name = name
        self._path = path
        self._filesystem = filesystem
        self._retry = retry
        self._info: Mapping[str, Any] | None = None
        self._file: Any = None
        self._file_at = 0
        self._position = 0
        retry.run(name, self._opened)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset += self._retry.run(self._name, self._find_end)
        elif whence == io.SEEK_CUR:
            offset += self._position
        self._position = offset
        return offset

    def readinto(self, buffer: Buffer) -> int:
        rest = memoryview(buffer).cast("B")
        # A reader of tables takes a short answer for the end of the file.
        while rest:
            count = self._retry.run(self._name, partial(self._read, rest))
            if not count:
                break
            rest = rest[count:]
        return memoryview(buffer).nbytes - len(rest)

    def close(self) -> None:
        if not self.closed:
            self._drop()
        super().close()

    def _read(self, buffer: memoryview) -> int:
        with self._attempt() as file:
            self._move(file)
            count = int(file.readinto(buffer))
        self._position += count
        self._file_at = self._position
        return count

    def _find_end(self) -> int:
        with self._attempt() as file:
            self._file_at = int(file.seek(0, io.SEEK_END))
        return self._file_at

    @contextlib.contextmanager
    def _attempt(self) -> Iterator[Any]:
        """The open file; if what is done with it fails, it will be opened anew."""
        try:
            yield self._opened()
        except ValueError as error:
            # This is how file systems say that a server sends no parts of a file.
            self._drop()
            raise SourceError(
                f"{self._name} cannot be read: {error} Or download the file first."
            ) from error
        except Exception:
            self._drop()
            raise

    def _opened(self) -> Any:
        if self._file is None:
            if self._info is not None:
                self._filesystem.invalidate_cache(self._path)
            info = self._filesystem.info(self._path)
            if self._info is None:
                self._info = info
            elif any(info.get(key, told) != told for key, told in _version(self._info)):
                raise SourceError(
                    f"{self._name} changed while it was read. Read it again from the start."
                )
            self._file = self._filesystem.open(self._path, "rb")
            self._file_at = 0
        return self._file

    def _move(self, file: Any) -> None:
        if self._file_at == self._position:
            return
        try:
            file.seek(self._position)
        except ValueError:
            # A server that sends a file only as a whole, from its start.
            if self._file_at > self._position:
                raise
            self._skip(file)
        self._file_at = self._position

    def _skip(self, file: Any) -> None:
        while self._file_at < self._position:
            skipped = file.read(min(self._position - self._file_at, _SKIP_BYTES))
            if not skipped:
                raise OSError(f"the file ended after {self._file_at} bytes")
            self._file_at += len(skipped)

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            # It may have failed already, which was said then; nothing that was read is lost.
            with contextlib.suppress(*_network_errors()):
                file.close()


def _version(info: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [(key, info[key]) for key in _VERSION if key in info]


def _network_errors() -> tuple[type[Exception], ...]:
    foreign = (
        getattr(sys.modules[module], name)
        for module, name in _FOREIGN.items()
        if module in sys.modules
    )
    return OSError, *foreign


def _cause_of(error: Exception) -> Exception:
    """What is behind `error`: the HTTP file system calls any failure a missing file."""
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and isinstance(cause, _network_errors()):
        return error if getattr(cause, "status", None) == _NOT_FOUND else cause
    return error


def _is_final(error: Exception) -> bool:
    """Whether the server said no, so that asking again is of no use."""
    status = getattr(error, "status", None)
    refused = isinstance(status, int) and 400 <= status < 500
    return isinstance(error, _FINAL) or (refused and status not in _PASSING_STATUS)
