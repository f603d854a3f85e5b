"""DatasetCache as a cache: keys, metadata, expiry, reasons, what is computed once, its folder."""

from __future__ import annotations

import gc
import pickle
import threading
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

import easydata as ed
from easydata.cache import clock
from easydata.cache.dataset_cache import DatasetCache
from easydata.cache.datasets.names import entry_name
from tests.cache.elsewhere import Elsewhere

NOW = 1_700_000_000_000_000_000
HOUR = 3_600_000_000_000


def one(value: int = 1) -> Dataset:
    return Dataset.from_dict({"a": [value]})


def first(found: Any) -> int:
    return found[0]["a"]


class TestKeys:
    KEYS = (
        "a",
        "A",
        "a/b",
        "../up",
        ".",
        "..",
        "",
        " ",
        "CON",
        "ü",
        "\0",
        "x" * 5000,
        "a\nb",
        "a-",
    )

    def test_any_string_is_a_key(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path / "cache")
        for number, key in enumerate(self.KEYS):
            cache.put(key, one(number))
        assert [first(cache.get(key)) for key in self.KEYS] == list(range(len(self.KEYS)))
        assert cache.keys() == sorted(self.KEYS)
        assert cache.keys("a") == ["a", "a\nb", "a-", "a/b"] == sorted(["a-", "a", "a/b", "a\nb"])
        assert len(cache) == len(self.KEYS)
        assert [item.name for item in tmp_path.iterdir()] == ["cache"]
        cache.invalidate("a")
        assert "a" not in cache
        assert "A" in cache

    def test_names_hold_on_every_file_system(self) -> None:
        names = [entry_name(key) for key in self.KEYS]
        assert len({name.casefold() for name in names}) == len(names)
        assert all(len(name) < 100 and name.isascii() and name[0].isalnum() for name in names)
        assert entry_name("../C4/train").startswith("C4_train-")

    @pytest.mark.parametrize("key", [5, None, b"a", "\ud800"])
    def test_what_is_no_key(self, tmp_path: Path, key: Any) -> None:
        cache = DatasetCache(tmp_path)
        for call in (cache.get, cache.contains, cache.open, cache.path, cache.explain):
            with pytest.raises(ed.UsageError, match="key"):
                call(key)
        with pytest.raises(ed.UsageError, match="key"):
            cache.put(key, one())


class TestMetadata:
    def test_it_comes_back_and_none_leaves_none(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        metadata = ed.CacheMetadata(config_hash="c", created_at=5.5, extra={"a": [1, {"b": None}]})
        cache.put("k", one(), metadata)
        assert cache.get_metadata("k") == metadata
        assert DatasetCache(tmp_path).get_metadata("k") == metadata
        cache.put("k", one())
        assert cache.get_metadata("k") is None
        assert cache.get_metadata("other") is None
        with pytest.raises(ed.UnsupportedValueError, match=r"metadata\.extra"):
            cache.put("k", one(2), ed.CacheMetadata(extra={"a": (1,)}))
        assert first(cache.get("k")) == 1

    def test_another_identity_is_a_miss_with_reasons(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", one(), ed.CacheMetadata(tokenizer_hash="X", source_hash="s"))
        names = ("config_hash", "source_hash", "tokenizer_hash", "transform_hash")
        assert first(cache.get("k", tokenizer_hash="X", source_hash="s")) == 1
        assert cache.explain("k", tokenizer_hash="X", source_hash="s") == []
        for name in names:
            assert cache.get("k", **{name: "Y"}) is None
        assert cache.explain("k", tokenizer_hash="Y", config_hash="c") == [
            "config_hash is None, wanted 'c'",
            "tokenizer_hash is 'X', wanted 'Y'",
        ]
        assert (cache.stats["hits"], cache.stats["misses"]) == (1, 4)
        cache.put("k", one())
        assert cache.get("k", source_hash="s") is None
        assert cache.explain("k", source_hash="s") == [
            "source_hash is None, wanted 's' (it was put without metadata)"
        ]


class TestExpiry:
    @pytest.fixture
    def now(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        time = [NOW]
        monkeypatch.setattr(clock, "now", lambda: time[0])
        return time

    def test_it_runs_from_the_put(self, tmp_path: Path, now: list[int]) -> None:
        cache = DatasetCache(tmp_path, expiry_seconds=3600)
        cache.put("k", one())
        now[0] = NOW + HOUR - 1
        assert first(DatasetCache(tmp_path).get("k")) == 1
        now[0] = NOW + 4 * HOUR
        assert cache.get("k") is None
        assert cache.explain("k", config_hash="c") == [
            "expired 3 h ago",
            "config_hash is None, wanted 'c' (it was put without metadata)",
        ]
        assert (cache.keys(), len(cache), cache.get_metadata("k"), "k" in cache) == (
            [],
            0,
            None,
            False,
        )
        with pytest.raises(ed.NotADatasetError, match="it is expired"):
            cache.open("k")
        assert (cache.stats["expired"], cache.stats["misses"]) == (1, 1)
        DatasetCache(tmp_path)
        assert list(tmp_path.glob("k-*")) == []
        assert cache.explain("k") == ["no entry"]

    @pytest.mark.parametrize(
        ("seconds", "text"), [(30, "30 s"), (150, "2 min"), (86400 * 3, "3 d")]
    )
    def test_how_long_ago(self, tmp_path: Path, now: list[int], seconds: int, text: str) -> None:
        cache = DatasetCache(tmp_path, expiry_seconds=1)
        cache.put("k", one())
        now[0] += (seconds + 1) * 10**9
        assert cache.explain("k") == [f"expired {text} ago"]


class TestComputing:
    def test_it_is_computed_once(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        calls: list[int] = []
        gate = threading.Barrier(5)
        found: list[Any] = []

        def compute() -> Dataset:
            calls.append(1)
            return one(5)

        def ask() -> None:
            gate.wait()
            found.append(cache.get_or_compute("k", compute))

        threads = [threading.Thread(target=ask) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 1
        assert [first(dataset) for dataset in found] == [5] * 5
        assert len({id(dataset) for dataset in found}) == 5  # set_format in one changes no other
        assert found[0].cache_files

    def test_validation(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", one(1))
        metadata = ed.CacheMetadata(config_hash="c")

        def is_valid(found: ed.CacheMetadata) -> bool:
            return found.config_hash == "c"

        assert first(cache.get_or_compute("k", lambda: one(2))) == 1
        assert first(cache.get_or_compute("k", lambda: one(2), metadata, is_valid)) == 2
        assert first(cache.get_or_compute("k", lambda: one(3), metadata, is_valid)) == 2
        assert cache.get_metadata("k") == metadata
        assert (cache.stats["hits"], cache.stats["misses"], cache.stats["writes"]) == (2, 1, 2)

    def test_an_exception_is_not_kept(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        with pytest.raises(ZeroDivisionError):
            cache.get_or_compute("k", lambda: one(1 // 0))
        assert first(cache.get_or_compute("k", lambda: one(2))) == 2
        with pytest.raises(ed.UsageError, match="compute_fn"):
            cache.get_or_compute("k", one())  # type: ignore[arg-type]
        with pytest.raises(ed.UsageError, match="validate_fn"):
            cache.get_or_compute("k", one, None, 5)  # type: ignore[arg-type]

    def test_another_process_computes(self, tmp_path: Path) -> None:
        others = [Elsewhere(DatasetCache, str(tmp_path)) for _ in range(2)]
        try:
            for other in others:
                other.start("get_or_compute", "k", Slow(tmp_path / "calls"))
            assert [first(other.result()) for other in others] == [9, 9]
        finally:
            for other in others:
                other.kill()
        assert (tmp_path / "calls").read_text() == "called\n"


class Slow:
    """Computes once another process waits; says that it was called."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def __call__(self) -> Dataset:
        with self.log.open("a") as file:
            file.write("called\n")
        return one(9)


class TestFolder:
    def test_files_of_others_survive(self, tmp_path: Path) -> None:
        theirs = {
            "notes.txt": b"mine",
            "data/part.arrow": b"mine too",
            f"{entry_name('k')}/own.txt": b"in a folder of the cache",
            f"{'0' * 32}/generation-x/file": b"looks alike",
            "generation-" + "0" * 32: b"a file",
        }
        for name, data in theirs.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(data)
        cache = DatasetCache(tmp_path)
        cache.put("k", one())
        assert cache.keys() == ["k"]
        cache.invalidate()
        assert cache.keys() == []
        assert list(tmp_path.rglob("generation-" + "?" * 32)) == [
            tmp_path / ("generation-" + "0" * 32)
        ]
        assert {name: (tmp_path / name).read_bytes() for name in theirs} == theirs

    def test_half_of_a_dataset_of_another_tool_is_none(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        one().save_to_disk(tmp_path / "k")
        one().save_to_disk(tmp_path / entry_name("k"))
        one().save_to_disk(tmp_path / entry_name("k") / ("generation-" + "0" * 32))
        assert cache.get("k") is None
        assert (cache.keys(), cache.explain("k")) == ([], ["no entry"])
        with pytest.raises(ed.NotADatasetError, match=r"no dataset .k.: no entry\. Put"):
            cache.path("k")

    def test_pickled_and_used_as_a_context(self, tmp_path: Path) -> None:
        with DatasetCache(tmp_path, "zstd", 50) as cache:
            cache.put("k", one())
            again = pickle.loads(pickle.dumps(cache))
            assert first(again.get("k")) == 1
            assert repr(again) == f"DatasetCache({str(tmp_path)!r})"
            assert cache.stats["bytes"] > 1000
            path = cache.path("k")
            cache.put("k", one(2))
            DatasetCache(tmp_path)
            assert path.exists()
        gc.collect()
        DatasetCache(tmp_path)
        assert not path.exists()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"compression": "brotli"}, "compression"),
            ({"expiry_seconds": 0}, "expiry_seconds"),
            ({"verify": "always"}, "verify is 'always'"),
            ({"cache_dir": "s3://bucket"}, "local disk"),
        ],
    )
    def test_wrong_options(self, tmp_path: Path, options: dict[str, Any], message: str) -> None:
        with pytest.raises(ed.UsageError, match=message):
            DatasetCache(**{"cache_dir": tmp_path / "new", **options})
        assert list(tmp_path.iterdir()) == []

    def test_a_file_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("x")
        with pytest.raises(ed.NotADatasetError, match="is a file"):
            DatasetCache(tmp_path / "file")
