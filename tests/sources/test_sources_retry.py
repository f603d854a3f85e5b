"""Servers that fail for a while: what is read again, from where, and what is said."""

from __future__ import annotations

import errno
import http.server
import logging
import threading
from collections import Counter

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from easydata.errors import SourceError, SourceNotFoundError, UsageError
from easydata.fingerprint.files import FileStamp
from easydata.sources import find_sources

LINES = b"".join(b'{"text": "row %d"}\n' % number for number in range(2000))
TEXTS = [f"row {number}" for number in range(2000)]


class Flaky(MemoryFileSystem):
    """A file system in memory that fails on schedule.

    Attributes:
        failing: the calls that fail, by what is called and how often it was called so far.
        piece: the most bytes that one read gives.
    """

    protocol = "flaky"
    store = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False
    failing = {}  # noqa: RUF012
    calls = Counter()  # noqa: RUF012
    piece = 1 << 30
    error = ConnectionError("no answer")
    etag = "1"
    can_seek = True

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.replace("flaky://", "memory://"))

    @classmethod
    def call(cls, what):
        cls.calls[what] += 1
        if cls.calls[what] in cls.failing.get(what, ()):
            raise cls.error

    def info(self, path, **options):
        self.call("info")
        return {**super().info(path, **options), "ETag": type(self).etag}

    def glob(self, path, **options):
        self.call("glob")
        return super().glob(path, **options)

    def invalidate_cache(self, path=None):
        self.calls["invalidate"] += 1

    def open(self, path, mode="rb", **options):
        if "r" in mode:
            self.call("open")
            return FlakyFile(super().open(path, mode, **options).getvalue())
        return super().open(path, mode, **options)


class FlakyFile:
    """Takes note of the bytes that were asked for."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def seek(self, offset, whence=0):
        if not Flaky.can_seek:
            raise ValueError("Cannot seek streaming HTTP file")
        self.at = offset + (len(self.data) if whence == 2 else 0)
        return self.at

    def read(self, size):
        found = self.data[self.at : self.at + min(size, Flaky.piece)]
        self.at += len(found)
        return found

    def readinto(self, buffer):
        Flaky.call("read")
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        Flaky.calls["bytes"] += len(found)
        return len(found)

    def close(self):
        Flaky.call("close")


@pytest.fixture
def flaky(monkeypatch):
    """The file system, with nothing failing and no calls so far."""
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    fresh = {"failing": {}, "calls": Counter(), "piece": 1 << 30, "etag": "1", "can_seek": True}
    for name, value in {**fresh, "store": {}, "error": ConnectionError("no answer")}.items():
        monkeypatch.setattr(Flaky, name, value)
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    Flaky.waits = waits
    fsspec.filesystem("flaky").pipe("/a.jsonl", LINES)
    return Flaky


def test_reading_goes_on_where_it_broke_off(flaky, read, caplog):
    flaky.piece = 10_000
    [source] = find_sources("flaky://a.jsonl", retry_delay=0.5)
    flaky.failing = {"read": {2, 3, 4}}
    found = read(source)
    assert found.texts == TEXTS
    assert found.content_hash == source.read_content_hash()
    assert flaky.calls["bytes"] == 2 * len(LINES)  # the second time for the hash
    assert flaky.waits == [0.5, 1.0, 2.0]
    assert flaky.calls["invalidate"] == 1 + 3  # when it is listed, and when it is opened anew
    assert [record.getMessage() for record in caplog.records] == [
        f"flaky://a.jsonl cannot be read: no answer. Retry {number} of 3 in {seconds} s."
        for number, seconds in ((1, "0.5"), (2, "1"), (3, "2"))
    ]
    assert {(record.name, record.levelno) for record in caplog.records} == {
        ("easydata", logging.WARNING)
    }


def test_failures_apart_from_each_other_count_apart(flaky, read):
    flaky.piece = 1000
    [source] = find_sources("flaky://a.jsonl", retries=1, retry_delay=1)
    flaky.failing = {"read": set(range(2, 60, 2)), "close": {3}}
    assert read(source).texts == TEXTS
    assert set(flaky.waits) == {1.0}
    assert len(flaky.waits) > 20


def test_reading_fails_in_the_end(flaky, read):
    [source] = find_sources("flaky://a.jsonl", retries=2, retry_delay=100)
    flaky.piece = 1000
    flaky.failing = {"read": {3, 4, 5}}
    with pytest.raises(SourceError) as caught:
        read(source)
    assert str(caught.value) == "flaky://a.jsonl cannot be read after 3 attempts: no answer."
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert flaky.waits == [60.0, 60.0]
    flaky.calls.clear()
    [once] = find_sources("flaky://a.jsonl", retries=0)
    flaky.failing = {"read": {1}}
    with pytest.raises(SourceError, match=r"^flaky://a.jsonl cannot be read: no answer\.$"):
        read(once)
    assert flaky.calls["read"] == 1


@pytest.mark.parametrize("what", ["open", "info"])
def test_opening_is_tried_again(flaky, read, what):
    [source] = find_sources("flaky://a.jsonl")
    before = flaky.calls[what]
    flaky.failing = {what: {before + 1, before + 2}}
    assert read(source).texts == TEXTS
    assert flaky.waits == [1.0, 2.0]


@pytest.mark.parametrize(
    ("error", "kind", "what"),
    [
        (FileNotFoundError("a"), SourceNotFoundError, "flaky://a.jsonl does not exist. Check the"),
        (PermissionError(errno.EACCES, "refused"), SourceError, "cannot be read: refused"),
    ],
)
def test_a_refusal_is_final(flaky, read, error, kind, what):
    flaky.error = error
    for call in ("read", "open", "info"):
        [source] = find_sources("flaky://a.jsonl")
        flaky.failing = {call: {flaky.calls[call] + 1}}
        with pytest.raises(kind, match=what):
            read(source)
        flaky.failing = {}
    assert flaky.waits == []


@pytest.mark.parametrize("error", [TimeoutError(), OSError(errno.EIO, "input/output error")])
def test_other_failures_are_tried_again(flaky, read, error):
    flaky.error = error
    flaky.failing = {"read": {1}}
    assert read(find_sources("flaky://a.jsonl")[0]).texts == TEXTS


def test_a_file_that_changed_is_not_read_on(flaky, read, monkeypatch):
    flaky.piece = 1000
    [source] = find_sources("flaky://a.jsonl")
    flaky.failing = {"read": {3}}

    def change(seconds):
        flaky.etag = "2"

    monkeypatch.setattr("time.sleep", change)
    with pytest.raises(SourceError, match=r"flaky://a.jsonl changed while it was read\."):
        read(source)
    flaky.failing = {"read": {flaky.calls["read"] + 3}}

    def cut(seconds):
        fsspec.filesystem("flaky").pipe("/a.jsonl", LINES[:-10])

    monkeypatch.setattr("time.sleep", cut)
    with pytest.raises(SourceError, match="changed while it was read"):
        read(source)


def test_server_that_sends_whole_files_only(flaky, read):
    flaky.can_seek = False
    flaky.piece = 1000
    flaky.failing = {"read": {4, 9}}
    [source] = find_sources("flaky://a.jsonl")
    assert read(source).texts == TEXTS
    with fsspec.filesystem("flaky").open("/t.parquet", "wb") as file:
        pq.write_table(pa.table({"text": ["a"]}), file)
    with pytest.raises(SourceError, match=r"t\.parquet cannot be read: Cannot seek streaming"):
        read(find_sources("flaky://t.parquet")[0])
    with source.place.open() as file:
        assert (file.read(10), file.seek(-4, 1), file.tell()) == (LINES[:10], 6, 6)
        with pytest.raises(SourceError, match="Or download the file first"):
            file.read(10)


@pytest.mark.parametrize("kind", ["parquet", "stream", "file"])
def test_tables_are_read_on_too(flaky, read, kind):
    flaky.piece = 700
    table = pa.table({"text": TEXTS, "n": range(2000)})
    path = "t.parquet" if kind == "parquet" else "t.arrow"
    with fsspec.filesystem("flaky").open(f"/{path}", "wb") as file:
        if kind == "parquet":
            pq.write_table(table, file, row_group_size=100)
        else:
            make = pa.ipc.new_stream if kind == "stream" else pa.ipc.new_file
            with make(file, table.schema) as writer:
                writer.write_table(table, max_chunksize=100)
    flaky.failing = {"read": set(range(3, 10_000, 5))}
    [source] = find_sources(f"flaky://{path}")
    found = read(source, n=pa.int64())
    assert (found.texts, found.kept["n"]) == (TEXTS, list(range(2000)))
    assert len(flaky.waits) > 5
    flaky.failing = {"read": set(range(flaky.calls["read"] + 20, 10**6))}
    with pytest.raises(SourceError, match=rf"{path} cannot be read after 4 attempts: no answer"):
        read(source, n=pa.int64())


def test_listing_is_tried_again_and_anew(flaky, read):
    flaky.failing = {"glob": {1, 2}}
    [source] = find_sources("flaky://*.jsonl")
    assert (flaky.waits, read(source).texts) == ([1.0, 2.0], TEXTS)
    assert flaky.calls["invalidate"] == 1
    flaky.calls.clear()
    flaky.failing = {"glob": {1, 2, 3, 4}}
    with pytest.raises(SourceError, match=r"\*\.jsonl cannot be looked up after 4 attempts: no an"):
        find_sources("flaky://*.jsonl")
    flaky.failing = {"info": {1}}
    flaky.calls.clear()
    assert find_sources("flaky://a.jsonl")[0].nbytes == len(LINES)
    with pytest.raises(SourceNotFoundError, match="matches no file"):
        find_sources("flaky://*.csv")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"retries": -1}, "retries is -1; give a whole number"),
        ({"retries": True}, "retries is True"),
        ({"retries": 1.5}, r"retries is 1\.5"),
        ({"retry_delay": -0.1}, r"retry_delay is -0\.1; give a number of seconds"),
        ({"retry_delay": float("nan")}, "retry_delay is nan"),
        ({"retry_delay": "1"}, "retry_delay is '1'"),
    ],
)
def test_options_that_cannot_be(tmp_path, options, what):
    with pytest.raises(UsageError, match=what):
        find_sources(tmp_path, **options)


def test_stamps_of_remote_files(flaky):
    [source] = find_sources("flaky://a.jsonl")
    before = source.stamp()
    assert before == FileStamp.of_info("flaky:///a.jsonl", {"size": len(LINES), "ETag": "1"})
    assert source.stamp().matches(before)
    flaky.etag = "2"
    assert not source.stamp().matches(before)
    flaky.failing = {"info": {flaky.calls["info"] + 1}}
    assert source.stamp().size == len(LINES)
    assert flaky.waits == [1.0]


class Handler(http.server.BaseHTTPRequestHandler):
    """Serves one file, and breaks off every answer to a first request for a range."""

    def do_HEAD(self):
        self.answer(send=False)

    def do_GET(self):
        self.answer(send=True)

    def answer(self, *, send):
        wanted = self.headers.get("Range")
        if "missing" in self.path:
            self.send_error(404)
            return
        start, stop = 0, len(LINES)
        if wanted:
            start, last = map(int, wanted.removeprefix("bytes=").split("-"))
            stop = min(last + 1, stop)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(LINES)}")
        self.send_header("ETag", '"x"')
        self.end_headers()
        if not send:
            return
        server = self.server
        is_first = wanted not in server.asked
        server.asked.append(wanted)
        self.wfile.write(LINES[start : start + 10] if is_first else LINES[start:stop])
        self.close_connection = True

    def log_message(self, *args):
        pass


def test_real_http_server_that_breaks_off(flaky, read, caplog):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            [source] = find_sources(f"{url}/a.jsonl", storage_options={"block_size": 8192})
            assert (source.nbytes, source.stamp().modified) == (len(LINES), 'ETag "x"')
            assert read(source, block_bytes=1000).texts == TEXTS
            with pytest.raises(SourceNotFoundError, match=r"missing.jsonl does not exist"):
                find_sources(f"{url}/missing.jsonl")
        finally:
            server.shutdown()
            thread.join()
    assert flaky.waits
    # Nothing listens there any more.
    with pytest.raises(SourceError, match=r"a\.jsonl cannot be read after 4 attempts: "):
        read(source)
