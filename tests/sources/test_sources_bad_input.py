"""Broken rows and damaged files: what is said about them, and that the rest is read."""

from __future__ import annotations

import gc
import gzip
import os
import re
import tracemalloc

import pyarrow as pa
import pytest
import zstandard

from easydata.errors import SourceError
from easydata.sources import Fields, find_sources

JSONL_FAULTS = [
    (b'{"text": "b"', r"broken JSON at column 13: Expecting ',' delimiter"),
    (b'  {"text" "b"}', r"broken JSON at column 11: Expecting ':' delimiter"),
    (b'{"text": "caf\xe9"}', r"byte 0xe9 at column 14 is not UTF-8"),
    (b'{"text": "\\ud800x"}', r"field 'text' has the lone surrogate \\ud800 at character 0"),
    (b'{"text": "x\\UD800"}', r"broken JSON at column 12: Invalid \\escape"),
    (b'{"text": "a\\u00e9\\uDFFF"}', r"lone surrogate \\udfff at character 2"),
    (
        b'{"id": 1, "content": "b"}',
        (
            r"field 'text' is missing; the row has 'id', 'content'. "
            r"Pass text_field='content' \(--text-field content\)"
        ),
    ),
    (b"{}", r"field 'text' is missing; the row has no fields"),
    (b'{"text": 5}', r"field 'text' is 5, not text"),
    (b'{"text": null}', r"field 'text' is None, not text"),
    (b'["a"]', r"it is a list, not an object with fields"),
    (b'"a"', r"it is a string, not an object"),
    (b"7", r"it is a number, not an object"),
    (b"null", r"it is null, not an object"),
    (b'{"text": "a"} {"text": "b"}', r"broken JSON at column 15: Extra data"),
    (b"[" * 100_000, r"nested too deeply"),
    (b'{"text": "a", "n": ' + b"9" * 5000 + b"}", r"cannot be read: .*4300 digits"),
]


@pytest.mark.parametrize(("line", "reason"), JSONL_FAULTS)
@pytest.mark.parametrize("block_bytes", [10, 10_000_000])
def test_broken_lines_are_named_and_the_others_read(tmp_path, read, line, reason, block_bytes):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\n{"text": "a"}\n \n' + line + b'\n\n{"text": "c"}\n  \n\n')
    found = read(find_sources(path)[0], block_bytes=block_bytes)
    assert found.texts == ["a", "c"]
    [bad] = found.bad
    assert bad.startswith("row 1 (line 4): ")
    assert re.search(reason, bad)


def test_a_pair_of_surrogates_is_one_character(tmp_path, read):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "\\ud834\\udd1e"}\n')
    assert read(find_sources(path)[0]).texts == ["\U0001d11e"]


CSV_FAULTS = [
    (b"b", "it has 1 fields, and the header has 2: 'text', 'n'"),
    (b"b,1,2", "it has 3 fields, and the header has 2"),
    (b"caf\xe9,1", "byte 0xe9 at column 4 is not UTF-8"),
    (b'"a"b,1', "its fields cannot be told apart"),
    (b"a\rb,1", "its fields cannot be told apart"),
]


@pytest.mark.parametrize(("line", "reason"), CSV_FAULTS)
@pytest.mark.parametrize("block_bytes", [1, 1000])
def test_broken_csv_records(tmp_path, read, line, reason, block_bytes):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'\ntext,n\n"a\n",1\n' + line + b"\n\nc,3\n")
    found = read(find_sources(path)[0], block_bytes=block_bytes, n=pa.int64())
    assert (found.texts, found.kept) == (["a\n", "c"], {"n": [1, 3]})
    [bad] = found.bad
    assert bad.startswith(f"row 1 (line 5): {reason}")


def test_csv_quote_that_is_never_closed(tmp_path, read):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text\na\n"b\nc\n')
    found = read(find_sources(path)[0], block_bytes=4)
    assert found.texts == ["a"]
    assert found.bad[0].startswith("row 1 (line 3): its fields cannot be told apart")


def test_csv_quotes_inside_fields_stand_for_themselves(tmp_path, read):
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,n\na 5" pipe,1\n"say ""hi""",2\n')
    for block_bytes in range(1, 40):
        found = read(find_sources(path)[0], block_bytes=block_bytes)
        assert (found.texts, found.bad) == (['a 5" pipe', 'say "hi"'], [])


def test_csv_field_longer_than_the_limit_of_the_csv_module(tmp_path, read):
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "x" * 300_000 + "\n")
    assert len(read(find_sources(path)[0]).texts[0]) == 300_000


@pytest.mark.parametrize(
    ("header", "what"),
    [
        ("text,n,text", "names 'text' twice: 'text', 'n', 'text'"),
        ("text,,n", "has a field without a name"),
        ("body,n", "has no column 'text'; its header .line 1. has 'body', 'n'.*--text-field"),
        ("text,m", "has no column 'n'; .*'text', 'm'.*keep_fields"),
        ('"text"x,n', "cannot be read: its fields cannot be told apart"),
    ],
)
def test_csv_headers(tmp_path, read, header, what):
    path = tmp_path / "rows.csv"
    path.write_text(header + "\na,1\n")
    with pytest.raises(SourceError, match=what) as caught:
        read(find_sources(path)[0], n=pa.int64())
    assert str(path) in str(caught.value)


def test_csv_without_rows(tmp_path, read):
    path = tmp_path / "rows.csv"
    for content in ("text\n", "text", "\n\n"):
        path.write_text(content)
        found = read(find_sources(path)[0], block_bytes=1)
        assert (found.blocks, found.bad) == ([], [])


@pytest.mark.parametrize(
    ("unit", "row"), [("line", "row 1 (line 2): "), ("file", ": on its line 2: ")]
)
def test_text_that_is_not_utf8(tmp_path, read, unit, row):
    path = tmp_path / "rows.txt"
    path.write_bytes(b"one\ncaf\xe9\n")
    found = read(find_sources(path, text_rows=unit)[0])
    assert found.bad[0].startswith(f"{row}byte 0xe9 at column 4 is not UTF-8")
    assert found.texts == (["one"] if unit == "line" else [])


def test_paragraph_that_is_not_utf8(tmp_path, read):
    path = tmp_path / "rows.txt"
    path.write_bytes(b"one\n\n\n  two\n caf\xe9 x\n\n")
    found = read(find_sources(path, text_rows="paragraph")[0])
    [bad] = found.bad
    assert bad.startswith("row 1 (line 4): on its line 2: byte 0xe9 at column 5 is not UTF-8")


def test_damaged_compression(tmp_path, read, compress, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    content = b"".join(b'{"text": "%d"}\n' % number for number in range(2000))
    packed = compress(suffix, content)
    if not suffix:
        return
    for cut in (0, 1, 3, len(packed) // 2, len(packed) - 5, len(packed) - 1):
        path.write_bytes(packed[:cut])
        with pytest.raises(
            SourceError, match=r"Download or compress it again|starts with"
        ) as caught:
            read(find_sources(path)[0], block_bytes=1000)
        assert str(path) in str(caught.value)
        if cut > 10:
            assert "is cut short" in str(caught.value)
            assert "decompressed bytes" in str(caught.value)
    path.write_bytes(packed + packed[: len(packed) // 2])
    with pytest.raises(SourceError, match=r"is cut short.*breaks off after"):
        read(find_sources(path)[0], block_bytes=1000)
    middle = len(packed) // 2
    path.write_bytes(packed[:middle] + bytes(40) + packed[middle + 40 :])
    if suffix != ".zst":  # whose frames have no checksum unless asked for
        with pytest.raises(SourceError, match=r"is damaged|is cut short"):
            read(find_sources(path)[0], block_bytes=1000)


def test_checksum_of_zstd_is_verified(tmp_path, read):
    path = tmp_path / "rows.jsonl.zst"
    packed = bytearray(
        zstandard.ZstdCompressor(write_checksum=True).compress(b'{"text": "a"}\n' * 9)
    )
    packed[-1] ^= 1
    path.write_bytes(packed)
    with pytest.raises(SourceError, match="is damaged"):
        read(find_sources(path)[0])


def test_long_window_of_zstd(tmp_path, read):
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    path = tmp_path / "rows.jsonl.zst"
    with path.open("wb") as file:
        writer = zstandard.ZstdCompressor(compression_params=parameters).stream_writer(file)
        with writer:
            writer.write(b'{"text": "a"}\n')
    assert read(find_sources(path)[0]).texts == ["a"]


def test_wrong_extension_of_a_compressed_file(tmp_path, read, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(b'{"text": "a"}\n')
    if suffix:
        with pytest.raises(SourceError, match=r"rows.jsonl\S+ is not a \w+ file: it starts with"):
            read(find_sources(path)[0])


def test_file_that_vanishes_or_cannot_be_read(tmp_path, read):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n')
    [source] = find_sources(path)
    path.unlink()
    for action in (lambda: read(source), source.read_content_hash, lambda: source.nbytes):
        with pytest.raises(SourceError, match=f"{path} does not exist"):
            action()
    path.mkdir()
    with pytest.raises(SourceError, match=f"{path} cannot be read: Is a directory"):
        read(source)


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".lz4", ".bz2", ".xz"])
def test_memory_does_not_grow_with_the_file(tmp_path, compress, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    line = b'{"text": "%s"}\n' % (b"lorem ipsum " * 80)
    path.write_bytes(compress(suffix, line * 40_000))
    [source] = find_sources(path)
    tracemalloc.start()
    try:
        with source.open(["text"], 1 << 18) as reader:
            num_records = sum(block.num_records for block in reader)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert num_records == 40_000
    assert peak < 12_000_000 < 40_000 * len(line) / 3


def test_memory_of_a_json_array(tmp_path):
    path = tmp_path / "rows.json.gz"
    with gzip.open(path, "wb") as file:
        file.write(b"[" + b",\n".join([b'{"text": "%s"}' % (b"lorem " * 160)] * 20_000) + b"]")
    [source] = find_sources(path)
    tracemalloc.start()
    try:
        with source.open(["text"], 1 << 18) as reader:
            assert sum(block.num_records for block in reader) == 20_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 6_000_000


def test_readers_close_their_files(tmp_path, read, compress, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(compress(suffix, b'{"text": "a"}\n' * 100))
    [source] = find_sources(path)
    gc.collect()  # what other tests left open
    before = len(os.listdir("/proc/self/fd"))
    source.peek(["text"], 1)
    with source.open(["text"], 10) as reader:
        next(iter(reader))
    reader.close()
    read(source)
    assert len(os.listdir("/proc/self/fd")) == before


def test_csv_field_that_was_not_asked_for(tmp_path, read):
    path = tmp_path / "rows.csv"
    path.write_text("text\na\n")
    [block] = read(find_sources(path)[0]).blocks
    rows = block.rows(Fields("body"))
    assert (rows.texts, rows.bad[0].record) == ([], 0)
    assert rows.bad[0].reason == "field 'body' is missing; the header has 'text'"
    assert block.rows(Fields("text", {"n": pa.int64()})).kept["n"].to_pylist() == [None]
