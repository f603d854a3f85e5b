"""Every format, in every compression, gives the rows that were written."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from easydata.errors import BadRowError, SourceError
from easydata.fingerprint import fingerprint_bytes
from easydata.sources import ByteBlock, Fields, TableBlock, find_sources, infer_types

ROWS = [
    {"text": "one", "n": 1},
    {"text": 'two, "quoted"\nline', "n": 2},
    {"text": "", "n": 3},
    {"text": "drei 𝄞 é", "n": 4},
    {"text": "x" * 300, "n": None},
]
TEXTS = [row["text"] for row in ROWS]
NUMBERS = [row["n"] for row in ROWS]


def _table() -> pa.Table:
    return pa.Table.from_pylist(ROWS)


def _arrow_stream() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, _table().schema) as writer:
        writer.write_table(_table(), max_chunksize=2)
    return sink.getvalue()


def _arrow_file() -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, _table().schema) as writer:
        writer.write_table(_table(), max_chunksize=2)
    return sink.getvalue()


def _parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(_table(), sink, row_group_size=2)
    return sink.getvalue()


def _delimited(mark: str) -> bytes:
    lines = [f"n{mark}text"]
    for row in ROWS:
        text = row["text"].replace('"', '""')
        lines.append(f'{"" if row["n"] is None else row["n"]}{mark}"{text}"')
    return ("\r\n".join(lines) + "\r\n").encode()


CONTENTS = {
    ".jsonl": "".join(json.dumps(row) + "\n" for row in ROWS).encode(),
    ".ndjson": "\r\n\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS).encode(),
    ".json": json.dumps(ROWS, indent=2).encode(),
    ".csv": _delimited(","),
    ".tsv": _delimited("\t"),
    ".arrow": _arrow_stream(),
}


@pytest.mark.parametrize("block_bytes", [1, 50, 1 << 20])
@pytest.mark.parametrize("extension", CONTENTS)
def test_round_trip(tmp_path, read, compress, suffix, *, extension, block_bytes):
    path = tmp_path / f"rows{extension}{suffix}"
    path.write_bytes(compress(suffix, CONTENTS[extension]))
    [source] = find_sources(path)
    found = read(source, block_bytes=block_bytes, n=pa.int64())
    assert found.texts == TEXTS
    assert found.kept == {"n": NUMBERS}
    assert found.bad == []
    assert (source.name, source.is_file) == (str(path), True)
    assert found.bytes_read == source.nbytes == path.stat().st_size
    assert found.content_hash == source.read_content_hash()
    assert found.content_hash == fingerprint_bytes(path.read_bytes())


@pytest.mark.parametrize(
    ("extension", "content"),
    [(".arrow", _arrow_file()), (".feather", _arrow_file()), (".parquet", _parquet())],
)
def test_files_with_an_index(tmp_path, read, extension, content):
    path = tmp_path / f"rows{extension}"
    path.write_bytes(content)
    [source] = find_sources(path)
    found = read(source, n=pa.int64())
    assert (found.texts, found.kept) == (TEXTS, {"n": NUMBERS})
    assert found.bytes_read == source.nbytes
    assert found.content_hash == source.read_content_hash() == fingerprint_bytes(content)


@pytest.mark.parametrize(
    ("extension", "content", "what"),
    [(".arrow", _arrow_file(), "not a stream"), (".parquet", _parquet(), "Parquet inside gzip")],
)
def test_files_with_an_index_cannot_be_compressed(
    tmp_path, read, compress, *, extension, content, what
):
    path = tmp_path / f"rows{extension}.gz"
    path.write_bytes(compress(".gz", content))
    [source] = find_sources(path)
    with pytest.raises(SourceError, match=rf"{path}.*{what}.*Decompress"):
        read(source)


def test_several_frames_are_one_stream(tmp_path, read, compress, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    parts = [b'{"text": "a"}\n{"te', b'xt": "b"}\n', b'{"text": "c"}']
    path.write_bytes(b"".join(compress(suffix, part) for part in parts))
    assert read(find_sources(path)[0]).texts == ["a", "b", "c"]


def test_text_file_is_one_row(tmp_path, read, compress, suffix):
    path = tmp_path / f"doc.txt{suffix}"
    content = "\ufeffone\r\n\r\n  two\n"
    path.write_bytes(compress(suffix, content.encode()))
    found = read(find_sources(path)[0], block_bytes=3, n=pa.int32())
    assert found.texts == [content.removeprefix("\ufeff")]
    assert found.kept == {"n": [None]}
    assert found.blocks[0].locate(0) == ""


def test_text_lines_and_paragraphs(tmp_path, read):
    path = tmp_path / "doc.txt"
    path.write_bytes(b"\n \n  one \r\ntwo\r\n\r\n \nthree\n\nfour")
    for block_bytes in range(1, 40):
        lines = read(find_sources(path, text_rows="line")[0], block_bytes=block_bytes)
        assert lines.texts == ["", " ", "  one ", "two", "", " ", "three", "", "four"]
        found = read(find_sources(path, text_rows="paragraph")[0], block_bytes=block_bytes)
        assert found.texts == ["  one \r\ntwo", "three", "four"]
    assert [block.locate(0) for block in lines.blocks][:1] == ["row 0 (line 1)"]
    one = ByteBlock.join(found.blocks)
    assert [one.locate(i) for i in range(3)] == [
        "row 0 (line 3)",
        "row 1 (line 7)",
        "row 2 (line 9)",
    ]


def test_text_file_without_bound_is_refused(tmp_path, read):
    path = tmp_path / "huge.txt"
    with path.open("wb") as file:
        file.truncate((64 << 20) + 1)
    with pytest.raises(SourceError, match=rf"{path} has a record of more than .*text_rows="):
        read(find_sources(path)[0], block_bytes=1 << 22)


@pytest.mark.parametrize(
    "content",
    [
        b'{"text": "a"}\n\n  {"text": "b"}{"text":\n"c"}\n',
        b' [\n {"text": "a"} , {"text": "b"},{"text": "c"}\r\n]\n\n',
        b'\xef\xbb\xbf[{"text":"a"},{"text":"b"},{"text":"c"}]',
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
def test_json_values(tmp_path, read, content, block_bytes):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    found = read(find_sources(path)[0], block_bytes=block_bytes)
    assert (found.texts, found.bad) == (["a", "b", "c"], [])
    assert found.blocks[-1].locate(found.blocks[-1].num_records - 1) == "row 2"


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (b'[{"text": "a"},\n {"text" "b"}]', r"Row 1 of .* \(line 2\): broken JSON at column 10"),
        (b'{"text": "a"}\n{"text', r"Row 1 of .* \(line 2\): broken JSON at column 2"),
        (b'[{"text": "a"} {"text": "b"}]', r"Row 1 of .* \(line 1\).*column 16: Expecting ','"),
        (b'[{"text": "a"}', r"Row 1 of .* \(line 1\).*Expecting ','"),
        (b'[{"text": "a"}] 1', r"Row 1 of .*text after the end of the array"),
        (b'{"text": "a\nb"}' + b" " * 100, r"Row 0 .*\(line 1\).*Invalid control character"),
        (b"[" * 100_000, r"Row 0 of .*recursion"),
    ],
)
@pytest.mark.parametrize("block_bytes", [1, 1000])
def test_broken_json_file(tmp_path, read, content, where, block_bytes):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(BadRowError, match=where) as caught:
        read(find_sources(path)[0], block_bytes=block_bytes)
    assert str(path) in str(caught.value)


def test_json_file_that_is_not_utf8(tmp_path, read):
    path = tmp_path / "rows.json"
    path.write_bytes(b'[{"text": "caf\xe9"}]')
    for block_bytes in (1, 100):
        with pytest.raises(SourceError, match="byte 0xe9 at offset 14 is not UTF-8"):
            read(find_sources(path)[0], block_bytes=block_bytes)


@pytest.mark.parametrize("extension", [".jsonl", ".json", ".csv", ".txt"])
def test_empty_files_have_no_records(tmp_path, read, compress, suffix, extension):
    path = tmp_path / f"empty{extension}{suffix}"
    path.write_bytes(compress(suffix, b""))
    found = read(find_sources(path)[0])
    assert found.blocks == []
    assert found.content_hash == fingerprint_bytes(path.read_bytes())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_encodings_are_named(tmp_path, read, encoding):
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"text": "a"}'.encode(encoding))
    with pytest.raises(SourceError, match=rf"{path} is {encoding.upper()} text"):
        read(find_sources(path)[0])


@pytest.mark.parametrize(
    "kind",
    [
        pa.string(),
        pa.large_string(),
        pa.string_view(),
        pa.dictionary(pa.int8(), pa.string()),
    ],
)
def test_text_columns_of_any_string_type(tmp_path, read, kind):
    texts = ["a", "bé", None, "", "a"]
    path = tmp_path / "rows.arrow"
    meta = pa.table({"text": pa.array(texts).cast(kind), "tag": pa.array(texts).cast(kind)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, meta.schema) as writer:
        writer.write_table(meta)
    found = read(find_sources(path)[0], block_bytes=3, tag=pa.string())
    assert found.texts == ["a", "bé", "", "a"]
    assert found.kept == {"tag": ["a", "bé", "", "a"]}
    assert found.bad == ["row 2: field 'text' is null, not text"]
    expected = TableBlock(pa.record_batch({"text": pa.array(texts, pa.large_string())}))
    assert TableBlock.join(found.blocks).marks().tolist() == expected.marks().tolist()


def test_text_column_that_is_not_utf8(tmp_path, read):
    raw = pa.array([b"ok", b"caf\xe9", None], pa.binary()).view(pa.string())
    path = tmp_path / "rows.arrow"
    table = pa.table({"text": raw})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found = read(find_sources(path)[0])
    assert found.texts == ["ok"]
    assert found.bad[0].startswith("row 1: field 'text' is not UTF-8: 0xe9 at byte 4")
    assert found.bad[1].startswith("row 2: field 'text' is null")


@pytest.mark.parametrize("offsets", [[0, 3, 1 << 30], [0, 1 << 30, 6], [0, -3, 6]])
def test_wrong_offsets_are_refused(tmp_path, read, offsets):
    path = tmp_path / "rows.arrow"
    table = pa.table({"text": ["abc", "def"]})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    good = np.array([0, 3, 6], np.int32).tobytes()
    assert good in sink.getvalue()
    path.write_bytes(sink.getvalue().replace(good, np.array(offsets, np.int32).tobytes()))
    with pytest.raises(SourceError, match=rf"{path} is damaged after row 0"):
        read(find_sources(path)[0])


@pytest.mark.parametrize("extension", [".parquet", ".arrow"])
def test_tables_say_what_is_wrong(tmp_path, read, extension):
    path = tmp_path / f"rows{extension}"
    path.write_bytes(_parquet() if extension == ".parquet" else _arrow_file())
    [source] = find_sources(path)
    with pytest.raises(SourceError, match=r"no column 'body'; it has 'text', 'n'.*--text-field"):
        read(source, "body")
    with pytest.raises(SourceError, match=r"no column 'm'; it has 'text', 'n'.*keep"):
        read(source, m=pa.int64())
    with pytest.raises(SourceError, match=r"Column 'n' of .* is int64, not text"):
        read(source, "n")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(SourceError, match=str(path)):
        read(source)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=str(path)):
        read(source)


def test_only_needed_columns_are_read(tmp_path, read):
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"big": ["x" * 1000], "text": ["a"], "n": [1]}), path)
    [block] = read(find_sources(path)[0], n=pa.int64()).blocks
    assert block.batch.schema.names == ["text", "n"]
    assert block.nbytes == 2


def test_columns_in_types_that_depend_on_the_writer(tmp_path, read):
    words = pa.array(["x", "y"]).dictionary_encode()
    columns = {
        "text": pa.array(["a", "b"]),
        "meta": pa.StructArray.from_arrays([words], ["w"]),
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), words),
        "large": pa.LargeListArray.from_arrays(pa.array([0, 1, 2], pa.int64()), words),
        "pair": pa.FixedSizeListArray.from_arrays(words, 1),
        "view": pa.array([b"x", b"y"], pa.binary_view()),
        "uuid": pa.array([b"0" * 16, b"1" * 16], pa.uuid()),
    }
    path = tmp_path / "rows.arrow"
    table = pa.table(columns)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    [source] = find_sources(path)
    types = infer_types([source], "text", [name for name in columns if name != "text"])
    assert types == {
        "meta": pa.struct([("w", pa.string())]),
        "list": pa.list_(pa.string()),
        "large": pa.large_list(pa.string()),
        "pair": pa.list_(pa.string(), 1),
        "view": pa.binary(),
        "uuid": pa.binary(16),
    }
    whole = read(source, block_bytes=1000, **types)
    assert whole.kept == {
        "meta": [{"w": "x"}, {"w": "y"}],
        "list": [["x"], ["y"]],
        "large": [["x"], ["y"]],
        "pair": [["x"], ["y"]],
        "view": [b"x", b"y"],
        "uuid": [b"0" * 16, b"1" * 16],
    }
    rows = read(source, block_bytes=1, **types)
    assert len(rows.blocks) == 2
    assert TableBlock.join(rows.blocks).digest() == TableBlock.join(whole.blocks).digest()


def test_parquet_and_arrow_blocks_of_the_same_rows_are_equal(tmp_path, read):
    (tmp_path / "a.parquet").write_bytes(_parquet())
    (tmp_path / "b.arrow").write_bytes(_arrow_stream())
    (tmp_path / "c.feather").write_bytes(_arrow_file())
    blocks = [read(source, n=pa.int64()).blocks for source in find_sources(tmp_path)]
    assert len({TableBlock.join(one).digest() for one in blocks}) == 1


def test_column_that_was_not_asked_for(tmp_path, read):
    (tmp_path / "b.arrow").write_bytes(_arrow_stream())
    [source] = find_sources(tmp_path)
    [block] = read(source, block_bytes=1000).blocks[:1]
    with pytest.raises(SourceError, match="Column 'n' was not asked for"):
        block.rows(Fields("text", {"n": pa.int64()}))


def test_columns_of_one_name(tmp_path, read):
    path = tmp_path / "rows.arrow"
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(SourceError, match="has 2 columns named 'text'"):
        read(find_sources(path)[0])


def test_json_array_without_values(tmp_path, read):
    path = tmp_path / "rows.json"
    for content in ("[]", " [ \n ] ", " \n"):
        path.write_text(content)
        assert read(find_sources(path)[0], block_bytes=1).blocks == []


def test_json_numbers_at_the_end_of_a_window_are_whole(tmp_path, read):
    path = tmp_path / "rows.json"
    path.write_text("123456 -7.5e10 true")
    found = read(find_sources(path)[0], block_bytes=1)
    assert b"".join(block.content for block in found.blocks) == b"123456\n-7.5e10\ntrue\n"
    assert len(found.bad) == 3


def test_huge_integer_in_a_json_file(tmp_path, read):
    path = tmp_path / "rows.json"
    path.write_text('{"n": ' + "9" * 5000 + "}")
    with pytest.raises(BadRowError, match=r"Row 0 of .*4300 digits"):
        read(find_sources(path)[0])
