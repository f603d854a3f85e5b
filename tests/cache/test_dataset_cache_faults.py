"""DatasetCache when things go wrong: full disks, damage, others at work, what is not its own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

import easydata as ed
from easydata._fs import sync_directory
from easydata.cache.dataset_cache import DatasetCache
from easydata.cache.datasets import entry as entries
from easydata.cache.datasets.names import entry_name
from easydata.fingerprint import fingerprint_bytes
from tests.full_disk import full_disk

TABLE = pa.table({"a": list(range(1000))})
HASH = "0123456789abcdef" * 2

# Two of these at once in a new folder: the first in line computes for both.
COMPUTES = """
import sys
from pathlib import Path
from datasets import Dataset
from easydata.cache.dataset_cache import DatasetCache
root, log = map(Path, sys.argv[1:])

def compute():
    with log.open("a") as file:
        file.write("called\\n")
    print("computing", flush=True)
    sys.stdin.readline()
    return Dataset.from_dict({"a": [7]})

cache = DatasetCache(root)
print("ready", flush=True)
sys.stdin.readline()
print("asking", flush=True)
assert cache.get_or_compute("k", compute)["a"][:] == [7]
"""


class Stream:
    """Gives its rows once, and tells nobody."""

    def __init__(self) -> None:
        self._reader = TABLE.to_reader(100)

    def __arrow_c_stream__(self, schema: Any = None) -> Any:
        return self._reader.__arrow_c_stream__(schema)


def stream() -> IterableDataset:
    return IterableDataset.from_generator(lambda: iter(TABLE.to_pylist()))


def count(value: Any) -> int:
    """How many rows can still be read."""
    if isinstance(value, dict):
        return sum(map(count, value.values()))
    if isinstance(value, pa.Table | pa.RecordBatch):
        return int(value.num_rows)
    if isinstance(value, list | tuple):
        return sum(map(count, value))
    return sum(1 for _ in value)


class TestFullDisk:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: TABLE,
            lambda: TABLE.combine_chunks().to_batches()[0],
            lambda: TABLE.to_batches(100),
            lambda: tuple(TABLE.to_batches(100)),
            lambda: Dataset(TABLE),
            lambda: DatasetDict(train=Dataset(TABLE)),
            stream,
            lambda: IterableDatasetDict(train=stream()),
        ],
    )
    def test_what_can_be_read_again_is_returned(
        self, tmp_path: Path, make: Callable[[], Any]
    ) -> None:
        value = make()
        with full_disk(1000), pytest.warns(RuntimeWarning, match="not stored"):
            found = DatasetCache(tmp_path).get_or_compute("k", lambda: value)
        assert found is value
        assert count(found) == 1000

    @pytest.mark.parametrize(
        "make",
        [
            Stream,
            lambda: TABLE.to_reader(100),
            lambda: IterableDatasetDict(train=iter(TABLE.to_batches(100))),
            lambda: (batch for batch in TABLE.to_batches(100)),
        ],
    )
    def test_what_may_be_empty_now_is_not(self, tmp_path: Path, make: Callable[[], Any]) -> None:
        cache = DatasetCache(tmp_path)
        with full_disk(1000), pytest.raises(ed.StorageError, match="full"):
            cache.get_or_compute("k", make)
        # Nothing of it was read when that was refused.
        DatasetCache(tmp_path).put("other", TABLE)
        cache = DatasetCache(tmp_path, readonly=True)
        with pytest.warns(RuntimeWarning, match="not stored"):
            value = cache.get_or_compute("k", make)
        assert count(pa.table(value) if isinstance(value, Stream) else value) > 0


def test_a_new_folder_is_no_reason_to_compute_twice(tmp_path: Path) -> None:
    root, log = tmp_path / "new" / "folder", tmp_path / "log"
    command = [sys.executable, "-W", "error", "-c", COMPUTES, str(root), str(log)]
    pipe = subprocess.PIPE
    both = [subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) for _ in range(2)]
    try:
        for process in both:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        assert not root.exists()
        for number, process in enumerate(both):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
            assert process.stdout.readline() == "asking\n"  # type: ignore[union-attr]
            if not number:
                assert process.stdout.readline() == "computing\n"  # type: ignore[union-attr]
        # The second waits, or would compute, which takes no line; then the first goes on.
        both[0].communicate("done\n")
        both[1].communicate("done\n")
        assert [process.returncode for process in both] == [0, 0]
        assert log.read_text() == "called\n"
    finally:
        for process in both:
            process.kill()


class TestDamage:
    @pytest.mark.parametrize("name", ["state.json", "dataset_info.json", "dataset_dict.json"])
    @pytest.mark.parametrize("how", ["other", "empty", "gone", "folder"])
    def test_of_what_load_from_disk_reads(self, tmp_path: Path, name: str, how: str) -> None:
        part = Dataset.from_dict({"input_ids": [[1], [2]]})
        cache = DatasetCache(tmp_path)
        cache.put("k", DatasetDict(train=part, test=part.select([1])))
        path = min(tmp_path.rglob(name))
        data = path.read_bytes()
        path.unlink()
        if how == "other":
            path.write_bytes(data.replace(b"train", b"test ") + b" ")
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "folder":
            path.mkdir()
        with pytest.raises(ed.CorruptShardError, match=name):
            cache.path("k")
        with pytest.raises(ed.CorruptShardError, match=name):
            DatasetCache(tmp_path, verify="open")
        assert cache.get("k") is None
        assert cache.stats["corrupt"] == 1

    def test_sound_ones_pass(self, tmp_path: Path) -> None:
        part = Dataset.from_dict({"a": [1]}, split=datasets.Split.TEST)
        cache = DatasetCache(tmp_path)
        cache.put("k", DatasetDict(train=part, test=part))
        cache.put("one", part)
        cache = DatasetCache(tmp_path, verify="open")
        assert datasets.load_from_disk(cache.path("one"))["a"][:] == [1]

    @pytest.mark.parametrize("name", ["ledger-*", "data-*"])
    def test_a_folder_where_a_file_was(self, tmp_path: Path, name: str) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", TABLE)
        (path,) = tmp_path.rglob(name)
        path.unlink()
        path.mkdir()
        for call in (cache.path, cache.open):
            with pytest.raises(ed.CorruptShardError):
                call("k")
        assert cache.get("k") is None

    def test_of_a_shard_that_was_not_checked(self, tmp_path: Path) -> None:
        DatasetCache(tmp_path).put("k", TABLE)
        (shard,) = tmp_path.rglob("data-*")
        shard.write_bytes(b"\xff" * shard.stat().st_size)
        with pytest.raises(ed.CorruptShardError, match="cannot be read"):
            DatasetCache(tmp_path, verify="never").get("k")

    @pytest.mark.parametrize("what", ["record", "generation"])
    def test_opening_with_checks_finds_all(self, tmp_path: Path, what: str) -> None:
        DatasetCache(tmp_path).put("k", TABLE)
        if what == "record":
            (path,) = tmp_path.rglob("easydata-entry.json")
            path.write_bytes(path.read_bytes()[:-1])
        else:
            (path,) = tmp_path.glob("*/generation-*")
            path.rename(tmp_path / "away")
        with pytest.raises(ed.CorruptShardError, match=r"checksum|missing"):
            DatasetCache(tmp_path, verify="open")


class TestOneBadEntry:
    def test_of_a_newer_easydata_hides_itself_only(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("new", TABLE)
        cache.put("old", TABLE)
        (path,) = tmp_path.glob("new-*/easydata-entry.json")
        body = path.read_bytes().partition(b"\n")[2].replace(b'"format": 1', b'"format": 9')
        path.write_bytes(fingerprint_bytes(body).encode() + b"\n" + body)
        cache = DatasetCache(tmp_path, verify="open")
        assert (cache.keys(), len(cache), cache.stats["size"]) == (["old"], 1, 1)
        assert cache.get("old").num_rows == 1000
        for call in (cache.get, cache.path, cache.get_metadata, cache.explain):
            with pytest.raises(ed.FormatVersionError, match="Upgrade"):
                call("new")
        assert len(list(path.parent.glob("generation-*"))) == 1  # whoever can read it has it

    def test_a_record_that_cannot_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("secret", TABLE)
        cache.put("k", TABLE)
        cache.put("z", TABLE)
        held = cache.get("z")
        cache.put("z", TABLE)
        assert held.num_rows == 1000
        del held
        read = Path.read_bytes

        def refuse(path: Path) -> bytes:
            if path.parent.name.startswith("secret"):
                raise PermissionError(13, "Permission denied")
            return read(path)

        monkeypatch.setattr(Path, "read_bytes", refuse)  # root may read everything
        cache = DatasetCache(tmp_path)
        assert cache.keys() == ["k", "z"]
        assert len(list(tmp_path.glob("z-*/generation-*"))) == 1  # others are looked after
        with pytest.raises(ed.StorageError, match="permission denied"):
            cache.get("secret")
        monkeypatch.undo()
        assert cache.get("secret").num_rows == 1000

    def test_a_record_that_is_a_folder(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", TABLE)
        (path,) = tmp_path.rglob("easydata-entry.json")
        path.unlink()
        path.mkdir()
        cache = DatasetCache(tmp_path)
        assert (cache.keys(), cache.get("k")) == ([], None)
        assert "is a folder" in cache.explain("k")[0]


class TestOthersAtWork:
    def test_the_folder_goes_while_a_record_is_withdrawn(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cache, sync = DatasetCache(tmp_path), sync_directory
        cache.put("k", TABLE)

        def race(path: Path) -> None:
            monkeypatch.setattr(entries, "sync_directory", sync)
            DatasetCache(tmp_path).invalidate("k")
            assert not path.exists()
            sync(path)

        monkeypatch.setattr(entries, "sync_directory", race)
        cache.invalidate("k")
        assert cache.keys() == []

    @pytest.mark.parametrize("error", [FileExistsError, FileNotFoundError])
    def test_the_folder_goes_while_it_is_made(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
    ) -> None:
        mkdir, refusals = Path.mkdir, iter([error(), error()])

        def race(path: Path, *args: Any, **kwargs: Any) -> None:
            if path.name == entry_name("k"):
                for refusal in refusals:  # as `mkdir` if somebody removes what it has found
                    raise refusal
            mkdir(path, *args, **kwargs)

        monkeypatch.setattr(Path, "mkdir", race)
        cache = DatasetCache(tmp_path)
        cache.put("k", TABLE)
        assert cache.get("k").num_rows == 1000

    def test_a_file_in_its_place_is_an_error_not_a_wait(self, tmp_path: Path) -> None:
        (tmp_path / entry_name("k")).write_text("mine")
        with pytest.raises(ed.StorageError, match="Cannot write"):
            DatasetCache(tmp_path).put("k", TABLE)

    def test_many_that_forget(self, tmp_path: Path) -> None:
        errors: list[BaseException] = []
        stop = threading.Event()

        def forget() -> None:
            cache = DatasetCache(tmp_path)
            try:
                while not stop.is_set():
                    cache.invalidate("k")
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=forget) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            cache = DatasetCache(tmp_path)
            for _ in range(15):
                cache.put("k", TABLE)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert errors == []


class TestWhatIsNotOurs:
    @pytest.fixture
    def theirs(self, tmp_path: Path) -> Iterator[set[Path]]:
        """Things whose names look alike; checked when the test is over."""
        folders = [
            HASH,
            f"run-{HASH}/damaged-photos",
            f"run-{HASH}/damaged-{HASH}",
            f"run-{HASH}/generation-{HASH}",
            f"{entry_name('k')}/damaged-photos",
        ]
        (tmp_path / HASH).mkdir()
        for folder in folders[1:]:
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "a.jpg").write_bytes(b"jpg")
        before = set(tmp_path.rglob("*"))
        yield before
        assert before <= set(tmp_path.rglob("*"))

    def test_it_stays(self, tmp_path: Path, theirs: set[Path]) -> None:
        cache = DatasetCache(tmp_path)
        assert cache.stats["bytes"] == 0
        for value in (TABLE, TABLE):
            cache.put("k", value)
            cache.put("other", value)
        cache.invalidate("k")
        cache.invalidate()
        assert set(tmp_path.rglob("*")) - theirs == {tmp_path / ".easydata-datasets.commit"}
