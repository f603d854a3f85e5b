"""Shards as other libraries see them."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from pathlib import Path
from typing import Any

import datasets
import duckdb
import polars as pl
import pyarrow as pa
import pytest

from easydata.format.codecs import Codec
from easydata.format.directory import write_state
from easydata.format.features import HUGGINGFACE_KEY, huggingface_metadata
from easydata.format.shards import IpcShardWriter

SCHEMA = pa.schema(
    {
        "input_ids": pa.list_(pa.uint16()),
        "wide": pa.large_list(pa.int64()),
        "fixed": pa.list_(pa.int8(), 2),
        "nested": pa.list_(pa.list_(pa.string())),
        "meta": pa.struct({"url": pa.string(), "score": pa.float32()}),
        "flag": pa.bool_(),
        "note": pa.large_string(),
        "when": pa.timestamp("us"),
        "raw": pa.binary(),
        **{f"i{kind}": kind for kind in (pa.int8(), pa.uint32(), pa.int64(), pa.uint64())},
    }
)
ROWS: list[dict[str, Any]] = [
    {
        "input_ids": list(range(65_530, 65_530 + n % 6)),
        "wide": None if n % 4 == 0 else [n, -n],
        "fixed": [n % 100, -1],
        "nested": [["a" * n, None], []] if n % 2 else [],
        "meta": {"url": None if n % 3 else f"http://{n}", "score": n / 4},
        "flag": None if n % 5 == 0 else n % 2 == 0,
        "note": None if n % 7 == 0 else "ß" * (n % 9),
        "when": dt.datetime(2020, 1, 1) + dt.timedelta(hours=n, microseconds=n),
        "raw": bytes([n % 256]) * (n % 3),
        "iint8": n % 100,
        "iuint32": 2**32 - 1 - n,
        "iint64": -n,
        "iuint64": 2**63 + n,
    }
    for n in range(60)
]
EDGES = [0, 25, 25, 26, 60]  # an empty batch among them

pytestmark = pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])


@pytest.fixture
def shard(tmp_path: Path, codec: str) -> Path:
    path = tmp_path / "data-00000-of-00001.arrow"
    whole = pa.Table.from_pylist(ROWS, SCHEMA).combine_chunks().to_batches()[0]
    header = {HUGGINGFACE_KEY: huggingface_metadata(SCHEMA, "0" * 16), b"easydata": b"{}"}
    with path.open("wb") as file:
        writer = IpcShardWriter(file, SCHEMA, header, Codec.parse(codec))
        for start, stop in itertools.pairwise(EDGES):
            writer.write(whole.slice(start, stop - start), 0)
        writer.finish(path.name)
    write_state(
        tmp_path, shard_names=[path.name], ledger_name="none", fingerprint="0" * 16, split=None
    )
    return path


def test_pyarrow(shard: Path) -> None:
    with pa.memory_map(str(shard)) as file:
        reader = pa.ipc.open_stream(file)
        batches = list(reader)
    assert [batch.num_rows for batch in batches] == [25, 0, 1, 34]
    assert [row for batch in batches for row in batch.to_pylist()] == ROWS
    for batch in batches:
        batch.validate(full=True)


def test_polars(shard: Path) -> None:
    frame = pl.read_ipc_stream(shard)
    assert frame.schema["input_ids"] == pl.List(pl.UInt16)
    assert frame.to_dicts() == ROWS


def test_pandas(shard: Path) -> None:
    frame = pa.ipc.open_stream(shard.read_bytes()).read_pandas()
    assert [list(ids) for ids in frame["input_ids"]] == [row["input_ids"] for row in ROWS]
    assert frame["iuint64"].tolist() == [row["iuint64"] for row in ROWS]
    assert frame["when"].dt.to_pydatetime().tolist() == [row["when"] for row in ROWS]
    assert [bool(x) if x is not None else None for x in frame["flag"]] == [r["flag"] for r in ROWS]


def test_duckdb(shard: Path) -> None:
    table = pa.ipc.open_stream(shard.read_bytes()).read_all()
    with duckdb.connect() as connection:
        connection.register("shard", table)
        found = connection.sql("select * from shard").to_arrow_table().to_pylist()
        [(total,)] = connection.sql("select sum(list_sum(input_ids)) from shard").fetchall()
    assert [row["input_ids"] for row in found] == [row["input_ids"] for row in ROWS]
    assert [row["meta"] for row in found] == [row["meta"] for row in ROWS]
    assert [row["nested"] for row in found] == [row["nested"] for row in ROWS]
    assert total == sum(sum(row["input_ids"]) for row in ROWS)


@pytest.mark.parametrize("way", ["load_from_disk", "from_file"])
def test_datasets(shard: Path, way: str) -> None:
    if way == "from_file":
        found = datasets.Dataset.from_file(str(shard))
    else:
        found = datasets.load_from_disk(str(shard.parent))
    assert found.features == datasets.Features.from_arrow_schema(SCHEMA)
    assert found.features["input_ids"] == datasets.List(datasets.Value("uint16"))
    assert found.data.table.to_pylist() == ROWS
    assert found[:]["input_ids"] == [row["input_ids"] for row in ROWS]


def test_schema_metadata(shard: Path) -> None:
    metadata = pa.ipc.open_stream(shard.read_bytes()).schema.metadata
    assert set(metadata) == {b"huggingface", b"easydata"}
    features = json.loads(metadata[b"huggingface"])["info"]["features"]
    assert list(features) == SCHEMA.names
