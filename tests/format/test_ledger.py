from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.errors import CorruptShardError, FormatVersionError
from easydata.format import mapping
from easydata.format.ledger import METADATA_KEY, Ledger, PartEntry, ShardEntry, SpanEntry

MIB = 1 << 20
SCHEMA = pa.schema({"input_ids": pa.list_(pa.uint16()), "name": pa.string()})

_sizes = st.one_of(st.integers(1, 200), st.sampled_from([MIB - 1, MIB, MIB + 1, 2 * MIB + 3]))
_batch = st.tuples(_sizes, st.integers(0, 9), st.integers(0, 99))  # bytes, rows, tokens
_shard = st.tuples(_sizes, st.lists(_batch, min_size=1, max_size=4), _sizes)  # header … tail


def blocks(size: int) -> int:
    return len(range(0, size, MIB))


def make_shards(plan: list[Any]) -> list[ShardEntry]:
    shards = []
    for number, (header, batches, tail) in enumerate(plan):
        at = header
        table = []
        for size, rows, tokens in batches:
            table.append((at, size, rows, tokens))
            at += size
        count = sum(map(blocks, [header, *(size for size, _, _ in batches), tail]))
        checksums = np.arange(count, dtype=np.uint64) + np.uint64(1000 * number)
        shards.append(
            ShardEntry(f"data-{number}.arrow", at + tail, np.array(table, np.int64), checksums)
        )
    return shards


@settings(max_examples=60)
@given(st.lists(_shard, min_size=1, max_size=5))
def test_derived_arrays_against_a_loop(plan: list[Any]) -> None:
    ledger = Ledger.build(SCHEMA, {}, shards=make_shards(plan))
    first_batches, first_rows, first_tokens = [0], [0], [0]
    first_blocks, batch_first_blocks, region_ends = [0], [], []
    for header, batches, tail in plan:
        block = first_blocks[-1] + blocks(header)
        at = header
        for size, rows, tokens in batches:
            batch_first_blocks.append(block)
            block += blocks(size)
            at += size
            first_rows.append(first_rows[-1] + rows)
            first_tokens.append(first_tokens[-1] + tokens)
        region_ends.append([header, at])
        first_blocks.append(block + blocks(tail))
        first_batches.append(first_batches[-1] + len(batches))
    assert ledger.first_batches.tolist() == first_batches
    assert ledger.first_rows.tolist() == first_rows
    assert ledger.first_tokens.tolist() == first_tokens
    assert ledger.first_blocks.tolist() == first_blocks
    assert ledger.batch_first_blocks.tolist() == batch_first_blocks
    assert ledger.region_ends.tolist() == region_ends
    assert ledger.problems() == []


PLAN: list[Any] = [
    (64, [(128, 3, 30), (MIB + 64, 2, 70)], 8),
    (64, [(256, 4, 11)], 8),
]
PARTS = [
    PartEntry(
        "part-a",
        2,
        (
            SpanEntry(0, 0, 2, 2, None, "a", skipped=1, short=2),
            SpanEntry(1, 7, 9, 3, b"\xe0\x00", "b", short=3),
        ),
    ),
    PartEntry("part-ß", 1, (SpanEntry(1, 16, 4, 4, None, "ß", truncated=3),)),
]
SOURCES = [
    {"name": "a.jsonl", "bytes": 100, "hash": "00ff", "stamp": "{}"},
    {"name": "Bücher/β.txt", "bytes": None, "hash": None, "stamp": None},
]


def sound(**metadata: Any) -> Ledger:
    return Ledger.build(SCHEMA, metadata, shards=make_shards(PLAN), parts=PARTS, sources=SOURCES)


def test_round_trip(tmp_path: Path) -> None:
    shards = make_shards(PLAN)
    name = sound(token_column="input_ids", nested={"a": [1, None]}).publish(tmp_path)
    ledger = Ledger.open(tmp_path / name)
    assert ledger.metadata == {"format": 1, "token_column": "input_ids", "nested": {"a": [1, None]}}
    assert ledger.schema.equals(SCHEMA, check_metadata=True)
    assert ledger.num_shards == 2
    assert [ledger.shard_name(i) for i in range(2)] == [shard.name for shard in shards]
    assert ledger.shard_bytes.tolist() == [shard.nbytes for shard in shards]
    assert ledger.batch_offsets.tolist() == [64, 192, 64]
    assert ledger.batch_bytes.tolist() == [128, MIB + 64, 256]
    assert ledger.checksums.tolist() == [*range(5), *range(1000, 1003)]
    assert ledger.parts() == PARTS
    assert ledger.num_parts == 2
    assert [ledger.total(count) for count in ("skipped", "short", "truncated")] == [1, 5, 3]
    assert ledger.span_first_rows.tolist() == [0, 2, 5, 9]
    assert [ledger.span(i) for i in range(3)] == [span for part in PARTS for span in part.spans]
    assert ledger.num_sources == 2
    assert [ledger.source(i) for i in range(2)] == SOURCES
    assert ledger.sources() == SOURCES
    assert ledger.problems() == []
    assert not ledger.checksums.flags.writeable
    assert not ledger.batch_offsets.flags.writeable


def test_other_readers_see_lists(tmp_path: Path) -> None:
    path = tmp_path / sound().publish(tmp_path)
    (row,) = pa.ipc.open_stream(path.read_bytes()).read_all().to_pylist()
    assert row["batches"][1] == {"offset": 192, "bytes": MIB + 64, "rows": 2, "tokens": 70}
    assert row["shards"][0] == {"name": "data-0.arrow", "bytes": MIB + 264, "batches": 2}
    assert row["spans"][1]["kept"] == b"\xe0\x00"
    assert pa.ipc.read_schema(pa.py_buffer(row["schema"])) == SCHEMA


def test_equal_content_has_one_name(tmp_path: Path) -> None:
    first = sound(a=1, b=2).publish(tmp_path)
    assert sound(b=2, a=1).publish(tmp_path) == first
    assert sound(a=1, b=3).publish(tmp_path) != first
    assert sorted(path.name[:7] for path in tmp_path.iterdir()) == ["ledger-"] * 2


def test_a_ledger_of_nothing(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / Ledger.build(SCHEMA, {}, shards=[]).publish(tmp_path))
    assert (ledger.num_shards, ledger.num_parts, ledger.num_sources) == (0, 0, 0)
    assert ledger.first_rows.tolist() == ledger.first_blocks.tolist() == [0]
    assert ledger.parts() == []


@pytest.mark.parametrize("damage", ["flip", "truncate", "extend", "empty", "rename"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    path = tmp_path / sound().publish(tmp_path)
    data = bytearray(path.read_bytes())
    if damage == "rename":
        path = path.rename(tmp_path / f"ledger-{'0' * 32}.arrow")
    elif damage == "flip":
        for position in range(0, len(data), 97):
            data[position] ^= 4
            path.write_bytes(data)
            with pytest.raises(CorruptShardError, match=path.name):
                Ledger.open(path)
            data[position] ^= 4
        data[-1] ^= 1
        path.write_bytes(data)
    else:
        path.write_bytes({"truncate": data[:-1], "extend": data + b"\0", "empty": b""}[damage])
    with pytest.raises(CorruptShardError, match="overwrite"):
        Ledger.open(path)


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / sound(format=2).publish(tmp_path)
    with pytest.raises(FormatVersionError, match=r"version 2.*up to 1.*Upgrade"):
        Ledger.open(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Ledger.open(tmp_path / "ledger-0.arrow")


def contradicting(**changes: Any) -> Ledger:
    """A sound ledger of which some columns are replaced."""
    batch = sound()._batch
    rows = {**batch.to_pylist()[0], **changes}
    columns = [pa.array([rows[item.name]], item.type) for item in batch.schema]
    return Ledger(pa.record_batch(columns, schema=batch.schema))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("batches", "shards and the list of batches"),
        ("checksums", "batches and the list of checksums"),
        ("parts", "parts and the list of batches"),
        ("spans", "number of rows"),
    ],
)
def test_contradictions(column: str, message: str) -> None:
    rows = sound()._batch.to_pylist()[0]
    (problem, *_) = contradicting(**{column: rows[column][:-1]}).problems()
    assert message in problem
    assert contradicting().problems() == []


def test_opening_does_no_work_per_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts file accesses and Python objects made, for 1 shard and 2,000."""
    calls: list[str] = []
    original = mapping.pa.memory_map
    monkeypatch.setattr(
        mapping.pa, "memory_map", lambda *a, **k: calls.append("map") or original(*a, **k)
    )
    for module, name in ((builtins, "open"), (os, "open")):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, real=real, **k: calls.append("open") or real(*a, **k)
        )
    monkeypatch.setattr(Ledger, "shard_name", lambda *_: calls.append("name"))
    seen = []
    for count in (1, 2000):
        path = tmp_path / Ledger.build(SCHEMA, {}, shards=make_shards(PLAN[:1] * count)).publish(
            tmp_path, sync=False
        )
        calls.clear()
        ledger = Ledger.open(path)
        assert ledger.problems() == []
        assert ledger.first_rows[-1] == 5 * count
        seen.append(list(calls))
    assert seen[0] == seen[1] == ["map"]


def test_metadata_is_json_in_the_schema() -> None:
    assert sound(b=1)._batch.schema.metadata[METADATA_KEY] == b'{"b": 1, "format": 1}'
