"""How long a generation of a DatasetCache stays: as long as anything in use needs its files."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Value

import easydata as ed
from easydata.cache.dataset_cache import DatasetCache
from easydata.cache.datasets import leases
from tests.cache.elsewhere import Elsewhere


def plus_one(row: dict[str, Any]) -> dict[str, Any]:
    return {"b": row["a"] + 1}


def numbers(*values: int) -> Dataset:
    return Dataset.from_dict({"a": list(values)})


def tokens(*ids: int) -> Dataset:
    return Dataset.from_dict({"input_ids": [list(ids)]})


def num_generations(cache_dir: Path) -> int:
    return len(list(cache_dir.glob("*/generation-*")))


@pytest.fixture
def few_files() -> Iterator[None]:
    """At most 60 descriptors more than there are."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = max(map(int, os.listdir("/proc/self/fd"))) + 60
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


class TestMap:
    @pytest.mark.parametrize("replace", ["put", "invalidate"])
    def test_its_result_keeps_the_files_it_lies_with(self, tmp_path: Path, replace: str) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", numbers(1, 2, 3, 4))
        mapped = cache.get("k").map(plus_one, remove_columns=["a"])
        gc.collect()
        if replace == "put":
            cache.put("k", numbers(9))
        else:
            cache.invalidate("k")
        assert pickle.loads(pickle.dumps(mapped))["b"][:] == [2, 3, 4, 5]
        again = mapped.map(lambda row: {"c": row["b"]}, num_proc=2)
        del mapped
        gc.collect()
        DatasetCache(tmp_path)
        assert pickle.loads(pickle.dumps(again))["c"][:] == [2, 3, 4, 5]
        del again
        gc.collect()
        DatasetCache(tmp_path)
        assert num_generations(tmp_path) == (replace == "put")

    def test_a_process_that_puts_and_maps_all_day_keeps_one_generation(
        self, tmp_path: Path
    ) -> None:
        cache = DatasetCache(tmp_path)
        for number in range(5):
            cache.put("k", numbers(number))
            mapped = cache.get("k").map(plus_one)
            assert mapped["b"][:] == [number + 1]
            assert num_generations(tmp_path) <= 2  # the last result, until there is the new one

    def test_a_process_that_only_reads_gives_back_too(self, tmp_path: Path) -> None:
        cache, other = DatasetCache(tmp_path), Elsewhere(DatasetCache, str(tmp_path))
        try:
            for number in range(6):
                other.call("put", "k", numbers(number))
                mapped = cache.get("k").map(plus_one)
                assert mapped["b"][:] == [number + 1]
            other.call("put", "k", numbers(9))
            # What counts, what is used here, and what was until that was made.
            assert num_generations(tmp_path) <= 3
        finally:
            other.kill()

    def test_nothing_is_closed_that_cannot_be_seen(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", numbers(1))
        mapped = cache.get("k").map(plus_one)
        gc.freeze()
        try:
            cache.put("k", numbers(2))
            assert pickle.loads(pickle.dumps(mapped))["b"][:] == [2]
        finally:
            gc.unfreeze()


@pytest.mark.parametrize(
    "dataset",
    [
        Dataset.from_dict({"a": []}, features=Features({"a": Value("int64")})),
        Dataset.from_dict({"a": [None, None]}),
    ],
    ids=["no rows", "only nulls"],
)
@pytest.mark.parametrize(
    "derive",
    [lambda it: it, lambda it: it.rename_column("a", "b"), lambda it: it.with_format("numpy")],
    ids=["itself", "renamed", "formatted"],
)
def test_what_has_no_bytes_keeps_its_files(
    tmp_path: Path, dataset: Dataset, derive: Callable[[Dataset], Dataset]
) -> None:
    cache = DatasetCache(tmp_path)
    cache.put("k", dataset)
    found = derive(cache.get("k"))
    gc.collect()
    cache.invalidate("k")
    assert pickle.loads(pickle.dumps(found)).to_list() == found.to_list()
    del found
    gc.collect()
    DatasetCache(tmp_path)
    assert num_generations(tmp_path) == 0


class TestPickles:
    @pytest.mark.parametrize("codec", ["none", "zstd"])
    @pytest.mark.parametrize(
        "copied", [copy.copy, copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))]
    )
    def test_a_copy_of_tokens_keeps_the_files(
        self, tmp_path: Path, codec: str, copied: Callable[[Any], Any]
    ) -> None:
        cache = DatasetCache(tmp_path, codec)
        cache.put("k", tokens(1, 2))
        again = copied(cache.open("k"))
        gc.collect()
        cache.put("k", tokens(3, 4))
        assert again.tokens(0, 2).tolist() == [1, 2]
        del again
        gc.collect()
        DatasetCache(tmp_path)
        assert num_generations(tmp_path) == 1

    def test_unpickled_a_dataset_keeps_its_files_by_itself(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", numbers(1, 2))
        found = cache.get("k")
        again = pickle.loads(pickle.dumps(found))
        del found
        gc.collect()
        cache.put("k", numbers(3))
        assert pickle.loads(pickle.dumps(again))["a"][:] == [1, 2]

    def test_too_late_it_says_so(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(1, 2))
        pickles = [pickle.dumps(cache.get("k")), pickle.dumps(cache.open("k"))]
        gc.collect()
        cache.invalidate("k")
        for data in pickles:
            with pytest.raises(ed.NotADatasetError, match="replaced or invalidated after it was"):
                pickle.loads(data)

    def test_damaged_copies_name_the_repair(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(*range(100)))
        again = pickle.loads(pickle.dumps(cache.open("k")))
        (shard,) = tmp_path.rglob("data-*")
        data = shard.read_bytes()
        ids = bytes([50, 0, 0, 0, 51])
        assert ids in data
        shard.write_bytes(data.replace(ids, bytes([51, 0, 0, 0, 51])))
        with pytest.raises(ed.CorruptShardError, match=r"invalidate\('k'\), then put it"):
            again.tokens(0, 100)


@pytest.mark.usefixtures("few_files")
class TestDescriptors:
    def test_all_leases_of_a_generation_share_one(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens(1, 2))
        held = [cache.get("k") for _ in range(100)] + [cache.open("k") for _ in range(100)]
        del held[1:]
        gc.collect()
        cache.invalidate("k")
        assert num_generations(tmp_path) == 1  # one is enough
        held.clear()
        gc.collect()
        DatasetCache(tmp_path)
        assert num_generations(tmp_path) == 0

    def test_too_many_open_files_is_a_storage_error(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", numbers(1))
        lease = leases.take(next(tmp_path.glob("*/generation-*")))
        opened: list[int] = []
        found: list[str] = []
        try:
            # However many are left when it begins, so that each of its files is refused once.
            while True:
                try:
                    opened.append(os.open(os.devnull, os.O_RDONLY))
                except OSError:
                    break
            for _ in range(4):
                for call in (cache.get, cache.path, cache.explain, cache.open):
                    try:
                        call("k")
                    except ed.DatasetError as error:  # enough were left: it has no tokens
                        found.append(str(error))
                    except ed.StorageError as error:
                        found.append(str(error))
                os.close(opened.pop())
        finally:
            for descriptor in opened:
                os.close(descriptor)
        assert sum("Too many open files" in text for text in found) >= 4
        assert not any("amaged" in text or "missing" in text for text in found)
        assert lease is not None
        assert cache.get("k")["a"][:] == [1]


def test_a_folder_that_was_put_back_is_locked_anew(tmp_path: Path) -> None:
    generation = tmp_path / "generation"
    generation.mkdir()
    first = leases.take(generation, create=True)
    (generation / ".lease").unlink()
    assert leases.take(generation) is None
    second = leases.take(generation, create=True)
    assert first is not None
    assert second is not None
    first.close()
    leases.remove_unheld(generation, lambda: False)
    assert generation.exists()
    second.close()
    leases.remove_unheld(generation, lambda: False)
    assert not generation.exists()
