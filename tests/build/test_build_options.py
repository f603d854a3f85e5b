"""Every option of `build` has an effect, is checked, and has the same name everywhere."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest
import typer.main
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry

import easydata as ed
from easydata.build.api import BuildKeywords
from easydata.cli.main import app

from .support import everything, rows, texts, write

TEXTS = texts(60, words=20)
PARAMETERS = inspect.signature(ed.build).parameters


def spoken(ds: ed.TokenDataset) -> list[str]:
    return [ds.decode(i) for i in range(len(ds))]


def ids(ds: ed.TokenDataset) -> list[list[int]]:
    return ds.to_table()["input_ids"].to_pylist()


def plain(text: str) -> list[int]:
    return list(text.encode())


def odd_rows_in_capitals(row: dict[str, Any]) -> dict[str, Any] | None:
    return {"text": row["text"].upper()} if row["id"] % 2 else None


# What each option changes, seen on a small dataset; "default" is the same build without it.
EFFECTS: dict[str, tuple[dict[str, Any], Callable[[ed.TokenDataset, ed.TokenDataset], bool]]] = {
    "text_field": (
        {"text_field": "other"},
        lambda ds, _: spoken(ds) == [text[::-1] for text in TEXTS],
    ),
    "keep_fields": (
        {"keep_fields": ["id"]},
        lambda ds, _: ds.column("id").to_pylist() == list(range(60)),
    ),
    "schema": (
        {"keep_fields": ["id"], "schema": {"id": "int8"}},
        lambda ds, _: ds.column("id").type == pa.int8(),
    ),
    "type": (
        {"type": "text", "text_rows": "line"},
        lambda ds, _: json.loads(ds.decode(3))["text"] == TEXTS[3],
    ),
    "text_rows": (
        {"type": "text", "text_rows": "file"},
        lambda ds, _: len(ds) == 1 and ds.decode(0).count("\n") == 60,
    ),
    "compression": (
        {"compression": "zstd"},
        lambda ds, default: ds.ledger.shard_bytes.sum() < default.ledger.shard_bytes.sum(),
    ),
    "format": (
        {"format": "parquet"},
        lambda ds, _: ds.ledger.shard_name(0).endswith(".parquet"),
    ),
    "dtype": ({"dtype": "int64"}, lambda ds, _: ds.dtype == np.int64),
    "shard_size": (
        {"shard_size": "3kB", "part_size": "2kB"},
        lambda ds, _: ds.ledger.num_shards > 1,
    ),
    "part_size": (
        {"part_size": "1100"},
        lambda ds, default: len(ds.ledger.parts()) > len(default.ledger.parts()),
    ),
    "add_bos": (
        {"add_bos": True, "bos_token": 65},
        lambda ds, _: ids(ds)[5] == [65, *plain(TEXTS[5]), 256],
    ),
    "add_eos": ({"add_eos": False}, lambda ds, _: ids(ds)[5] == plain(TEXTS[5])),
    "bos_token": (
        {"add_bos": True, "bos_token": 66},
        lambda ds, _: {row[0] for row in ids(ds)} == {66},
    ),
    "eos_token": ({"eos_token": 67}, lambda ds, _: {row[-1] for row in ids(ds)} == {67}),
    "min_tokens": (
        {"min_tokens": 80},
        lambda ds, _: spoken(ds) == [text for text in TEXTS if len(text.encode()) >= 80],
    ),
    "max_length": (
        {"max_length": 10},
        lambda ds, _: ids(ds)[5] == [*plain(TEXTS[5])[:9], 256] and ds.num_tokens <= 600,
    ),
    "limit": ({"limit": 7}, lambda ds, _: spoken(ds) == TEXTS[:7]),
    "transform": (
        {"transform": odd_rows_in_capitals},
        lambda ds, _: spoken(ds) == [text.upper() for text in TEXTS[1::2]],
    ),
    "rename_fields": (
        {"rename_fields": {"text": "was", "other": "text"}},
        lambda ds, _: spoken(ds) == [text[::-1] for text in TEXTS],
    ),
    "padding": (
        {"padding": "longest", "batch_size": 4, "pad_token": 0},
        lambda ds, _: [len(row) for row in ids(ds)][:4] == [max(map(len, ids(ds)[:4]))] * 4,
    ),
    "batch_size": (
        {"padding": "longest", "batch_size": 60, "pad_token": 0},
        lambda ds, _: len({len(row) for row in ids(ds)}) == 1,
    ),
    "pad_token": (
        {"padding": "max_length", "max_length": 500, "pad_token": 77},
        lambda ds, _: {row[-1] for row in ids(ds)} == {77},
    ),
    "attention_mask": (
        {"padding": "max_length", "max_length": 500, "pad_token": 0, "attention_mask": True},
        lambda ds, _: (
            "attention_mask" in ds.to_table().column_names
            and ds.column("attention_mask")[3].as_py()
            == [1] * (len(plain(TEXTS[3])) + 1) + [0] * (499 - len(plain(TEXTS[3])))
        ),
    ),
}
ELSEWHERE = {
    "sources": "test_build_determinism",
    "tokenizer": "test_build_hit",
    "out": "everywhere",
    "on_error": "test_skipped_rows_are_counted_and_named",
    "splits": "test_build_splits",
    "transform_version": "test_build_identity",
    "hash_fn": "test_build_identity",
    "engine": "test_build_ray",
    "retries": "below",
    "retry_delay": "below",
    "trust_remote_code": "test_tokenizer_loading",
    "overwrite": "test_build_hit",
    "storage_options": "below",
    "workers": "below",
    "parse_special": "below",
    "progress": "below",
    "dry_run": "below",
    **dict.fromkeys(("seq_len", "pack", "shuffle", "seed", "segment_ids"), "test_build_samples"),
}


@pytest.fixture
def source(tmp_path) -> Path:
    found = [{"text": t, "other": t[::-1], "id": i} for i, t in enumerate(TEXTS)]
    return write(tmp_path / "a.jsonl", found)


def test_no_option_is_without_a_test_of_its_effect():
    assert {*EFFECTS, *ELSEWHERE} == set(PARAMETERS)


@pytest.mark.parametrize("name", EFFECTS)
def test_an_option_has_its_effect(tmp_path, source, name):
    options, is_seen = EFFECTS[name]
    default = ed.build(source, tokenizer="bytes", out=tmp_path / "default")
    assert spoken(default) == TEXTS
    changed = ed.build(source, tokenizer="bytes", out=tmp_path / "changed", **options)
    assert is_seen(changed, default)
    # The same test fails on the default, so it is this option that it sees.
    if name not in ("type", "text_rows", "schema"):
        try:
            assert not is_seen(default, default)
        except KeyError:
            assert name == "keep_fields"


def test_workers_work_in_processes(tmp_path, source, monkeypatch):
    import subprocess

    started = []
    real = subprocess.Popen

    class Noted(real):
        def __init__(self, command, *args, **kwargs):
            started.append(command)
            super().__init__(command, *args, **kwargs)

    monkeypatch.setattr(subprocess, "Popen", Noted)
    ed.build(source, tokenizer="bytes", out=tmp_path / "one", workers=1)
    ed.build(source, tokenizer="bytes", out=tmp_path / "auto")  # small input
    assert started == []
    source = write(tmp_path / "b.jsonl", rows(300))
    ed.build(source, tokenizer="bytes", out=tmp_path / "three", workers=3, part_size="2kB")
    assert len(started) == 3
    assert all("easydata.engine.worker" in command for command in started)


def test_special_tokens_in_text_are_parsed_when_asked(tmp_path):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({"a": 0, "<": 1, "eos": 2, ">": 3}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Punctuation()
    tokenizer.add_special_tokens([AddedToken("<eos>")])
    eos = tokenizer.token_to_id("<eos>")
    given = [{"text": "a<eos>"}]
    for parse, expected in ((False, [0, 1, 2, 3, eos]), (True, [0, eos, eos])):
        ds = ed.build(given, tokenizer=tokenizer, out=tmp_path / str(parse), parse_special=parse)
        assert ds[0]["input_ids"].tolist() == expected


class LockedFileSystem(MemoryFileSystem):
    """Opens only with the right key."""

    cachable = False

    def __init__(self, key: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if key != "sesame":
            raise PermissionError("wrong key")


def test_storage_options_reach_the_file_system(tmp_path, monkeypatch):
    with fsspec.filesystem("memory").open("/options/a.txt", "wb") as file:
        file.write(b"behind a lock")
    monkeypatch.setitem(_registry, "memory", LockedFileSystem)
    given = {"tokenizer": "bytes", "out": tmp_path / "out"}
    ds = ed.build("memory://options/a.txt", storage_options={"key": "sesame"}, **given)
    assert spoken(ds) == ["behind a lock"]
    with pytest.raises(ed.SourceError):
        ed.build("memory://options/a.txt", storage_options={"key": "x"}, **given)


class FlakyFileSystem(MemoryFileSystem):
    """Opens a file only when asked the third time."""

    cachable = False
    left = 2

    def open(self, path, mode="rb", **kwargs):
        if "r" in mode and type(self).left:
            type(self).left -= 1
            raise ConnectionError("reset by peer")
        return super().open(path, mode, **kwargs)


@pytest.mark.parametrize(("retries", "is_enough"), [(1, False), (2, True)])
def test_a_remote_file_is_tried_again(tmp_path, monkeypatch, retries, is_enough):
    with fsspec.filesystem("memory").open("/flaky/a.txt", "wb") as file:
        file.write(b"at last")
    monkeypatch.setitem(_registry, "memory", FlakyFileSystem)
    monkeypatch.setattr(FlakyFileSystem, "left", 2)
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    given = {"tokenizer": "bytes", "out": tmp_path / "out", "retries": retries}
    if is_enough:
        ds = ed.build("memory://flaky/a.txt", retry_delay=0.25, **given)
        assert spoken(ds) == ["at last"]
        assert waited == [0.25, 0.5]
    else:
        with pytest.raises(ed.SourceError, match="reset by peer"):
            ed.build("memory://flaky/a.txt", retry_delay=0.25, **given)


def test_progress_is_quiet_or_json_or_a_bar(tmp_path, source, capfd):
    shown = {}
    for kind in ("auto", "none", "json", "rich", "tqdm"):
        ed.build(source, tokenizer="bytes", out=tmp_path / kind, progress=kind)
        captured = capfd.readouterr()
        assert captured.out == ""
        shown[kind] = captured.err
    assert shown["auto"] == shown["none"] == ""
    lines = [json.loads(line) for line in shown["json"].splitlines()]
    assert lines[-1]["message"].startswith(f"{tmp_path / 'json'}: 60 rows, ")
    for kind in ("rich", "tqdm"):
        counted = f"60 rows, {ed.open_dataset(tmp_path / kind).num_tokens:,} tokens"
        assert counted in shown[kind]


def test_progress_counts_up_to_the_whole_input(tmp_path, source, capfd, monkeypatch):
    from easydata.build import progress

    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0)
    ed.build(source, tokenizer="bytes", out=tmp_path / "o", progress="json", part_size="1100")
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()][:-1]
    assert len(lines) > 5
    for name in ("bytes_done", "rows", "tokens", "seconds"):
        values = [line[name] for line in lines]
        assert values == sorted(values)
    size = source.stat().st_size
    assert {line["bytes_total"] for line in lines} == {size}
    assert lines[-1]["bytes_done"] == size
    assert lines[-1]["rows"] == 60


def test_the_live_line_shows_rates_and_the_time_left(monkeypatch):
    import io

    from rich.console import Console

    from easydata.build import progress

    text = io.StringIO()
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN", 0)
    monkeypatch.setattr(
        "rich.console.Console", lambda **_: Console(file=text, force_terminal=True, width=160)
    )
    with progress.make_progress("rich") as shown:
        shown.update(progress.Snapshot(5_000_000, 10_000_000, 2_000, 1_500_000))
        shown.update(progress.Snapshot(6_000_000, 10_000_000, 2_500, 2_500_000))
        shown._bar.refresh()
    for part in ("6.0 MB", "2,500 rows", "2.5 M tokens", "rows/s", "tokens/s"):
        assert part in text.getvalue()


@pytest.mark.parametrize("kind", ["file", "compressed", "iterable"])
def test_a_dry_run_is_about_right_and_writes_nothing(tmp_path, kind):
    import zstandard

    data = rows(4000, seed=3)
    path = write(tmp_path / "in" / "a.jsonl", data)
    source: Any = path
    if kind == "compressed":
        source = tmp_path / "in" / "b.jsonl.zst"
        source.write_bytes(zstandard.compress(path.read_bytes()))
    if kind == "iterable":
        source = data
    out = tmp_path / "out"
    before = everything(tmp_path)
    found = ed.build(source, tokenizer="bytes", out=out, dry_run=True, workers=1)
    assert everything(tmp_path) == before
    assert not out.exists()
    assert isinstance(found, ed.BuildEstimate)
    assert found.sampled_rows > 0
    assert found.workers == 1
    if kind == "iterable":
        assert found.input_bytes is found.rows is found.tokens is None
        return
    assert found.input_bytes == source.stat().st_size
    ds = ed.build(source, tokenizer="bytes", out=out, workers=1)
    size = sum(p.stat().st_size for p in out.glob("data-*"))
    for name, truth in (("rows", 4000), ("tokens", ds.num_tokens), ("output_bytes", size)):
        assert 0.75 * truth < getattr(found, name) < 1.25 * truth
    assert found.seconds > 0


WRONG = {
    "keep_fields": ["id", ["id", "id"]],
    "schema": [{"id": "int99"}],
    "type": ["xlsx"],
    "text_rows": ["word"],
    "compression": ["zip", "zstd:23", "zstd:", "lz4:3", ""],
    "format": ["feather"],
    "workers": [0, -1, True],
    "dtype": ["float32", "uint8", "int7"],
    "shard_size": ["0", "-1", "big", "1 XB", 0, 1.5, True],
    "part_size": ["0", "12 parsecs", 100],
    "bos_token": ["<nothing>", -1, 70_000],
    "eos_token": ["<nothing>", -1, 70_000],
    "min_tokens": [-1],
    "max_length": [0, -5],
    "batch_size": [0, -1, True],
    "padding": ["left", True, "longest"],
    "hash_fn": ["md5", None],
    "rename_fields": ["a=b", {"a": 1}, {"a": "c", "b": "c"}],
    "transform": ["upper", 5],
    "transform_version": ["1"],
    "attention_mask": [True, "yes"],
    "overwrite": ["yes"],
    "dry_run": [1],
    "shuffle": ["block"],
    "segment_ids": [None],
    "parse_special": ["x"],
    "engine": ["ray"],
    "limit": [0, -1],
    "on_error": ["ignore"],
    "progress": ["bar"],
    "splits": [{}, {"a": 1.0, "b": 0.5}, {"a": 0}, {"a/b": 1}, {"a": "1"}, {"": 1.0}, {"a": -1}],
    "out": ["s3://bucket/out"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_a_wrong_value_is_refused_by_name(tmp_path, source, name, value):
    options = {"tokenizer": "bytes", "out": tmp_path / "out", name: value}
    if name == "schema":
        options["keep_fields"] = ["id"]
    if name == "bos_token":
        options["add_bos"] = True
    before = everything(tmp_path)
    with pytest.raises(ed.UsageError) as caught:
        ed.build(source, **options)
    message = str(caught.value)
    assert name in message or f"--{name.replace('_', '-')}" in message
    assert everything(tmp_path) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["workers", "min_tokens", "max_length", "limit"])
@pytest.mark.parametrize("value", ["3", 2.5])
def test_a_number_of_another_type_is_refused_by_name(tmp_path, source, name, value):
    with pytest.raises(ed.UsageError, match=name):
        ed.build(source, tokenizer="bytes", out=tmp_path / "out", **{name: value})


def test_python_the_types_and_the_command_line_have_the_same_options():
    command = typer.main.get_command(app).commands["build"]
    options = {param.name for param in command.params} - {"help"}
    only_python = {"transform", "transform_version", "engine"}
    assert options | only_python == set(PARAMETERS)
    typed = {"sources", "tokenizer", "out", "splits", "dry_run"}
    assert set(BuildKeywords.__annotations__) | typed == set(PARAMETERS)
    for param in command.params:
        default = PARAMETERS[param.name].default
        if default is inspect.Parameter.empty:
            assert param.required
        else:
            assert (param.default or None) == (default or None), param.name


def test_the_parent_environment_is_left_alone(tmp_path, source):
    before = dict(os.environ)
    ed.build(source, tokenizer="bytes", out=tmp_path / "out", workers=2)
    assert dict(os.environ) == before
