from __future__ import annotations

import itertools
import logging
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from datasets import load_from_disk
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import StorageError, UsageError
from easydata.loader.packing_plan import PackingPlan, plan_packing
from easydata.loader.plan_store import PLANS_FOLDER, remove_plans, stored_plan
from tests.full_disk import full_disk

from .test_packing import samples_of, slow_plan

STRATEGIES = ["greedy", "pool", "first_fit", "best_fit", "pad"]
LENGTHS = [8, 6, 6, 4, 0, 3, 20, 2, 3]


def never() -> Any:
    raise AssertionError("the lengths were asked for")


def files(directory: Path) -> list[Path]:
    return sorted((directory / PLANS_FOLDER).glob("[0-9a-f]*.arrow"))


def make(directory: Path, strategy: str = "best_fit") -> Path:
    """Store the plan of LENGTHS for samples of 8; its file."""
    before = files(directory)
    stored_plan(directory, "documents", lambda: LENGTHS, 8, strategy)
    (path,) = set(files(directory)) - set(before)
    return path


def same(plan: PackingPlan, other: PackingPlan) -> bool:
    return all(np.array_equal(a, vars(other)[name]) for name, a in vars(plan).items())


@settings(max_examples=120)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=40).filter(any),
    seq_len=st.integers(1, 24),
    strategy=st.sampled_from(STRATEGIES),
    num_packers=st.integers(1, 5),
)
def test_made_once_then_read(
    lengths: list[int], seq_len: int, strategy: str, num_packers: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asked = []

        def ask() -> Any:
            asked.append(1)
            return np.array(lengths)

        made, read = [
            stored_plan(Path(folder), "x", get, seq_len, strategy, num_packers=num_packers)
            for get in (ask, never)
        ]
        assert asked == [1]
        assert samples_of(made) == samples_of(read)
        assert samples_of(read) == slow_plan(lengths, seq_len, strategy, num_packers)
        fresh = plan_packing(lengths, seq_len, strategy, num_packers=num_packers)
        assert same(made, fresh)
        assert same(read, fresh)
        assert vars(read).keys() == vars(fresh).keys()
        for name, array in vars(fresh).items():
            if isinstance(array, np.ndarray):
                assert vars(read)[name].dtype == array.dtype
                assert not vars(read)[name].flags.writeable


def test_what_a_plan_is_kept_under(tmp_path: Path) -> None:
    """Other documents or another packing: another file. A name is for ever, or for a version."""

    def names(*changes: dict[str, Any]) -> list[str]:
        for change in changes:
            given: dict[str, Any] = {"identity": "x", "seq_len": 8, "strategy": "pool", **change}
            stored_plan(tmp_path, lengths=lambda: LENGTHS, **given)
        return [path.name for path in files(tmp_path)]

    assert names({}) == ["7f8fc1d3fe132fcd0c9248afc460a0b3.arrow"]
    assert len(names({"identity": "y"})) == 2
    assert len(names({"seq_len": 9})) == 3
    assert len(names({"num_packers": 3})) == 4
    assert len(names({"strategy": "greedy"})) == 5
    # The number of packers is for "pool" only; NumPy's integers are like Python's.
    again = names(
        {"strategy": "greedy", "num_packers": 3},
        {"num_packers": np.int64(4)},
        {"seq_len": np.uint16(8)},
    )
    assert len(again) == 5


def test_the_file_is_an_arrow_stream(tmp_path: Path) -> None:
    path = make(tmp_path)
    with pa.OSFile(str(path)) as file:
        reader = pa.ipc.open_stream(file)
        batches = list(reader)
    assert len(batches) == 1
    plan = PackingPlan.from_table(pa.Table.from_batches(batches))
    assert samples_of(plan) == slow_plan(LENGTHS, 8, "best_fit", 4)
    assert {item.name for item in path.parent.iterdir()} == {".lock", path.name}
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_the_arrays_are_mapped_and_outlive_the_file(tmp_path: Path) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 50_000)
    plans = [stored_plan(tmp_path, "x", get, 64, "first_fit") for get in (lambda: lengths, never)]
    (path,) = files(tmp_path)
    maps = [
        [int(end, 16) for end in line.split()[0].split("-")]
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(path))
    ]
    for plan in plans:
        for array in (plan.starts, plan.lengths, plan.first_piece):
            address = array.ctypes.data
            assert any(low <= address and address + array.nbytes <= high for low, high in maps)
    remove_plans(tmp_path)
    assert not (tmp_path / PLANS_FOLDER).exists()
    assert same(plans[1], plan_packing(lengths, 64, "first_fit"))


@settings(max_examples=60)
@given(data=st.data())
def test_a_damaged_plan_is_made_anew(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        path = make(directory)
        whole = path.read_bytes()
        how = data.draw(st.sampled_from(["flip", "cut", "extend", "zeros", "other"]))
        damaged = bytearray(whole)
        if how == "flip":
            place = data.draw(st.integers(0, len(whole) - 1))
            damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        elif how == "cut":
            del damaged[data.draw(st.integers(0, len(whole) - 1)) :]
        elif how == "extend":
            damaged += data.draw(st.binary(min_size=1, max_size=20))
        elif how == "zeros":
            place = data.draw(st.integers(0, len(whole) - 1))
            damaged[place:] = bytes(len(whole) - place)
        else:
            damaged[:] = make(directory, "greedy").read_bytes()
        path.write_bytes(damaged)
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logging.getLogger("easydata").addHandler(handler)
        try:
            plan = stored_plan(directory, "documents", lambda: LENGTHS, 8, "best_fit")
        finally:
            logging.getLogger("easydata").removeHandler(handler)
        assert samples_of(plan) == slow_plan(LENGTHS, 8, "best_fit", 4)
        if bytes(damaged) != whole:
            assert lines == [f"The packing plan {path} is made anew: the file is damaged."]
        assert path.read_bytes() == whole
        stored_plan(directory, "documents", never, 8, "best_fit")


def test_what_cannot_be_read_is_made_anew(tmp_path: Path, caplog: Any) -> None:
    path = make(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.warns(RuntimeWarning, match="is not stored, so each process makes it again: Can"):
        plan = stored_plan(tmp_path, "documents", lambda: LENGTHS, 8, "best_fit")
    assert samples_of(plan) == slow_plan(LENGTHS, 8, "best_fit", 4)
    (line,) = caplog.messages
    assert line.startswith(f"The packing plan {path} is made anew: ")


@pytest.mark.parametrize("why", ["full", "closed", "gone"])
def test_a_plan_that_cannot_be_stored(tmp_path: Path, why: str) -> None:
    directory = tmp_path / "dataset"
    if why != "gone":
        directory.mkdir()
    if why == "closed":
        (directory / PLANS_FOLDER).write_text("in the way")
    before = sorted(tmp_path.rglob("*"))
    asked = []

    def ask() -> Any:
        asked.append(1)
        return LENGTHS

    told = {"full": "is full. Free space", "closed": "File exists", "gone": "No such file"}[why]
    with full_disk(300 if why == "full" else 1 << 40), pytest.warns(RuntimeWarning) as caught:
        plan = stored_plan(directory, "documents", ask, 8, "best_fit")
    assert samples_of(plan) == slow_plan(LENGTHS, 8, "best_fit", 4)
    (warning,) = caught
    assert told in str(warning.message)
    assert str(directory / PLANS_FOLDER) in str(warning.message)
    assert warning.filename == __file__
    assert asked == [1]
    left = {path.name for path in set(tmp_path.rglob("*")) - set(before)}
    assert left <= {PLANS_FOLDER, ".lock"}
    if why == "full":  # and now there is room
        make(directory)
        stored_plan(directory, "documents", never, 8, "best_fit")


@pytest.mark.parametrize("error", [StorageError("a shard"), ZeroDivisionError("a bug")])
def test_an_error_of_the_lengths_is_not_hidden(tmp_path: Path, error: Exception) -> None:
    def fail() -> Any:
        raise error

    with pytest.raises(type(error), match=str(error)):
        stored_plan(tmp_path, "documents", fail, 8, "best_fit")
    assert files(tmp_path) == []
    make(tmp_path)  # the lock is free


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "concat"}, "'concat' needs no plan"),
        ({"strategy": "best-fit"}, "did you mean 'best_fit'"),
        ({"seq_len": 0}, "seq_len is 0"),
        ({"seq_len": 8.0}, r"seq_len is 8\.0"),
        ({"num_packers": 0}, "num_packers is 0"),
        ({"identity": ""}, "the identity of the documents is empty"),
        ({"lengths": lambda: [0]}, "nothing to pack"),
    ],
)
def test_wrong_arguments(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    given = {"identity": "x", "lengths": lambda: LENGTHS, "seq_len": 8, "strategy": "pad"}
    with pytest.raises(UsageError, match=message):
        stored_plan(tmp_path, **{**given, **changes})
    assert files(tmp_path) == []


PROGRAM = """
import os, signal, sys
from pathlib import Path
from easydata.loader import plan_store

directory, mode = Path(sys.argv[1]), sys.argv[2]

def die(*args):
    os.kill(os.getpid(), signal.SIGKILL)

def lengths():
    print("asked", flush=True)
    if mode == "wait":
        sys.stdin.readline()
    return [8, 6, 6, 4, 0, 3, 20, 2, 3]

if mode == "half":
    plan_store._BLOCK_BYTES = 100
    plan_store.Hasher = type("Dying", (), {"__init__": lambda *a: None, "update": die})
if mode == "whole":
    os.replace = die
plan = plan_store.stored_plan(directory, "documents", lengths, 8, "best_fit")
print(plan.fingerprint, flush=True)
"""


def start(directory: Path, mode: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM, str(directory), mode]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("mode", ["half", "whole"])
def test_killed_while_writing(tmp_path: Path, mode: str) -> None:
    with start(tmp_path, mode) as process:
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert files(tmp_path) == []
    assert any(path.name.startswith(".tmp-") for path in (tmp_path / PLANS_FOLDER).iterdir())
    path = make(tmp_path)
    assert {item.name for item in path.parent.iterdir()} == {".lock", path.name}
    plan = stored_plan(tmp_path, "documents", never, 8, "best_fit")
    assert samples_of(plan) == slow_plan(LENGTHS, 8, "best_fit", 4)


@pytest.mark.parametrize("is_killed", [False, True])
def test_one_process_makes_it_while_another_waits(tmp_path: Path, *, is_killed: bool) -> None:
    with start(tmp_path, "wait") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "asked\n"
        with start(tmp_path, "go") as second:
            assert second.stderr is not None
            line = second.stderr.readline()
            assert f"Waiting for another process that packs documents of {tmp_path}" in line
            if is_killed:
                first.kill()
                first.wait()
            ours = first.communicate(None if is_killed else "\n")[0]
            theirs, errors = second.communicate()
            fingerprint = plan_packing(LENGTHS, 8, "best_fit").fingerprint + "\n"
            assert ours == ("" if is_killed else fingerprint)
            assert theirs == ("asked\n" if is_killed else "") + fingerprint
            assert errors == ""
    stored_plan(tmp_path, "documents", never, 8, "best_fit")


def test_threads_make_it_once(tmp_path: Path) -> None:
    asked = itertools.count()

    def ask() -> Any:
        next(asked)
        return LENGTHS

    with ThreadPoolExecutor(4) as pool:
        plans = list(
            pool.map(lambda _: stored_plan(tmp_path, "documents", ask, 8, "pool"), range(8))
        )
    assert next(asked) == 1
    assert all(same(plan, plans[0]) for plan in plans)


def test_plans_of_other_documents_go(tmp_path: Path) -> None:
    for identity, seq_len in itertools.product("abc", (8, 16)):
        stored_plan(tmp_path, identity, lambda: LENGTHS, seq_len, "greedy")
    mapped = stored_plan(tmp_path, "c", never, 8, "greedy")
    remove_plans(tmp_path, keep=["a", "b"])
    assert len(files(tmp_path)) == 4
    for identity, seq_len in itertools.product("ab", (8, 16)):
        stored_plan(tmp_path, identity, never, seq_len, "greedy")
    assert same(mapped, plan_packing(LENGTHS, 8, "greedy"))
    remove_plans(tmp_path)
    remove_plans(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_does_not_mind(tmp_path: Path, capsys: Any) -> None:
    """Its readers, a rebuild that has nothing to do, and one that replaces it."""
    from easydata.cli import main

    texts = [f"Satz {i}. " * (i % 7) for i in range(50)]

    def build(count: int, **options: Any) -> Any:
        rows = [{"text": text} for text in texts[:count]]
        return ed.build(rows, tokenizer="bytes", out=tmp_path / "out", **options)

    dataset = build(50)
    before = [dataset.fingerprint, dataset.num_tokens, dataset.to_table()]
    plan = stored_plan(tmp_path / "out", dataset.fingerprint, dataset.lengths, 64, "best_fit")
    assert plan.num_tokens == dataset.num_tokens
    for again in (ed.open_dataset(tmp_path / "out", verify="open"), build(50)):
        assert [again.fingerprint, again.num_tokens, again.to_table()] == before
    assert (
        load_from_disk(str(tmp_path / "out"))["input_ids"][:]
        == dataset.to_table()["input_ids"].to_pylist()
    )
    assert main(["info", str(tmp_path / "out")]) == 0
    assert PLANS_FOLDER not in capsys.readouterr().out.replace(str(tmp_path), "")
    other = build(40, overwrite=True)
    assert len(load_from_disk(str(tmp_path / "out"))) == len(other) == 40
    assert same(plan, plan_packing(dataset.lengths(), 64, "best_fit"))
    fresh = stored_plan(tmp_path / "out", other.fingerprint, other.lengths, 64, "best_fit")
    assert fresh.num_tokens == other.num_tokens


def test_a_cache_of_datasets_does_not_mind(tmp_path: Path) -> None:
    rows = pa.table({"input_ids": pa.array([[1, 2, 3], [4]], pa.list_(pa.uint16()))})
    with ed.DatasetCache(tmp_path) as cache:
        cache.put("key", rows)
        (generation,) = tmp_path.glob("key-*/generation-*")  # `path` would keep it in use
        stored_plan(generation, "x", lambda: [3, 1], 4, "greedy")
        assert list(cache.keys()) == ["key"]
        stored_plan(cache.path("key"), "x", never, 4, "greedy")
        assert cache.get("key")["input_ids"][:] == [[1, 2, 3], [4]]
    with ed.DatasetCache(tmp_path) as cache:
        cache.invalidate("key")
    assert not list(tmp_path.rglob(PLANS_FOLDER))
