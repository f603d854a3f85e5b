"""A cache that another process has open, driven from a test call by call."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from easydata.cache import clock
from easydata.cache.disk import DiskCache
from easydata.cache.log import growing, pieces
from easydata.cache.tree import TreeCacheManager

__all__ = ["PATIENCE_SECONDS", "Elsewhere", "make_small"]

PATIENCE_SECONDS = 60  # for a test that fails; none that passes waits for it

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["__main__", "tests.cache.elsewhere"])


def make_small(path: str, is_tree: bool, options: dict[str, Any]) -> DiskCache | TreeCacheManager:
    """A cache whose segments are so small that there are always many."""
    growing._CAPACITIES = (16, 16)  # type: ignore[assignment]
    pieces.LARGE_BYTES, pieces.PIECE_BYTES = 3000, 1000
    if is_tree:
        return TreeCacheManager(path, memory_size=3, disk_expiry=None, **options)
    return DiskCache(path, **options)


class Elsewhere:
    """Another process and its cache. It dies with this object's `kill`, without closing that."""

    def __init__(self, make: Callable[..., Any] | None = None, *args: Any) -> None:
        """
        Args:
            make: what makes the cache; importable. None to call `make` later.
            args: of it.
        """
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        if make is not None:
            self.make(make, *args)

    def make(self, make: Callable[..., Any], *args: Any, now: int | None = None) -> None:
        """Open a cache, in place of the one that is open.

        Args:
            make: what makes it; importable.
            args: of it.
            now: what its clock shows; None for the real one.
        """
        self._pipe.send((None, make, args, {}, now))
        self.result()

    @property
    def is_dead(self) -> bool:
        """True after `kill`."""
        return self._pipe.closed

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def start(self, name: str, *args: Any, now: int | None = None, **kwargs: Any) -> None:
        """Begin a call of a method."""
        self._pipe.send((name, None, args, kwargs, now))

    def result(self) -> Any:
        """What the call that was begun returned.

        Raises:
            Exception: what it raised.
        """
        assert self._pipe.poll(PATIENCE_SECONDS), "the other process does not answer"
        raised, found = self._pipe.recv()
        if raised:
            raise found
        return found

    def call(self, name: str, *args: Any, now: int | None = None, **kwargs: Any) -> Any:
        """Call a method, or read an attribute."""
        self.start(name, *args, now=now, **kwargs)
        return self.result()

    def kill(self) -> None:
        """End it at whatever it is doing. Nothing happens the second time."""
        if not self._pipe.closed:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._pipe.close()


def _serve(pipe: Connection) -> None:
    cache: Any = None
    while True:
        try:
            name, make, args, kwargs, now = pipe.recv()
        except EOFError:
            return
        if now is not None:
            clock.now = lambda now=now: now  # type: ignore[misc]
        try:
            if name is None:
                found = None
                cache = make(*args)
            else:
                found = getattr(cache, name)
                if callable(found):
                    found = found(*args, **kwargs)
        except BaseException as error:
            pipe.send((True, error))
        else:
            pipe.send((False, found))
