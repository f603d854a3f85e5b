"""SPEC.md says what the code does, and the reference document of the cache runs."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import xxhash
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.build.parts import SourceBlocks, cut_parts
from easydata.format.codecs import Codec
from easydata.format.ledger import FORMAT_VERSION, Ledger
from easydata.format.shards import IpcShardWriter
from easydata.sources.byteblock import ByteBlock
from easydata.sources.jsonl import JsonParser
from easydata.sources.marks import record_marks
from tests.bpe import train_bpe

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "easydata" / "format" / "SPEC.md").read_text(encoding="utf-8")
ROWS = [
    {"text": f"Text {i}: " + "some words that say little. " * (i % 7 + 1), "id": i, "url": "u"}
    for i in range(120)
]


def blocks(language: str) -> list[str]:
    """The fenced blocks of the page in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@lru_cache
def page_code() -> dict[str, Any]:
    """What the Python blocks of the page define. They must not need easydata."""
    namespace: dict[str, Any] = {}
    for code in blocks("python"):
        assert "easydata" not in re.findall(r"^(?:import|from) (\w+)", code, re.MULTILINE)
        exec(compile(code, "SPEC.md", "exec"), namespace)
    return namespace


def tiny_shard() -> tuple[bytes, Ledger]:
    """The example of the page."""
    schema = pa.schema({"input_ids": pa.list_(pa.uint16())})
    file = io.BytesIO()
    writer = IpcShardWriter(file, schema, {b"easydata": b"{}"}, Codec("none"))
    rows = pa.array([[1, 2], [3]], schema.field(0).type)
    writer.write(pa.record_batch([rows], schema=schema), 3)
    entry = writer.finish("data-00000-of-00001-0123456789abcdef.arrow")
    return file.getvalue(), Ledger.build(schema, {}, shards=[entry])


def hex_dump(data: bytes) -> str:
    rows = range(0, len(data), 16)
    return "".join(f"{row:04x}  {data[row : row + 16].hex(' ')}\n" for row in rows)


def ledger_entry(ledger: Ledger) -> str:
    """The lists of a ledger about its shards, as JSON lines."""
    row = pa.ipc.open_stream(ledger.to_bytes()).read_all().to_pylist()[0]
    shown = {name: row[name] for name in ("shards", "batches")}
    shown["checksums"] = [f"{value:016x}" for value in row["checksums"]]
    lines = [f'  "{name}": {json.dumps(value)}' for name, value in shown.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def test_the_example_shard_is_what_the_code_writes() -> None:
    data, ledger = tiny_shard()
    assert blocks("hex") == [hex_dump(data)]
    assert blocks("json") == [ledger_entry(ledger)]


def test_the_explanation_covers_each_byte_of_the_example_once() -> None:
    data, _ = tiny_shard()
    found = re.findall(r"^\| ([0-9a-f]{4})–([0-9a-f]{4}) \|", PAGE, re.MULTILINE)
    ranges = [(int(first, 16), int(last, 16) + 1) for first, last in found]
    assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
    assert ranges[-1][1] == len(data)


def test_other_readers_read_the_example() -> None:
    text = blocks("hex")[0]
    data = bytes.fromhex("".join(line[6:] for line in text.splitlines()))
    with pa.ipc.open_stream(data) as stream:
        assert stream.schema.metadata == {b"easydata": b"{}"}
        assert stream.read_all().to_pydict() == {"input_ids": [[1, 2], [3]]}


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A JSONL file of ROWS."""
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture(params=["none", "lz4", "zstd:3", "gzip"])
def dataset(request: pytest.FixtureRequest, corpus: Path) -> ed.TokenDataset:
    """A dataset of several shards and batches."""
    return ed.build(
        corpus,
        tokenizer="bytes",
        out=corpus.parent / "out",
        keep_fields=["id", "url"],
        compression=request.param,
        part_size=4096,
        shard_size=4000,
    )


def test_the_reader_of_the_page_reads_what_the_code_writes(dataset: ed.TokenDataset) -> None:
    assert dataset.ledger.num_shards > 1
    found = pa.Table.from_batches(page_code()["read_dataset"](dataset.path))
    texts = [bytes(i for i in ids if i < 256).decode() for ids in found["input_ids"].to_pylist()]
    assert texts == [row["text"] for row in ROWS]
    assert found["id"].to_pylist() == list(range(120))
    assert found.equals(dataset.to_table())


def test_the_reader_of_the_page_finds_any_flipped_byte(dataset: ed.TokenDataset) -> None:
    read = page_code()["read_dataset"]
    victims = [*dataset.path.glob("data-*"), *dataset.path.glob("ledger-*")]
    for path in victims:
        data = bytearray(path.read_bytes())
        for place in np.random.default_rng(0).integers(len(data), size=3).tolist():
            data[place] ^= 1
            path.write_bytes(data)
            with pytest.raises(ValueError, match="damaged"):
                list(read(dataset.path))
            data[place] ^= 1
        path.write_bytes(data)
    assert len(list(read(dataset.path))) == len(dataset.ledger.batch_offsets)


def test_the_ledger_has_the_columns_of_the_page(dataset: ed.TokenDataset) -> None:
    path = next(dataset.path.glob("ledger-*"))
    schema = pa.ipc.open_stream(path.read_bytes()).schema
    expected = []
    for item in schema:
        if pa.types.is_list(item.type) and pa.types.is_struct(item.type.value_type):
            expected.append((item.name, "list<struct>"))
            expected += [(f" .{one.name}", str(one.type)) for one in item.type.value_type]
        elif pa.types.is_list(item.type):
            expected.append((item.name, f"list<{item.type.value_type}>"))
        else:
            expected.append((item.name, str(item.type)))
    section = PAGE.split("## 5. The ledger")[1].split("### What follows")[0]
    assert re.findall(r"^\| `([^`]+)` \| `([^`]+)` \|", section, re.MULTILINE) == expected


def test_the_json_has_the_keys_of_the_page(dataset: ed.TokenDataset) -> None:
    def keys(start: str, end: str) -> set[str]:
        rows = re.findall(r"^\| (`[^|]+`) \|", PAGE.split(start)[1].split(end)[0], re.MULTILINE)
        return {name for row in rows for name in re.findall(r"`(\w+)`", row)}

    state = json.loads((dataset.path / "state.json").read_text())
    assert keys("### state.json", "### The tokenizer") == state.keys()
    assert state["easydata"]["format"] == FORMAT_VERSION == 1
    only_with_samples = {"samples", "within_samples"}
    in_ledger = dataset.ledger.metadata.keys() | only_with_samples
    assert keys("### Metadata of the ledger", "## 6") == in_ledger
    if dataset.ledger.metadata["shard_format"] == "ipc":
        shard = next(dataset.path.glob("data-*"))
        metadata = pa.ipc.open_stream(shard.read_bytes()).schema.metadata
        assert metadata.keys() == {b"huggingface", b"easydata"}
        assert keys("### Schema metadata", "### Codecs") == json.loads(metadata[b"easydata"]).keys()


def test_the_fingerprint_is_made_as_the_page_says(dataset: ed.TokenDataset) -> None:
    path = next(dataset.path.glob("ledger-*"))
    row = pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()[0]
    hasher = xxhash.xxh3_128(row["schema"])
    batches, checksums = iter(row["batches"]), iter(row["checksums"])
    for shard in row["shards"]:
        mine = [next(batches) for _ in range(shard["batches"])]
        for batch in mine:
            for name in ("offset", "bytes", "rows", "tokens"):
                hasher.update(batch[name].to_bytes(8, "little"))
        end = mine[-1]["offset"] + mine[-1]["bytes"]
        regions = [mine[0]["offset"], *(b["bytes"] for b in mine), shard["bytes"] - end]
        for _ in range(sum(-(-size // 2**20) for size in regions)):
            hasher.update(next(checksums).to_bytes(8, "little"))
    assert hasher.hexdigest()[:16] == dataset.fingerprint
    assert all(dataset.fingerprint in shard["name"] for shard in row["shards"])


@given(st.lists(st.binary(max_size=40), min_size=1, max_size=8))
def test_the_mark_of_the_page_is_that_of_the_code(records: list[bytes]) -> None:
    mark = page_code()["mark"]
    ends = np.cumsum([len(record) for record in records])
    starts = ends - [len(record) for record in records]
    assert record_marks(b"".join(records), starts, ends).tolist() == [mark(r) for r in records]


def random_records(seed: int, step: int, *, equal: bool) -> list[bytes]:
    """Records of which many end at multiples of a step, so that the edges of windows are hit."""
    random = np.random.default_rng(seed)
    sizes = (step * random.integers(1, 5, size=random.integers(10, 150))).tolist()
    return [b"x" * size if equal else random.bytes(size) for size in sizes]


def part_ends(sources: list[SourceBlocks], window: int) -> list[int]:
    parts = cut_parts(sources, window, "")
    return np.cumsum([sum(s.block.nbytes for s in part.spans) for part in parts]).tolist()


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.sampled_from([1, 8, 32]), st.booleans(), st.integers(8, 40))
def test_the_cuts_of_the_page_are_those_of_the_code(
    seed: int, step: int, equal: bool, windows: int
) -> None:
    window = 8 * windows
    records = random_records(seed, step, equal=equal)
    block = byte_block(records)
    marks = [page_code()["mark"](record) for record in records]
    expected = page_code()["cuts"](block.ends.tolist(), marks, window)
    blocks_of_source = list(pieces(block, window // 4))
    assert part_ends([SourceBlocks(False, blocks_of_source)], window) == expected


@settings(max_examples=50)
@given(st.integers(0, 2**32), st.integers(1, 4))
def test_small_files_are_cut_as_the_page_says(seed: int, records_per_file: int) -> None:
    window = 128
    records = [one for i in range(4) for one in random_records(seed + i, 1, equal=False)]
    starts = range(0, len(records), records_per_file)
    files = [records[i : i + records_per_file] for i in starts]
    files = [file for file in files if sum(map(len, file)) <= window // 16]
    sums = [sum(page_code()["mark"](record) for record in file) for file in files]
    marks = [total * 0x9E3779B97F4A7C15 % 2**64 for total in sums]
    ends = np.cumsum([sum(map(len, file)) for file in files]).tolist()
    sources = [SourceBlocks(True, [byte_block(file)]) for file in files]
    assert part_ends(sources, window) == (page_code()["cuts"](ends, marks, window) if ends else [])


def byte_block(records: list[bytes]) -> ByteBlock:
    ends: npt.NDArray[np.int64] = np.cumsum([len(record) for record in records])
    return ByteBlock(b"".join(records), ends, JsonParser())


def pieces(block: ByteBlock, most: int) -> Iterator[ByteBlock]:
    """The block in blocks of at most `most` bytes, or one record."""
    start = 0
    while start < block.num_records:
        begin = int(block.ends[start - 1]) if start else 0
        stop = int(np.searchsorted(block.ends, begin + most, side="right"))
        stop = max(stop, start + 1)
        yield block.slice(start, stop)
        start = stop


def test_the_key_of_a_part_is_made_as_the_page_says(tmp_path: Path) -> None:
    rows = b'{"text": "one"}\n{"text": "two"}\n'
    (tmp_path / "two.jsonl").write_bytes(rows)
    dataset = ed.build(tmp_path / "two.jsonl", tokenizer="bytes", out=tmp_path / "two")
    recipe = dict(dataset.ledger.metadata["recipe"])

    def fingerprint(value: object) -> str:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"))
        return xxhash.xxh3_128_hexdigest(text.encode())

    assert dataset.metadata.config_hash == fingerprint(recipe)
    for name in ("shard_size", "limit", "on_error", "format"):
        del recipe[name]
    digest = xxhash.xxh3_128_digest(b"2 jsonl\0" + rows)
    (part,) = dataset.ledger.parts()
    assert part.key == xxhash.xxh3_128_hexdigest(fingerprint(recipe).encode() + digest)
    assert dataset.metadata.source_hash == fingerprint([part.key])


def test_rows_go_to_splits_as_the_page_says(corpus: Path) -> None:
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    splits = ed.build(corpus, tokenizer="bytes", out=corpus.parent / "split", splits=shares)
    for index, dataset in enumerate(splits.values()):
        assert len(dataset)
        for row in range(len(dataset)):
            number = xxhash.xxh3_64_intdigest(dataset.decode(row).encode())
            assert [number >= int(edge * 2**64) for edge in (0.5, 0.8)].count(True) == index


def test_a_shard_without_rows_has_one_batch_that_belongs_to_a_part(tmp_path: Path) -> None:
    texts = [f"{i} " + ("word " * 20 if i < 20 or i >= 480 else "") for i in range(500)]
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    dataset = ed.build(
        source, tokenizer="bytes", out=tmp_path / "out", min_tokens=9, part_size=1024, shard_size=1
    )
    parts = dataset.ledger.parts()
    rows_of_batches = np.diff(dataset.ledger.first_rows).tolist()
    assert 0 in rows_of_batches
    for part in parts:
        mine = [rows_of_batches.pop(0) for _ in range(part.batches)]
        assert sum(mine) == sum(span.rows for span in part.spans)
    assert not rows_of_batches
    found = pa.Table.from_batches(page_code()["read_dataset"](dataset.path))
    assert found.num_rows == 40
    assert dataset.lineage(39).record == 499
    assert dataset.decode(39) == texts[499]


def test_a_build_removes_what_was_never_published_and_nothing_of_others(corpus: Path) -> None:
    out = corpus.parent / "out"
    ed.build(corpus, tokenizer="bytes", out=out)
    (out / ".tmp-0123-state.json").write_bytes(b"{")
    (out / "cache-0123.arrow").write_bytes(b"of datasets")
    ed.build(corpus, tokenizer="bytes", out=out, limit=7, overwrite=True)
    names = {re.split(r"[-.]", path.name.lstrip("."))[0] for path in out.iterdir()}
    assert names == {"data", "dataset_info", "ledger", "state", "tokenizer", "cache"}
    assert len(list(out.glob("data-*"))) == len(list(out.glob("ledger-*"))) == 1


# --- The reference document of the cache: what it shows also runs here.

REFERENCE = ROOT.parent / "shared" / "spec" / "caching.md"


def what_the_reference_takes_for_granted() -> dict[str, Any]:
    """Names that its blocks use and do not define."""
    return {
        "compute": lambda: [1, 2],
        "compute_config_hash": lambda: "config",
        "compute_data": lambda: {"data": 1},
        "compute_tokenizer_hash": lambda: "tokenizer",
        "config": {"tokenizer": "llama"},
        "current_hash": "config",
        "large_data": {"input_ids": np.arange(100_000)},
        "load_and_process_batch": lambda shard, row: {"rows": np.full(3, row), "shard": shard},
    }


@pytest.fixture
def local_tokenizer(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `AutoTokenizer.from_pretrained` gives for the name in the reference."""
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=train_bpe())
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda _: tokenizer)
    return tokenizer


def test_the_reference_document_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_tokenizer: Any
) -> None:
    if not REFERENCE.exists():  # it is kept beside the repository, not in it
        return
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = what_the_reference_takes_for_granted()
    names["tokenizer"] = local_tokenizer
    found = re.findall(r"^```python\n(.*?)^```$", REFERENCE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 22
    configs = []
    for block in found:
        # Nobody has these disks, and dots are no datasets.
        code = block.replace("easydel.data", "easydata").replace('"/nvme', '"./nvme')
        code = code.replace("[...]", '[{"data_files": "a.txt", "tokenizer": "bytes"}]')
        exec(compile(code.replace('"/shared', '"./shared'), "caching.md", "exec"), names)
        configs.append(names["config"])
    (pipeline,) = {item for item in configs if isinstance(item, ed.PipelineConfig)}
    assert pipeline.cache.compression == "lz4"
    assert any(isinstance(item, ed.DatasetConfig) and item.cache_enabled for item in configs)

    assert (
        names["expensive_tokenization"]("Hello world") == local_tokenizer("Hello world").input_ids
    )
    names["cache"] = ed.DatasetCache("./processed_datasets")  # as in that block
    rows = names["get_processed_dataset"]("rows", lambda: Dataset.from_dict({"a": [1, 2]}))
    assert names["get_processed_dataset"]("rows", pytest.fail)["a"][:] == rows["a"][:] == [1, 2]
    cache = names["cache"] = ed.TreeCacheManager("./cache")  # as in most of the blocks
    for _ in range(2):
        tokens = names["tokenize_with_cache"]("Hello world", "7")
        assert tokens["input_ids"] == local_tokenizer("Hello world").input_ids
        assert names["get_cached_batch"](3, "shard", 4)["rows"].tolist() == [4, 4, 4]
        assert names["get_with_validation"]("validated", "hash") == {"data": 1}
    assert cache.get_metadata("validated").config_hash == "hash"
    names["cleanup_old_caches"]("./cache", max_age_days=0)
    assert cache.contains("validated"), "its clean-up removes old folders, and a cache is flat"
