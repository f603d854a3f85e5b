"""Processes that share a folder see at once what the others did, after a fork or a copy, too."""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from easydata.cache.disk import DiskCache
from easydata.cache.layer import CacheLayer
from easydata.cache.tree import TreeCacheManager
from tests.cache.elsewhere import PATIENCE_SECONDS, Elsewhere


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def start() -> Iterator[Callable[..., Elsewhere]]:
    started: list[Elsewhere] = []

    def start(*args: Any) -> Elsewhere:
        started.append(Elsewhere(*args))
        return started[-1]

    yield start
    for other in started:
        other.kill()


@pytest.mark.parametrize("layer", [DiskCache, TreeCacheManager])
class TestCoherence:
    def test_each_sees_at_once_what_the_other_did(
        self, folder: Path, layer: type[CacheLayer], start: Callable[..., Elsewhere]
    ) -> None:
        other = start(layer, folder)
        cache: Any = layer(folder)  # type: ignore[call-arg]
        for number in range(300):
            other.call("put", "k", number)
            assert cache.get("k") == (number, None)
            cache.put("k", -number)
            assert other.call("get", "k") == (-number, None)
            if number % 10 == 0:
                other.call("invalidate", "k")
                assert cache.get("k") is None
                assert not cache.contains("k")
            if number % 50 == 0:
                cache.put("k", [number])
                other.call("compact")
                assert cache.get("k") == ([number], None)
                cache.invalidate()
                assert other.call("get", "k") is None
                other.call("close")

    def test_after_a_fork_both_go_on(self, folder: Path, layer: type[CacheLayer]) -> None:
        cache: Any = layer(folder)  # type: ignore[call-arg]
        cache.put_many({"a": 1, "b": [2]})
        context = multiprocessing.get_context("fork")
        children = [
            context.Process(target=_use_after_fork, args=(cache, number)) for number in range(3)
        ]
        for child in children:
            child.start()
        for number in range(300):
            cache.put(f"parent {number}", number)
        for child in children:
            child.join(PATIENCE_SECONDS)
            assert child.exitcode == 0
            child.close()
        cache.put("c", 3)
        for opened in (cache, layer(folder)):  # type: ignore[call-arg]
            assert len(opened.keys("child")) == 900
            assert len(opened.keys("parent")) == 300
            assert opened.get("child 2 of 299") == ({"ids": [299]}, None)
            assert opened.get("c") == (3, None)
        cache.close()
        cache.compact()
        assert len(cache) == 1203
        assert not list(folder.glob("log-*"))

    def test_the_lock_of_a_parent_ends_with_it(self, folder: Path, layer: type[CacheLayer]) -> None:
        """A child of a fork that lives on must not keep the parent's segments growing."""
        cache: Any = layer(folder)  # type: ignore[call-arg]
        cache.put("a", 1)
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe()
        child = context.Process(target=_wait, args=(theirs,))
        child.start()
        try:
            assert ours.recv() == "here"
            cache.close()
            cache.compact()
            assert not list(folder.glob("log-*"))
        finally:
            ours.send(None)
            child.join()

    def test_a_copy_in_a_spawned_process(self, folder: Path, layer: type[CacheLayer]) -> None:
        cache: Any = layer(folder, compression="zstd")  # type: ignore[call-arg]
        cache.put("a", 1)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            assert pool.apply(_put_and_get, (cache, "b", [2])) == (1, None)
        assert cache.get("b") == ([2], None)

    def test_pickling_keeps_the_options(self, folder: Path, layer: type[CacheLayer]) -> None:
        with layer(folder) as cache:  # type: ignore[call-arg]
            cache.put("a", 1)
        reader: Any = layer(folder, readonly=True)  # type: ignore[call-arg]
        copied = pickle.loads(pickle.dumps(reader))
        assert copied.get("a") == (1, None)
        assert copied.lock_path is None
        before = os.getcwd()
        os.chdir(folder)
        try:
            relative = layer(".")  # type: ignore[call-arg]
            data = pickle.dumps(relative)
            os.chdir("/")
            assert pickle.loads(data).get("a") == (1, None)
        finally:
            os.chdir(before)


def _use_after_fork(cache: Any, me: int) -> None:
    assert cache.get("a") == (1, None)
    for number in range(300):
        cache.put(f"child {me} of {number}", {"ids": [number]})
        assert cache.get(f"child {me} of {number}") == ({"ids": [number]}, None)
        assert cache.get("b") == ([2], None)
    if me:
        cache.close()
    os._exit(0)


def _wait(pipe: Connection) -> None:
    pipe.send("here")
    pipe.recv()
    os._exit(0)


def _put_and_get(cache: Any, key: str, value: Any) -> Any:
    cache.put(key, value)
    return cache.get("a")
