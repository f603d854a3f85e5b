"""The rows of a build without the build: the same ones, and nothing is left behind."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import logging
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import easydata as ed
from easydata.build.prepare import check_request, prepare_job
from easydata.build.streamed import local_engine, stream_batches
from easydata.engine import SerialEngine

from .support import rows, write

ROWS = rows(700)
DEFAULTS = {name: item.default for name, item in inspect.signature(ed.build).parameters.items()}


def stream(sources, engine=None, **options):
    """What `build(sources, **options)` stores, as an iterator of record batches."""
    arguments = {**DEFAULTS, "tokenizer": "bytes", **options, "out": None}
    request = check_request(sources, arguments)
    job = prepare_job(request, arguments)
    return stream_batches(job, engine or local_engine(job, request))


def built(sources, out, **options) -> pa.Table:
    return ed.build(
        sources, out=out, **{"tokenizer": "bytes", **options}, progress="none"
    ).to_table()


def same(batches, table: pa.Table) -> None:
    found = pa.Table.from_batches(list(batches))
    assert found.schema.equals(table.schema)
    assert found.combine_chunks().equals(table.combine_chunks())


def swap(row):
    return {"text": row["text"][::-1], "id": -row["id"]} if row["id"] % 3 else None


OPTIONS = [
    {},
    {"keep_fields": ["id"], "add_bos": True},
    {"keep_fields": ["id"], "transform": swap},
    {"rename_fields": {"id": "text", "text": "old"}, "transform": lambda r: {**r, "id": "é"}},
    {"limit": 333},
    {"limit": 10**6},
    {"min_tokens": 120, "max_length": 200},
    {"max_length": 50, "padding": "max_length", "pad_token": 3, "attention_mask": True},
    {"padding": "longest", "batch_size": 7, "pad_token": 3, "part_size": "8kB"},
    {"padding": "longest", "batch_size": 10**6, "pad_token": 3, "part_size": "20kB"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o) or "plain")
def test_the_rows_of_jsonl_are_those_of_a_build(tmp_path, options):
    files = [write(tmp_path / f"{i}.jsonl", ROWS[i * 100 : i * 150 + 90]) for i in range(5)]
    table = built(files, tmp_path / "out", **options)
    assert table.num_rows > 100
    same(stream(files, **options), table)


@pytest.mark.parametrize("kind", ["parquet", "dicts", "table"])
def test_the_rows_of_other_sources_are_those_of_a_build(tmp_path, kind):
    source = ROWS if kind == "dicts" else pa.Table.from_pylist(ROWS)
    if kind == "parquet":
        pq.write_table(source, tmp_path / "a.parquet", row_group_size=90)
        source = tmp_path / "a.parquet"
    table = built(source, tmp_path / "out", keep_fields=["id"])
    same(stream(source, keep_fields=["id"]), table)
    assert table["id"].to_pylist() == list(range(len(ROWS)))


def test_workers_give_the_same_rows_in_the_same_order(tmp_path):
    source = write(tmp_path / "a.jsonl", rows(6000))
    table = built(source, tmp_path / "out", keep_fields=["id"], workers=1)
    same(stream(source, keep_fields=["id"], workers=2), table)


def broken(path: Path) -> Path:
    lines = write(path, rows(3000)).read_bytes().split(b"\n")
    for line in range(10, 2900, 240):
        lines[line] = b'{"text": 5}'
    path.write_bytes(b"\n".join(lines))
    return path


def test_a_broken_row_is_named_as_in_a_build_and_rows_before_it_came(tmp_path):
    good = write(tmp_path / "a.jsonl", rows(3000))
    bad = broken(tmp_path / "b.jsonl")
    with pytest.raises(ed.BadRowError) as expected:
        built([good, bad], tmp_path / "out")
    assert f"{bad}, row 10 (line 11)" in str(expected.value)
    batches = stream([good, bad], workers=1)
    seen: list[int] = []
    with pytest.raises(ed.BadRowError) as caught:
        seen.extend(batch.num_rows for batch in batches)
    assert str(caught.value) == str(expected.value)
    assert 2000 < sum(seen) <= 3010


def test_broken_rows_are_left_out_and_logged_as_in_a_build(tmp_path, caplog):
    source = broken(tmp_path / "a.jsonl")
    table = built(source, tmp_path / "out", on_error="skip")
    messages = [item.getMessage() for item in caplog.records if item.levelname == "WARNING"]
    assert len(messages) == 11
    assert messages[-1] == "13 broken rows were left out."
    caplog.clear()
    with caplog.at_level(logging.WARNING, "easydata"):
        same(stream(source, on_error="skip"), table)
    assert [item.getMessage() for item in caplog.records] == messages


def test_not_one_row_is_an_error(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS[:5])
    batches = stream(source, min_tokens=10**6)
    with pytest.raises(ed.SourceError, match=r"a\.jsonl gives not one row"):
        next(batches)


def test_splits_are_refused():
    with pytest.raises(ed.UsageError, match="splits is"):
        stream(ROWS, splits={"a": 0.5, "b": 0.5})


def test_an_iterator_is_read_once():
    arguments = {**DEFAULTS, "tokenizer": "bytes", "out": None}
    request = check_request(iter(ROWS), arguments)
    job = prepare_job(request, arguments)
    found = pa.Table.from_batches(list(stream_batches(job, SerialEngine)))
    assert found.num_rows == len(ROWS)
    with pytest.raises(ed.SourceError, match="an iterator can be read only once"):
        next(stream_batches(job, SerialEngine))


class Endless:
    """Rows without end, that tell how many were taken."""

    def __init__(self) -> None:
        self.taken = 0

    def __iter__(self):
        for number in itertools.count():
            self.taken += 1
            yield {"text": f"{number} " + "x" * 100}


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "easydata-worker"]


def children() -> int:
    """How many processes of the engine this one has started."""
    found = 0
    for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            found += b"easydata.engine.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return found


def test_an_abandoned_iteration_stops_its_processes():
    source = Endless()
    before = children()
    batches = stream(source, workers=2)
    first = next(batches)
    assert first["input_ids"][0].as_py() == [*f"0 {'x' * 100}".encode(), 256]
    assert source.taken < 60_000  # a bounded number ahead
    assert workers()
    batches.close()
    assert not workers()
    assert children() == before
    taken = source.taken
    assert next(batches, None) is None
    assert source.taken == taken


def test_an_abandoned_iteration_closes_its_files(tmp_path):
    source = write(tmp_path / "a.jsonl", rows(6000)).resolve()

    def is_open() -> bool:
        links = Path("/proc/self/fd").iterdir()
        return any(os.path.realpath(link) == str(source) for link in links)

    batches = stream(source, workers=1)
    next(batches)
    assert is_open()
    del batches
    assert not is_open()


def test_the_engine_is_made_for_each_iteration_and_ended_after_an_error(tmp_path):
    events = []

    class Noted(SerialEngine):
        def __enter__(self):
            events.append("begin")
            return self

        def __exit__(self, *exc_info):
            events.append("end")

    def maker():
        events.append("make")
        return Noted()

    source = write(tmp_path / "a.jsonl", ROWS)
    batches = stream(source, maker)
    assert events == []
    assert sum(batch.num_rows for batch in batches) == len(ROWS)
    assert events == ["make", "begin", "end"]
    with pytest.raises(ed.BadRowError):
        list(stream(broken(source), maker))
    assert events == ["make", "begin", "end"] * 2
