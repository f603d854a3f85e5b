"""Where results go, and what was there before."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import fsspec
import pytest

import easydata as ed
from easydata.loader.mixing import Mixture
from easydata.loader.packing import pack
from easydata.pipeline import save_shards
from easydata.pipeline.config import DatasetConfig
from easydata.pipeline.saving import save_results

from .saved import EXPECTED, config, data_files, documents, read_all, read_file
from .test_saving_shards import Stream


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    return documents(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    return documents(tmp_path_factory.mktemp("few"), limit=4)


def save(tokens: Any, folder: Any, **options: Any) -> str:
    saved = save_results({"dataset_0": tokens}, config(save={"output_dir": folder, **options}))
    return saved["dataset_0"]


def state_of(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Identity and content of all files."""
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_each_dataset_has_its_folder(
    tokens: ed.TokenDataset, few: ed.TokenDataset, tmp_path: Path
) -> None:
    made = config(
        DatasetConfig("x", name="a"),
        DatasetConfig("x", name="b/c"),
        DatasetConfig("x", name="d", save_path=tmp_path / "own", save_format="jsonl"),
        save={"enabled": True, "output_dir": tmp_path / "o"},
    )
    saved = save_results({"a": tokens, "b/c": few, "d": few}, made)
    assert saved["a"] == str(tmp_path / "o" / "a")
    assert Path(saved["b/c"]).parent == tmp_path / "o"
    assert saved["d"] == str(tmp_path / "own")
    assert read_all(Path(saved["a"])) == EXPECTED
    assert read_all(Path(saved["b/c"])) == read_all(Path(saved["d"])) == EXPECTED[:4]
    assert [path.suffix for path in data_files(tmp_path / "own")] == [".jsonl"]


def test_only_those_with_a_path_unless_enabled(
    tokens: ed.TokenDataset, few: ed.TokenDataset, tmp_path: Path
) -> None:
    datasets = DatasetConfig("x", name="a"), DatasetConfig("x", name="b", save_path=tmp_path / "b")
    made = config(*datasets, save={"output_dir": tmp_path / "o"})
    assert save_results({"a": tokens, "b": few}, made) == {"b": str(tmp_path / "b")}
    samples = {"a": pack(tokens, 8, "concat"), "b": pack(few, 8, "concat")}
    made = config(*datasets, save={"output_dir": tmp_path / "o", "overwrite": True})
    assert save_results(Mixture(samples), made) == {"b": str(tmp_path / "b")}
    assert len(read_all(tmp_path / "b")) == samples["b"].num_samples
    made = config(*datasets, save={"output_dir": tmp_path / "o", "enabled": True})
    assert save_results(Mixture(samples), made) == {
        "b": str(tmp_path / "b"),
        "mixture": str(tmp_path / "o"),
    }


def test_one_place_for_two(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    for place in (tmp_path / "o" / "a", tmp_path / "o" / "a" / "deep"):
        made = config(
            DatasetConfig("x", name="a"),
            DatasetConfig("x", name="b", save_path=place),
            save={"output_dir": tmp_path / "o", "enabled": True},
        )
        with pytest.raises(ed.UsageError, match=r"'a' is saved to .* and 'b' to"):
            save_results({"a": tokens, "b": tokens}, made)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_the_same_again_is_a_hit(
    tokens: ed.TokenDataset,
    few: ed.TokenDataset,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    form: str,
) -> None:
    caplog.set_level(logging.INFO, "easydata")
    folder = tmp_path / "o"
    save(tokens, folder, format=form)
    before = state_of(folder)
    caplog.clear()
    for overwrite in (False, True):
        save(tokens, folder, format=form, overwrite=overwrite)
    assert [record.message for record in caplog.records] == [
        f"{folder}: dataset_0 is saved there already; nothing to do."
    ] * 2
    assert state_of(folder) == before
    for other, options in (
        (few, {}),
        (tokens, {"num_shards": 2}),
        (tokens, {"compression": "lz4"}),
    ):
        with pytest.raises(ed.OutputExistsError, match=r"holds another result.*overwrite=True"):
            save(other, folder, format=form, **options)
    assert state_of(folder) == before
    save(few, folder, format=form, overwrite=True)
    assert read_all(folder) == EXPECTED[:4]
    assert os.listdir(tmp_path) == ["o"]


def test_a_missing_or_cut_file_is_no_hit(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    folder = tmp_path / "o"
    for damage in (Path.unlink, lambda path: os.truncate(path, 20)):
        save(tokens, folder, num_shards=2, overwrite=True)
        damage(data_files(folder)[1])
        with pytest.raises(ed.OutputExistsError):
            save(tokens, folder, num_shards=2)
        save(tokens, folder, num_shards=2, overwrite=True)
        assert read_all(folder) == EXPECTED


def test_the_order_of_samples_counts(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    samples = {"dataset_0": pack(tokens, 8, "concat")}
    save_options = {"output_dir": tmp_path / "o"}
    save_results(samples, config(save=save_options, seed=1))
    with pytest.raises(ed.OutputExistsError):
        save_results(samples, config(save=save_options, seed=2))
    save_results(samples, config(save=save_options, seed=1))


@pytest.mark.parametrize("overwrite", [False, True])
def test_foreign_files_stay(tokens: ed.TokenDataset, tmp_path: Path, overwrite: bool) -> None:
    folder = tmp_path / "o"
    for name in ("notes.txt", "data-00000-of-00001.parquet", "deep/thesis.tex"):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text("mine")
        with pytest.raises(ed.OutputExistsError, match=f"did not save.*{name}"):
            save(tokens, folder, overwrite=overwrite)
        assert path.read_text() == "mine"
        path.unlink()
        if path.parent != folder:
            path.parent.rmdir()
        folder.rmdir()
    save(tokens, folder)
    (folder / "README.md").write_text("mine")
    with pytest.raises(ed.OutputExistsError):
        save(tokens, folder, num_shards=2, overwrite=overwrite)
    assert (folder / "README.md").read_text() == "mine"
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ed.OutputExistsError, match="is a file"):
        save(tokens, tmp_path / "file", overwrite=overwrite)


def test_an_empty_folder_and_a_dataset_directory(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    (tmp_path / "o").mkdir()
    save(tokens, tmp_path / "o")
    assert read_all(tmp_path / "o") == EXPECTED
    documents(tmp_path / "built", limit=3)
    with pytest.raises(ed.OutputExistsError, match="another result"):
        save(tokens, tmp_path / "built")
    save(tokens, tmp_path / "built", overwrite=True, format="arrow")
    assert len(ed.open_dataset(tmp_path / "built")) == 120


def test_rows_of_unknown_identity_are_never_a_hit(tmp_path: Path) -> None:
    save(Stream([1, 2]), tmp_path / "o")
    with pytest.raises(ed.OutputExistsError):
        save(Stream([1, 2]), tmp_path / "o")
    save(Stream([3]), tmp_path / "o", overwrite=True)
    assert len(read_all(tmp_path / "o")) == 1


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_an_error_leaves_what_was_there(
    tokens: ed.TokenDataset, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing(Stream):
        def batches(self) -> Any:
            yield next(super().batches())
            raise KeyError("torn")

    folder = tmp_path / "o"
    with pytest.raises(KeyError, match="torn"):
        save(Failing([900] * 50), folder, format=form)
    assert not list(tmp_path.iterdir())
    save(tokens, folder, format=form)
    before = state_of(folder)
    with pytest.raises(KeyError, match="torn"):
        save(Failing([900] * 50), folder, format=form, overwrite=True, max_shard_size=5000)
    assert state_of(folder) == before
    assert os.listdir(tmp_path) == ["o"]

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(save_shards.ShardFolder, "finish", full)
    with pytest.raises(OSError, match="No space"):
        save(tokens, folder, format=form, num_shards=3, overwrite=True)
    assert state_of(folder) == before
    assert os.listdir(tmp_path) == ["o"]


KILLED = """
    import os, signal, sys
    from pathlib import Path
    import easydata as ed
    from easydata.pipeline.saving import save_results
    from tests.pipeline.saved import config

    folder, source, killer, calls = Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4])

    names = []

    def count(name):
        kept = getattr(os, name)
        def call(*arguments, **keywords):
            names.append(name)
            if name == killer and names.count(name) == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return kept(*arguments, **keywords)
        setattr(os, name, call)

    for name in ("fsync", "rename"):
        count(name)
    made = config(save={"output_dir": folder, "format": "arrow", "num_shards": 2,
                        "overwrite": True})
    save_results({"dataset_0": ed.open_dataset(source)}, made)
    print(*names)
"""


def test_a_killed_save_leaves_the_old_result_or_none(
    tokens: ed.TokenDataset, few: ed.TokenDataset, tmp_path: Path
) -> None:
    folder = tmp_path / "place" / "o"
    program = [sys.executable, "-c", textwrap.dedent(KILLED), folder, tokens.path]

    def rows_after(name: str, calls: int) -> int | None:
        """How many rows are there after a save that is killed at such a call."""
        shutil.rmtree(folder.parent, ignore_errors=True)
        save(few, folder)
        done = subprocess.run(
            [*program, name, str(calls)], capture_output=True, text=True, check=False
        )
        assert done.returncode == (-signal.SIGKILL if calls else 0), done.stderr
        names[:] = done.stdout.split() or names
        if not folder.exists():
            return None
        files = json.loads((folder / ".easydata-save.json").read_text())["files"]
        assert files.keys() <= {p.relative_to(folder).as_posix() for p in folder.rglob("*")}
        return len(read_all(folder))

    names: list[str] = []
    assert rows_after("rename", 0) == 120
    renames, syncs = names.count("rename"), names.count("fsync")
    assert syncs > 8
    assert rows_after("fsync", 2) == 4
    assert rows_after("rename", renames - 1) == 4
    assert rows_after("rename", renames) is None
    assert rows_after("fsync", syncs) == 120
    assert len(os.listdir(folder.parent)) == 2  # also the old result
    save(tokens, folder, overwrite=True, format="arrow", num_shards=2)
    assert os.listdir(folder.parent) == ["o"], "also if the result is there already"
    assert rows_after("fsync", syncs) == 120
    save(few, folder, overwrite=True)
    assert os.listdir(folder.parent) == ["o"]


@pytest.fixture
def memory() -> Any:
    filesystem = fsspec.filesystem("memory")
    filesystem.store.clear()
    filesystem.pseudo_dirs[:] = [""]
    yield filesystem
    filesystem.store.clear()


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_a_url(
    tokens: ed.TokenDataset,
    few: ed.TokenDataset,
    memory: Any,
    tmp_path: Path,
    form: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "easydata")
    url = "memory://bucket/o"
    assert save(tokens, url, format=form, num_shards=3) == url
    times = {name: memory.modified(name) for name in memory.store}
    assert max(times, key=times.__getitem__).endswith(".easydata-save.json")
    memory.get("/bucket/o/", str(tmp_path / "copy") + "/", recursive=True)
    assert read_all(tmp_path / "copy") == EXPECTED
    if form == "arrow":
        assert len(ed.open_dataset(tmp_path / "copy", verify="open")) == 120
    save(tokens, url, format=form, num_shards=3)
    assert "nothing to do" in caplog.records[-1].message
    assert {name: memory.modified(name) for name in memory.store} == times
    with pytest.raises(ed.OutputExistsError):
        save(few, url, format=form)
    save(few, url, format=form, overwrite=True)
    names = [name for name in memory.store if "/data-" in name]
    assert len(names) == 1
    memory.get(names[0], str(tmp_path / Path(names[0]).name))
    assert read_file(tmp_path / Path(names[0]).name) == EXPECTED[:4]


def test_a_url_that_is_broken_off_or_foreign(
    tokens: ed.TokenDataset, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/theirs/notes.txt", b"mine")
    with pytest.raises(ed.OutputExistsError, match=r"notes\.txt"):
        save(tokens, "memory://theirs", overwrite=True)
    put = type(memory).put_file
    calls: list[str] = []

    def broken(self: Any, *arguments: Any, **keywords: Any) -> None:
        calls.append(str(arguments))
        if len(calls) == 2:
            raise OSError("connection lost")
        put(self, *arguments, **keywords)

    monkeypatch.setattr(type(memory), "put_file", broken)
    with pytest.raises(ed.StorageError, match="connection lost"):
        save(tokens, "memory://o", num_shards=3)
    assert not memory.exists("/o/.easydata-save.json")
    save(tokens, "memory://o", num_shards=3)
    assert memory.exists("/o/.easydata-save.json")
    assert not memory.exists("/o/.easydata-save.unfinished")


def test_another_process_was_faster(few: ed.TokenDataset, tmp_path: Path) -> None:
    class Slow(Stream):
        def batches(self) -> Any:
            save(few, tmp_path / "o")
            yield from super().batches()

    with pytest.raises(ed.OutputExistsError):
        save(Slow([1, 2]), tmp_path / "o")
    assert read_all(tmp_path / "o") == EXPECTED[:4]
    assert os.listdir(tmp_path) == ["o"]
