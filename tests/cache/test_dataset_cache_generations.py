"""DatasetCache under others: readers of old generations, kills, damage, full disks."""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, Sequence, Value

import easydata as ed
from easydata.cache.dataset_cache import DatasetCache
from easydata.cache.datasets import writing
from easydata.cache.datasets.leases import remove_unheld, take
from easydata.cache.datasets.names import entry_name
from tests.cache.elsewhere import Elsewhere
from tests.full_disk import full_disk

FEATURES = Features({"input_ids": Sequence(Value("int32"))})

# For each n: a child puts a dataset and kills itself at the nth call of a function that writes.
# Prints what is there then, and what is left after one more put.
KILLED = """
import json, os, signal, sys
from pathlib import Path
import datasets
import pyarrow as pa
from easydata.cache.dataset_cache import DatasetCache
from easydata.cache.datasets import entry, writing

def deadly(function, last):
    def wrapper(*args, **kwargs):
        last[0] -= 1
        if not last[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return wrapper

writing.BATCH_BYTES, writing.SHARD_BYTES = 1000, 4000
old, new = ([{"input_ids": [first + i, 2]} for i in range(n)] for first, n in ((500, 10), (0, 300)))
root = Path(sys.argv[1])
for number in range(1, 1000):
    DatasetCache(root).put("k", pa.Table.from_pylist(old))
    child = os.fork()
    if not child:
        last = [number]
        for owner, name in (
            (entry.Entry, "begin"), (entry, "take"), (writing._ShardFiles, "write"), (os, "fsync"),
            (os, "replace"), (writing, "write_state"), (entry, "sync_directory"), (os, "rename"),
            (entry.Entry, "collect"), (entry, "remove_unheld"), (Path, "mkdir"), (Path, "replace"),
        ):
            setattr(owner, name, deadly(getattr(owner, name), last))
        DatasetCache(root).put("k", pa.Table.from_pylist(new))
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    found = DatasetCache(root, verify="open").get("k").to_list()
    which = "old" if found == old else "new" if found == new else "wrong"
    DatasetCache(root).put("k", pa.Table.from_pylist(old))
    left = sorted(path.name.split("-")[0] for path in root.glob("k-*/*"))
    print(json.dumps([os.waitstatus_to_exitcode(status), which, left]))
    if not status:
        break
"""


def tokens(first: int, rows: int = 1000) -> Dataset:
    return Dataset.from_dict({"input_ids": [[first + i] for i in range(rows)]}, features=FEATURES)


def firsts(dataset: Any) -> list[int]:
    """The first token of each row."""
    return [ids[0] for ids in dataset.data.table["input_ids"].to_pylist()]


def folders(cache_dir: Path, pattern: str = "generation-*") -> list[Path]:
    return sorted(cache_dir.glob(f"*/{pattern}"))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many batches and shards."""
    monkeypatch.setattr(writing, "BATCH_BYTES", 1000)
    monkeypatch.setattr(writing, "SHARD_BYTES", 4000)


@pytest.mark.usefixtures("small")
class TestReaders:
    def test_old_generations_live_as_long_as_their_readers(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0))
        found, opened, path = cache.get("k"), cache.open("k"), cache.path("k")
        assert len(list(path.glob("data-*"))) > 1
        cache.put("k", tokens(5000))
        DatasetCache(tmp_path).invalidate()
        assert cache.get("k") is None
        assert firsts(found) == opened.column("input_ids").combine_chunks().values.to_pylist()
        assert firsts(pickle.loads(pickle.dumps(found))) == list(range(1000))
        derived = found.select(range(10, 20)).with_format("arrow")
        column = found.data.table["input_ids"].chunk(3)
        values = column.values.to_pylist()
        assert len(folders(tmp_path)) == 1
        del found, opened
        cache.close()
        DatasetCache(tmp_path)
        assert folders(tmp_path) == [path.parent / path.name]
        del derived
        gc.collect()
        DatasetCache(tmp_path)
        assert folders(tmp_path) == []
        assert column.values.to_pylist() == values  # mapped, it needs no name any more
        assert [item.name for item in tmp_path.iterdir() if item.is_dir()] == []

    def test_readers_that_opened_before_read_each_shard_after(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0))
        opened = cache.open("k")
        for first in (5000, 6000):
            cache.put("k", tokens(first))
        cache.invalidate("k")
        assert opened.tokens(0, 1000).tolist() == list(range(1000))

    def test_another_process_replaces_what_is_read_here(self, tmp_path: Path) -> None:
        cache, other = DatasetCache(tmp_path), Elsewhere(DatasetCache, str(tmp_path))
        try:
            cache.put("k", tokens(0))
            opened = cache.open("k")
            other.call("put", "k", tokens(7000))
            assert firsts(cache.get("k"))[0] == 7000
            other.call("invalidate")
            assert opened.tokens(0, 1000).tolist() == list(range(1000))
            assert len(folders(tmp_path)) == 1
            del opened
            gc.collect()
            other.call("put", "k", tokens(8000))
            assert len(folders(tmp_path)) == 1
            assert firsts(cache.get("k"))[0] == 8000
        finally:
            other.kill()

    def test_the_child_of_a_fork_keeps_it(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0))
        opened = cache.open("k")
        here, there = multiprocessing.Pipe()
        child = os.fork()
        if not child:  # pragma: no cover - another process
            try:
                there.recv()
                there.send(opened.tokens(0, 1000).tolist())
            finally:
                os._exit(0)
        try:
            del opened
            gc.collect()
            cache.put("k", tokens(5000))
            assert len(folders(tmp_path)) == 2
            here.send("go")
            assert here.poll(60)
            assert here.recv() == list(range(1000))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        cache.put("k", tokens(6000))
        assert len(folders(tmp_path)) == 1

    def test_over_itself(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0))
        before = cache.get("k")._fingerprint
        cache.put("k", cache.get("k"))
        assert firsts(cache.get("k")) == list(range(1000))
        assert cache.get("k")._fingerprint == before
        cache.put("k", DatasetDict({"a": cache.get("k"), "b": cache.get("k").select([3])}))
        assert firsts(cache.get("k")["b"]) == [3]
        gc.collect()
        cache.put("k", cache.get("k")["a"].select([5, 1]))
        assert firsts(cache.get("k")) == [5, 1]
        DatasetCache(tmp_path)
        assert len(folders(tmp_path)) == 1


def test_only_what_is_neither_wanted_nor_held_is_removed(tmp_path: Path) -> None:
    generation = tmp_path / "generation"
    generation.mkdir()
    lease = take(generation, create=True)
    assert lease is not None
    for is_wanted in (True, False):
        remove_unheld(generation, lambda answer=is_wanted: answer)  # type: ignore[misc]
        assert generation.exists()
    lease.close()
    remove_unheld(generation, lambda: True)
    assert generation.exists()
    remove_unheld(generation, lambda: False)
    assert list(tmp_path.iterdir()) == []
    assert take(generation) is None


class TestWriters:
    def test_killed_anywhere_the_old_or_the_new_is_there(self, tmp_path: Path) -> None:
        result = subprocess.run(
            [sys.executable, "-c", KILLED, str(tmp_path)],
            capture_output=True,
            text=True,
            check=True,
        )
        lines = [json.loads(line) for line in result.stdout.splitlines()]
        assert [code for code, _, _ in lines] == [-signal.SIGKILL] * (len(lines) - 1) + [0]
        assert all(left == ["easydata", "generation"] for _, _, left in lines)
        outcomes = [which for _, which, _ in lines]
        first = outcomes.index("new")
        assert outcomes == ["old"] * first + ["new"] * (len(lines) - first)
        assert first > 15
        assert len(lines) - first > 3

    def test_two_at_once(self, tmp_path: Path) -> None:
        others = [Elsewhere(DatasetCache, str(tmp_path)) for _ in range(2)]
        try:
            for _ in range(8):
                for number, other in enumerate(others):
                    other.start("put", "k", tokens(1000 * number))
                for other in others:
                    other.result()
                found = firsts(DatasetCache(tmp_path).get("k"))
                assert found in (list(range(1000)), list(range(1000, 2000)))
                assert len(folders(tmp_path)) == 1
        finally:
            for other in others:
                other.kill()

    def test_puts_and_invalidations_of_threads(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        errors: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for step in range(6):
                    cache.put("k", tokens(1000 * number, 20))
                    found = cache.get("k")
                    if found is not None:
                        start = firsts(found)[0]
                        assert firsts(found) == list(range(start, start + 20))
                    if step % 2:
                        cache.invalidate("k" if number else None)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        cache.put("k", tokens(0))
        gc.collect()
        cache.put("k", tokens(1))
        assert len(folders(tmp_path)) == 1

    def test_a_full_disk(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0))
        with full_disk(2000), pytest.raises(ed.StorageError, match="full"):
            cache.put("k", tokens(5000))
        assert firsts(cache.get("k")) == list(range(1000))
        assert len(folders(tmp_path)) == 1
        value = tokens(0)
        with full_disk(2000), pytest.warns(RuntimeWarning, match="computed but not stored"):
            found = cache.get_or_compute("other", lambda: value)
        assert found is value
        batches = iter(value.data.table.to_batches())
        with full_disk(2000), pytest.raises(ed.StorageError, match="full"):
            cache.get_or_compute("other", lambda: batches)
        assert cache.keys() == ["k"]

    def test_read_only(self, tmp_path: Path) -> None:
        DatasetCache(tmp_path).put("k", tokens(0))
        before = sorted(tmp_path.rglob("*"))
        cache = DatasetCache(tmp_path, readonly=True)
        assert firsts(cache.get("k")) == list(range(1000))
        assert len(cache.open("k")) == 1000
        for call in (lambda: cache.put("k", tokens(1)), cache.invalidate):
            with pytest.raises(ed.StorageError, match="readonly=True"):
                call()
        value = tokens(5)
        with pytest.warns(RuntimeWarning, match="not stored"):
            assert cache.get_or_compute("new", lambda: value) is value
        assert sorted(tmp_path.rglob("*")) == before
        with pytest.raises(ed.NotADatasetError, match="does not exist"):
            DatasetCache(tmp_path / "nothing", readonly=True)


@pytest.mark.usefixtures("small")
class TestDamage:
    @pytest.mark.parametrize("codec", ["none", "zstd", "gzip"])
    @pytest.mark.parametrize("place", [5, 0.3, 0.7, -3])
    def test_a_flipped_bit_is_a_miss(self, tmp_path: Path, codec: str, place: float) -> None:
        cache = DatasetCache(tmp_path, codec)
        cache.put("k", tokens(0))
        shard = sorted(tmp_path.rglob("data-*"))[1]
        data = bytearray(shard.read_bytes())
        at = int(place * len(data)) if isinstance(place, float) else place
        data[at] ^= 16
        shard.write_bytes(data)
        with pytest.raises(ed.CorruptShardError, match="do not match their checksums"):
            DatasetCache(tmp_path, verify="open")
        if 0 < at < len(data) - 100:
            # What `open` gives checks what it reads; the remedy is of use.
            opened = cache.open("k")
            if codec != "gzip" and at > 1000:
                with pytest.raises(ed.CorruptShardError, match=r"invalidate\('k'\), then put it"):
                    opened.verify() or opened.to_table()
            del opened
        with pytest.raises(ed.CorruptShardError):
            cache.path("k")
        gc.collect()
        assert cache.get("k") is None
        assert (cache.stats["corrupt"], cache.stats["misses"], cache.stats["hits"]) == (1, 1, 0)
        assert not cache.contains("k")
        assert "moved aside as" in cache.explain("k")[0]
        assert len(folders(tmp_path, "damaged-*")) == 1
        cache.put("k", tokens(1))
        assert firsts(cache.get("k"))[0] == 1
        cache.invalidate("k")
        assert folders(tmp_path, "*") == []

    @pytest.mark.parametrize("name", ["easydata-entry.json", "ledger-*.arrow", "data-00001*"])
    @pytest.mark.parametrize("how", ["flip", "cut", "gone", "empty"])
    def test_other_damage_is_a_miss(self, tmp_path: Path, name: str, how: str) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0), ed.CacheMetadata(config_hash="abc"))
        (path,) = tmp_path.rglob(name)
        data = path.read_bytes()
        middle = len(data) // 2
        if how == "gone":
            path.unlink()
        else:
            flipped = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
            path.write_bytes({"flip": flipped, "cut": data[:-9], "empty": b""}[how])
        gone = how == "gone" and name.startswith("easydata")
        if not (name.startswith("data") and how == "flip"):
            assert not cache.contains("k")
            assert cache.explain("k")[0].startswith("no entry" if gone else "damaged: ")
        assert cache.get("k") is None
        assert cache.stats["corrupt"] == (not gone)
        assert cache.get_or_compute("k", lambda: tokens(3))["input_ids"][0] == [3]
        assert len(folders(tmp_path)) == 1

    def test_a_generation_that_is_gone(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0))
        folders(tmp_path)[0].rename(tmp_path / "away")
        assert not cache.contains("k")
        assert cache.keys() == []
        assert cache.get("k") is None
        assert "is missing" in cache.explain("k")[0]

    def test_a_copied_folder_is_no_other_key(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(0))
        cache.put("other", tokens(1))
        cache.invalidate("other")
        (ours,) = tmp_path.glob("k-*")
        ours.rename(tmp_path / entry_name("other"))
        assert cache.get("other") is None
        assert "holds the record of the key 'k'" in cache.explain("other")[0]

    def test_without_checks(self, tmp_path: Path) -> None:
        DatasetCache(tmp_path).put("k", tokens(0))
        ids = np.arange(500, 502, dtype="<i4").tobytes()
        (shard,) = (path for path in tmp_path.rglob("data-*") if ids in path.read_bytes())
        shard.write_bytes(shard.read_bytes().replace(ids, bytes([7]) + ids[1:]))
        cache = DatasetCache(tmp_path, verify="never")
        assert firsts(cache.get("k")) == [*range(500), 256 + 7, *range(501, 1000)]
