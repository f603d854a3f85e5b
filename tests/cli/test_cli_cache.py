"""`easydata ls`, `get`, `stats` and `gc`: output, exit codes, and that looking changes nothing."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import easydata as ed
from easydata.cache.log import output
from easydata.cli import main
from tests.cache.layers import Clock, stopped_clock

from .terminal import easydata

DAY = 86400
HOUR = 3601  # stamps run ahead of a clock that stands still, by nanoseconds
IDS = np.arange(100, dtype=np.uint16)


def written(clock: Clock) -> str:
    return dt.datetime.fromtimestamp(clock.nanoseconds // 10**9, dt.UTC).strftime(
        "%Y-%m-%dT%H:%M:%SZ"
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that `written` can read: its stamps are whole seconds, as far as is shown."""
    return stopped_clock(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path, clock: Clock) -> Path:
    """A sealed zstd cache, of which one entry expires after an hour."""
    path = tmp_path / "keyed"
    with ed.DiskCache(path, "zstd") as cache:
        cache.put("doc/1", {"ids": IDS, "n": 3}, ed.CacheMetadata(source_hash="abc"))
        cache.put("doc/2", {"ids": IDS[:2], "n": 4})
        cache.put("other", [1, 2.5, None], expiry_seconds=3600)
        cache.put("replaced", "old")
        cache.put("replaced", "new")
        cache.put("deleted", 1)
        cache.invalidate("deleted")
    return path


def run(capsys: pytest.CaptureFixture[str], *words: Any, code: int = 0) -> str:
    """What a command prints; errors if it fails as it should."""
    assert main([str(word) for word in words]) == code
    shown = capsys.readouterr()
    if code:
        assert not shown.out
        assert shown.err.count("\n") == 1
        assert "Traceback" not in shown.err
        return shown.err
    assert not shown.err
    return shown.out


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_ls_has_a_line_for_each_entry_sorted_by_key(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = run(capsys, "ls", folder).splitlines()
    assert [line.split()[4] for line in lines] == ["doc/1", "doc/2", "other", "replaced"]
    now = written(clock)
    clock.go(3600)
    until = written(clock)
    assert re.fullmatch(
        rf"{now}  always +\d+ B  doc/1  \{{ids: uint16\[100\], n: int\}}  \(metadata\)", lines[0]
    )
    assert re.fullmatch(rf"{now}  {until} +\d+ B  other  list\[3\]", lines[2])
    clock.go(1)
    keys = [line.split()[4] for line in run(capsys, "ls", folder).splitlines()]
    assert keys == ["doc/1", "doc/2", "replaced"], "an expired entry is not listed"


def test_ls_takes_a_prefix_and_a_limit(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(run(capsys, "ls", folder, "--prefix", "doc/").splitlines()) == 2
    lines = run(capsys, "ls", folder, "--limit", "1").splitlines()
    assert len(lines) == 2
    assert lines[1] == "… and 3 more"
    assert run(capsys, "ls", folder, "--prefix", "nothing") == ""
    assert "--limit" in run(capsys, "ls", folder, "--limit", "0", code=2)


def test_ls_as_json(folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    first, _, other, last = map(json.loads, run(capsys, "ls", folder, "--json").splitlines())
    assert first["key"] == "doc/1"
    assert first["written"] == pytest.approx(clock.nanoseconds / 1e9, abs=1e-3)
    assert first["expires"] is None
    assert first["bytes"] > IDS.nbytes
    assert first["metadata"]["source_hash"] == "abc"
    assert first["value"] == "{ids: uint16[100], n: int}"
    assert other["expires"] == pytest.approx(other["written"] + 3600)
    assert last["metadata"] is None


def test_keys_cannot_do_anything_to_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ed.DiskCache(tmp_path / "keyed") as cache:
        cache.put("a\n\x1b[31mb", {"\x1b[31m": 1})
    assert "\x1b" not in run(capsys, "ls", tmp_path / "keyed")
    assert "\x1b" not in run(capsys, "get", tmp_path / "keyed", "a\n\x1b[31mb")


def test_get_shows_a_value_for_people(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = run(capsys, "get", folder, "doc/1")
    assert shown == "ids: uint16[100] 0 1 2 3 4 5 6 7 …\nn: 3\n"
    assert run(capsys, "get", folder, "other") == "[1, 2.5, None]\n"
    assert run(capsys, "get", folder, "replaced") == "'new'\n"
    lines = run(capsys, "get", folder, "doc/1", "--metadata").splitlines()
    assert "source hash     abc" in lines
    assert not [line for line in lines if line.startswith("config hash")]
    assert run(capsys, "get", folder, "doc/2", "--metadata").endswith("metadata        none\n")


def test_get_cuts_what_is_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ed.DiskCache(tmp_path / "keyed") as cache:
        cache.put("text", "x" * 5000)
    assert run(capsys, "get", tmp_path / "keyed", "text").endswith(" … (4,002 more characters)\n")
    assert run(capsys, "get", tmp_path / "keyed", "text", "--json") == f'"{"x" * 5000}"\n'


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ({"ids": IDS, "pair": (1, None), "x": np.float32(0.5)}, None),
        (np.zeros((2, 2), bool), [[False, False], [False, False]]),
        ([dt.date(2024, 5, 6), dt.datetime(2024, 5, 6, 7)], ["2024-05-06", "2024-05-06T07:00:00"]),
        (pa.table({"a": [1, 2]}), [{"a": 1}, {"a": 2}]),
        (pd.DataFrame({"a": [1.5]}), [{"a": 1.5}]),
    ],
    ids=["dict", "array", "times", "table", "frame"],
)
def test_get_as_json(
    value: Any, plain: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ed.DiskCache(tmp_path / "keyed") as cache:
        cache.put("k", value, ed.CacheMetadata(num_examples=7))
    if plain is None:
        plain = {"ids": IDS.tolist(), "pair": [1, None], "x": 0.5}
    assert json.loads(run(capsys, "get", tmp_path / "keyed", "k", "--json")) == plain
    both = json.loads(run(capsys, "get", tmp_path / "keyed", "k", "--json", "--metadata"))
    assert both["value"] == plain
    assert both["metadata"]["num_examples"] == 7


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"x": [b"abc"]}, "'k'['x'][0] is of type bytes"),
        (float("nan"), "'k' is nan"),
        (np.array([1j]), "'k' is of type ndarray"),
    ],
)
def test_what_json_does_not_have_is_named(
    value: Any, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with ed.DiskCache(tmp_path / "keyed") as cache:
        cache.put("k", value)
    assert says in run(capsys, "get", tmp_path / "keyed", "k", "--json", code=2)


def test_a_missing_key_is_exit_code_1(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for key in ("nothing", "deleted"):
        assert repr(key) in run(capsys, "get", folder, key, code=1)
    clock.go(HOUR)
    run(capsys, "get", folder, "other", code=1)


def test_stats(folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(run(capsys, "stats", folder, "--json"))
    segments = len(list(folder.glob("seg-*.arrow")))
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert found["path"] == str(folder)
    assert (found["entries"], found["expired"]) == (4, 0)
    assert 0 < found["bytes"] <= size
    assert (found["segments"], found["growing"]) == (segments, 0)
    assert found["codecs"] == {"zstd ipc": segments}
    assert found["damage"] == []
    for name in ("oldest", "newest"):
        assert found[name] == pytest.approx(clock.nanoseconds / 1e9, abs=1e-3)
    growing = ed.DiskCache(folder)
    clock.go(HOUR)
    growing.put("late", {"ids": IDS, "n": 5})
    lines = run(capsys, "stats", folder).splitlines()
    assert "entries         4" in lines, "one more, and one expired"
    assert "expired         1 more, which gc removes" in lines
    assert f"segments        {segments + 1}, of which 1 growing" in lines
    assert f"newest          {written(clock)}" in lines
    assert "damage          none" in lines


def test_stats_says_what_is_damaged(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = max(folder.glob("seg-*.arrow"), key=lambda path: path.stat().st_size)
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    found = json.loads(run(capsys, "stats", folder, "--json"))
    assert len(found["damage"]) == 1
    assert path.name in found["damage"][0]


def test_looking_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(folder)
    for words in (["ls"], ["stats"], ["get"], ["gc", "--dry-run", "--max-size", "1B"]):
        key = ["doc/1"] if words == ["get"] else []
        run(capsys, words[0], folder, *key, *words[1:])
    assert content(folder) == before


def test_gc_removes_what_is_expired_and_keeps_the_compression(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.go(HOUR)
    for option in ([], ["--expired"]):
        plan = run(capsys, "gc", folder, *option, "--dry-run")
        assert plan == "Entries to remove: 1 expired. Nothing was changed.\n"
    before = sum(map(len, content(folder).values()))
    shown = run(capsys, "gc", folder)
    assert re.fullmatch(
        r"Removed entries: 1 expired\.\nFreed [\d.]+ k?B\. Left: 3 in [\d.]+ k?B\.\n", shown
    )
    assert "Freed 0 B" not in shown
    assert sum(map(len, content(folder).values())) < before
    found = json.loads(run(capsys, "stats", folder, "--json"))
    assert (found["entries"], found["expired"]) == (3, 0)
    assert list(found["codecs"]) == ["zstd ipc"]


def test_gc_of_what_is_expired_leaves_the_rest_alone(
    folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.go(HOUR)
    before = content(folder)
    run(capsys, "gc", folder, "--expired")
    after = content(folder)
    kept = [name for name in before if name.startswith("seg-") and name in after]
    assert kept
    with ed.DiskCache(folder, readonly=True) as cache:
        assert cache.keys() == ["doc/1", "doc/2", "replaced"]


def test_gc_compacts_parquet_as_parquet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keyed"
    for number in range(3):
        with ed.DiskCache(path, "gzip") as cache:
            cache.put(f"{number}", {"ids": IDS})
    run(capsys, "gc", path, "--compact")
    found = json.loads(run(capsys, "stats", path, "--json"))
    assert found["codecs"] == {"gzip parquet": 1}
    assert found["entries"] == 3


@pytest.mark.parametrize(
    ("age", "days"), [("36h", 1.5), ("1.5d", 1.5), ("2160m", 1.5), ("129600s", 1.5), ("1w", 7)]
)
def test_gc_of_what_is_old(
    age: str, days: float, folder: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    clock.go(days * DAY + 1)
    with ed.DiskCache(folder) as cache:
        cache.put("doc/2", "newer")
        cache.put("late", 1)
    plan = run(capsys, "gc", folder, "--older-than", age, "--dry-run")
    assert plan.startswith("Entries to remove: ")
    assert re.search(r"\b2 older than that", plan)
    shown = run(capsys, "gc", folder, "--older-than", age)
    assert f"2 older than {age}." in shown
    with ed.DiskCache(folder, readonly=True) as cache:
        assert cache.keys() == ["doc/2", "late"]
        assert cache.get("doc/2") == ("newer", None)


def test_gc_down_to_a_size(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keyed"
    with ed.DiskCache(path) as cache:
        for number in range(50):
            clock.go(1)
            cache.put(f"{number:02}", np.arange(10_000) + number)
    assert "take 3." in run(capsys, "gc", path, "--max-size", "1MB", "--dry-run")
    shown = run(capsys, "gc", path, "--max-size", "1MB")
    evicted = int(re.search(r"(\d+) least recently used", shown)[1])  # type: ignore[index]
    assert sum(map(len, content(path).values())) <= 1_000_000
    with ed.DiskCache(path, readonly=True) as cache:
        assert cache.keys() == [f"{number:02}" for number in range(evicted, 50)]
    assert "0 least recently used" in run(capsys, "gc", path, "--max-size", "1MB")


def test_gc_of_a_cache_with_a_limit_knows_what_was_used(
    tmp_path: Path, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keyed"
    with ed.DiskCache(path, size_limit="100MB") as cache:
        for number in range(50):
            clock.go(1)
            cache.put(f"{number:02}", np.arange(10_000) + number)
        clock.go(1)
        cache.get("00")
    run(capsys, "gc", path, "--max-size", "2MB")
    with ed.DiskCache(path, readonly=True) as cache:
        assert cache.contains("00")
        assert not cache.contains("01")


@pytest.mark.parametrize("age", ["7", "d", "-1d", "0d", "7 days", "1y"])
def test_an_age_that_is_none_is_told(
    age: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert f"--older-than is {age!r}" in run(capsys, "gc", folder, "--older-than", age, code=2)


@pytest.mark.parametrize("command", ["ls", "get", "stats", "gc"])
def test_what_is_no_cache_is_told_and_not_made_one(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = ["k"] if command == "get" else []
    missing = tmp_path / "missing"
    assert "missing does not exist" in run(capsys, command, missing, *key, code=2)
    assert not missing.exists()
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "is not a cache" in run(capsys, command, empty, *key, code=2)
    assert not list(empty.iterdir())
    file = tmp_path / "file"
    file.touch()
    assert "is a file" in run(capsys, command, file, *key, code=2)
    ed.build([{"text": "a"}], tokenizer="bytes", out=tmp_path / "dataset", progress="none")
    shares = {"a": 0.5, "b": 0.5}
    ed.build([{"text": "a"}], tokenizer="bytes", out=tmp_path / "splits", splits=shares)
    capsys.readouterr()
    for name in ("dataset", "splits"):
        said = run(capsys, command, tmp_path / name, *key, code=2)
        assert f"{name} is a dataset, not a cache. See: easydata info" in said
        assert not list((tmp_path / name).glob("easydata-cache*"))


def test_the_program_reads_what_this_process_is_still_writing(tmp_path: Path) -> None:
    cache = ed.DiskCache(tmp_path / "keyed")
    cache.put("k", {"ids": IDS[:3]})
    done = easydata("get", tmp_path / "keyed", "k", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {"ids": [0, 1, 2]}
    removed = easydata("gc", tmp_path / "keyed")
    assert removed.returncode == 0
    assert cache.contains("k")


def test_an_interrupted_gc_leaves_everything(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    before = {path.name for path in folder.glob("seg-*")}
    keys = ed.DiskCache(folder, readonly=True).keys()
    monkeypatch.setattr(output.Output, "finish", interrupted)
    shown = run(capsys, "gc", folder, code=130)
    assert shown == "Interrupted. Nothing was left half done.\n"
    assert {path.name for path in folder.glob("seg-*")} == before
    assert not list(folder.glob(".tmp*"))
    assert ed.DiskCache(folder, readonly=True).keys() == keys


def test_a_limit_that_cannot_be_met_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = run(capsys, "gc", folder, "--max-size", "1B")
    assert shown.endswith(
        "That is more than 1B: the newest entry stays, as does what still grows.\n"
    )
    assert len(ed.DiskCache(folder, readonly=True)) == 1


def test_output_that_cannot_be_written_is_one_line(folder: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "easydata", "ls", str(folder)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("Error: Cannot write the output: ")
    assert done.stderr.count("\n") == 1


def test_any_time_in_metadata_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with ed.DiskCache(tmp_path) as cache:
        cache.put("k", 1, ed.CacheMetadata(created_at=1e30))
    assert "1e+30 s" in run(capsys, "get", tmp_path, "k", "--metadata")
