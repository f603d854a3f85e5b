"""What changes while a build runs: modules that workers import anew, files, the tokenizer."""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import time

import pyarrow as pa
import pytest
from pyarrow import parquet

import easydata as ed
from easydata.build import run as build_run
from easydata.build.sources_changed import source_differences, stamp_text
from easydata.engine import RayEngine
from easydata.fingerprint import fingerprint_bytes
from easydata.sources.file_source import FileSource
from easydata.sources.raw import Place
from tests.rays import small_ray

from .reports import report
from .support import environment, jsonl, rows, shards, write

ROWS = rows(200)
HELPERS = """
LIMIT = 10
SEEN = {}

def shorten(row):
    SEEN[row["id"]] = True
    return {**row, "text": row["text"][:LIMIT]}

class Lazy:
    def __init__(self):
        self.limit = None

    def __call__(self, row):
        if self.limit is None:
            self.limit = LIMIT
        return {**row, "text": row["text"][:self.limit]}
"""


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "a.jsonl", ROWS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


@pytest.fixture
def helpers(tmp_path, monkeypatch):
    """A module of the user, on the path of this process and so of its workers."""
    (tmp_path / "code").mkdir()
    name = f"helpers_{time.time_ns()}"
    (tmp_path / "code" / f"{name}.py").write_text(HELPERS)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield importlib.import_module(name)
    del sys.modules[name]


def texts_of(out):
    table = ed.open_dataset(out).to_table()["input_ids"].to_pylist()
    return [bytes(row[:-1]).decode() for row in table]


EXPECTED = [row["text"][:10] for row in ROWS]


@pytest.mark.parametrize("how", ["memory", "disk"])
def test_workers_that_import_another_transform_are_told(source, out, helpers, how):
    if how == "memory":
        helpers.LIMIT = 3
    else:
        path = helpers.__file__
        with open(path, "w") as file:
            file.write(HELPERS.replace("LIMIT = 10", "LIMIT = 3  # longer, so no stale .pyc"))
    said = rf"the transform shorten is another one in worker.*: global {helpers.__name__}\.LIMIT"
    with pytest.raises(ed.UsageError, match=said) as caught:
        report(source, out, transform=helpers.shorten, workers=2, on_error="skip")
    assert "workers=1" in str(caught.value)
    assert not (out / "state.json").exists()
    report(source, out, transform=helpers.shorten)
    assert texts_of(out) == [row["text"][: helpers.LIMIT] for row in ROWS]


@pytest.mark.parametrize("name", ["shorten", "Lazy"])
def test_what_a_transform_keeps_for_itself_is_no_difference(source, out, helpers, name):
    made = getattr(helpers, name)
    transform = made() if name == "Lazy" else made
    # That types are inferred runs it here, before the workers get it.
    report(source, out, transform=transform, workers=2, keep_fields=["id"])
    assert helpers.SEEN if name == "shorten" else transform.limit
    assert texts_of(out) == EXPECTED


def test_with_a_version_nothing_is_compared_as_the_docs_say(source, out, helpers):
    helpers.LIMIT = 3
    report(source, out, transform=helpers.shorten, transform_version="1", workers=2)
    assert texts_of(out) == EXPECTED  # of the module as it is on the disk


@pytest.fixture(scope="module")
def on_ray():
    with small_ray(), RayEngine(2, modules=["easydata.build.task"]) as engine:
        yield engine


def build_on(engine, source, out, transform):
    return ed.build(source, tokenizer="bytes", out=out, transform=transform, engine=engine)


def test_ray_workers_are_compared_too(source, out, helpers, on_ray):
    build_on(on_ray, source, out, helpers.shorten)
    assert texts_of(out) == EXPECTED
    helpers.LIMIT = 3
    with pytest.raises(ed.UsageError, match=r"is another one in worker .*LIMIT changed"):
        build_on(on_ray, source, out.with_name("other"), helpers.shorten)


SCRIPT = """
import re, sys
import easydata as ed
from easydata.engine import RayEngine

LIMIT = int(sys.argv[2])
DIGIT = re.compile("[0-9]")

class Rules:
    sign = "!"

    def __init__(self):
        self.calls = 0

    def cut(self, text):
        self.calls += 1
        return DIGIT.sub("#", text[:LIMIT]) + self.sign

RULES = Rules()

def clean(row, *, table={"x": 1}):
    return {"text": RULES.cut(row["text"])}

def make(limit):
    return lambda row: {"text": clean(row)["text"][:limit]}

with RayEngine(1, address=sys.argv[1], resources_per_worker={"CPU": 0}) as engine:
    for name, transform in ("clean", clean), ("made", make(4)):
        ed.build(
            "a.jsonl", out=name, tokenizer="bytes", transform=transform, engine=engine,
            part_size="4kB", progress="none",
        )
"""


def test_a_transform_of_the_script_itself_is_the_same_on_ray(tmp_path, source, on_ray):
    import ray

    address = ray.get_runtime_context().gcs_address
    subprocess.run(
        [sys.executable, "-c", SCRIPT, address, "7"], cwd=tmp_path, env=environment(), check=True
    )
    expected = ["".join("#" if c in "0123456789" else c for c in r["text"][:7]) for r in ROWS]
    assert texts_of(tmp_path / "clean") == [text + "!" for text in expected]
    assert texts_of(tmp_path / "made") == [(text + "!")[:4] for text in expected]


def as_jsonl(values):
    return jsonl(values)


def as_parquet(values):
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(values), sink)
    return sink.getvalue()


def as_arrow(values):
    table = pa.Table.from_pylist(values)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_stream(values):
    table = pa.Table.from_pylist(values)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


KINDS = {
    "a.jsonl": as_jsonl,
    "a.parquet": as_parquet,
    "a.arrow": as_arrow,
    "a.feather": as_stream,
}


class Meanwhile:
    """A tokenizer that does something when the first rows have been read."""

    def __init__(self, action):
        self.action = action

    def __call__(self, texts):
        action, self.action = self.action, lambda: None
        action()
        return [[len(text) % 7] for text in texts]


def replaced(path, content):
    other = path.with_name("other")
    other.write_bytes(content)
    os.replace(other, path)


def in_place(path, content):
    with open(path, "r+b") as file:
        file.write(content[:1])


def gone(path, _):
    path.unlink()


@pytest.mark.parametrize("change", [replaced, in_place, gone])
@pytest.mark.parametrize("name", KINDS)
def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, out, caplog, name, change):
    make = KINDS[name]
    path, content = tmp_path / name, make(ROWS)
    path.write_bytes(content)
    os.utime(path, ns=(10**18, 10**18))  # whatever the ticks of the file system's clock
    other = make([{**row, "text": row["text"][::-1]} for row in ROWS])

    def built(action):
        encode = Meanwhile(action)
        tokenizer = ed.CallableTokenizer(encode, vocab_size=9, identity="mod 7", eos_id=8)
        return report(path, out, tokenizer=tokenizer, part_size="2kB")

    found = built(lambda: change(path, other))
    entry = ed.open_dataset(out).ledger.source(0)
    assert (entry["hash"], entry["stamp"]) == (None, None)
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith(f"{path} changed while it was read")

    # The next build compares parts, and knows the file from then on.
    before = shards(out)
    path.write_bytes(other)
    with pytest.raises(ed.OutputExistsError, match="a dataset of other rows"):
        built(lambda: None)
    path.write_bytes(content)
    again = built(lambda: None).outcome
    assert again.reused == again.parts == found.outcome.parts
    assert ed.open_dataset(out).ledger.source(0)["hash"] == fingerprint_bytes(content)
    assert built(lambda: None).outcome is None
    assert shards(out) == before


@pytest.mark.parametrize("name", KINDS)
def test_the_hash_is_of_the_file_that_the_rows_came_from(tmp_path, name):
    path, content = tmp_path / name, KINDS[name](ROWS)
    path.write_bytes(content)
    (source,) = ed.sources.find_sources(path)
    with source.open(["text"], 2000) as reader:
        blocks = iter(reader)
        count = next(blocks).num_records
        replaced(path, KINDS[name](ROWS[:20]))
        assert count + sum(block.num_records for block in blocks) == len(ROWS)
        assert reader.content_hash == fingerprint_bytes(content)


class Store:
    """A file system that keeps listings, and tells of a file what it is told to tell."""

    def __init__(self, content, **tells):
        self.content, self.tells = content, tells
        self.kept = None

    def info(self, _path):
        if self.kept is None:
            self.kept = {"size": len(self.content), **self.tells}
        return self.kept

    def invalidate_cache(self, _path):
        self.kept = None

    def unstrip_protocol(self, path):
        return f"store://{path}"

    def open(self, _path, _mode):
        return io.BytesIO(self.content)


def test_a_remote_file_is_asked_for_anew(out, caplog):
    store = Store(jsonl(ROWS), ETag="1")
    source = FileSource(Place("store://a.jsonl", "a.jsonl", store), "jsonl")
    store.info("a.jsonl")  # as a listing does
    store.tells["ETag"] = "2"
    assert source.stamp().modified == "ETag 1"
    assert source.stamp(fresh=True).modified == "ETag 2"
    assert source.stamp().modified == "ETag 2"


@pytest.mark.parametrize("hash_fn", ["path", "combined", "content"])
def test_where_a_store_tells_no_time_files_are_read(hash_fn):
    store = Store(jsonl(ROWS))
    source = FileSource(Place("store://a.jsonl", "a.jsonl", store), "jsonl")
    known = {
        "name": source.name,
        "hash": source.read_content_hash(),
        "stamp": stamp_text(source.stamp()),
    }
    assert source_differences([known], [source], hash_fn) == []
    store.content = store.content.swapcase()
    expected = ["the content of store://a.jsonl changed"]
    assert source_differences([known], [source], hash_fn) == expected


def tokenizer_file(path, words):
    from tokenizers import Tokenizer, models

    vocabulary = {word: i for i, word in enumerate(["[UNK]", "</s>", *words])}
    Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).save(str(path))
    return path


def test_a_tokenizer_swapped_while_a_build_starts_is_not_taken_for_the_first(
    tmp_path, source, out, monkeypatch
):
    path = tokenizer_file(tmp_path / "tokenizer.json", ["the", "cat"])
    first = path.read_bytes()
    real = build_run.prepare_job

    def swap_and_prepare(*arguments):
        tokenizer_file(path, ["the", "cat", "sat"])
        return real(*arguments)

    monkeypatch.setattr(build_run, "prepare_job", swap_and_prepare)
    report(source, out, tokenizer=path)
    monkeypatch.setattr(build_run, "prepare_job", real)
    assert ed.open_dataset(out).ledger.metadata["request"] is None
    assert report(source, out, tokenizer=path).outcome is None
    path.write_bytes(first)
    with pytest.raises(ed.OutputExistsError, match="vocab 5 → 4"):
        report(source, out, tokenizer=path)
