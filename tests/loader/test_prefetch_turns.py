"""The reader runs whenever a thread that reads ahead lets go of their lock."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from easydata.loader import prefetch
from easydata.loader.prefetch import Prefetcher


class Turns(threading.Condition):
    """After every notification, its thread goes on only when the reader waits or has left."""

    def __init__(self, lock: threading.RLock) -> None:  # type: ignore[valid-type]
        super().__init__(lock)
        self._reader = threading.current_thread()
        self._is_done = threading.Event()
        self._is_done.set()

    def wait(self, timeout: float | None = None) -> bool:
        if threading.current_thread() is self._reader:
            self._is_done.set()
        return super().wait(timeout)

    def notify_all(self) -> None:
        if threading.current_thread() is not self._reader:
            self._is_done.clear()
        super().notify_all()

    def __enter__(self) -> bool:
        # Ctrl-C in here, after the lock was taken, would keep it held.
        assert threading.current_thread() is not self._reader
        return super().__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        assert self._is_done.wait(60)

    def leave(self) -> None:
        """The reader does."""
        self._is_done.set()


class Shared(prefetch._Shared[Any, Any]):
    _changed: Turns

    def next(self) -> Any:
        try:
            return super().next()
        finally:
            self._changed.leave()

    def close(self) -> None:
        super().close()
        self._changed.leave()


def items_that_break() -> Iterator[int]:
    yield 1
    raise KeyError("two")


def test_an_error_of_the_items_is_never_taken_for_their_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        prefetch, "threading", SimpleNamespace(**{**vars(threading), "Condition": Turns})
    )
    monkeypatch.setattr(prefetch, "_Shared", Shared)
    ahead = Prefetcher(abs, items_that_break(), workers=1, buffer_size=2)
    assert next(ahead) == 1
    with pytest.raises(KeyError, match="two"):
        next(ahead)
    assert list(Prefetcher(abs, range(5), workers=1, buffer_size=2)) == list(range(5))
