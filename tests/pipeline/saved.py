"""Datasets to save, and readers that know nothing of easydata."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import lz4.frame
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

import easydata as ed
from easydata.pipeline.config import DatasetConfig, PipelineConfig

ROWS = [
    {"text": "abc" * (number % 9) + str(number), "id": number, "lang": "de" if number % 3 else "en"}
    for number in range(120)
]


def ids_of(row: dict[str, Any]) -> list[int]:
    """What the byte tokenizer makes of a row: its bytes, and 256 for the end."""
    return [*row["text"].encode(), 256]


EXPECTED = [{"input_ids": ids_of(row), "id": row["id"], "lang": row["lang"]} for row in ROWS]


def documents(folder: Path, rows: list[dict[str, Any]] = ROWS, **options: Any) -> ed.TokenDataset:
    return ed.build(
        rows,
        tokenizer="bytes",
        out=folder,
        keep_fields=["id", "lang"],
        progress="none",
        workers=1,
        **options,
    )


def config(*datasets: DatasetConfig, **options: Any) -> PipelineConfig:
    """Of one dataset called "dataset_0", or of these."""
    return PipelineConfig(
        datasets=datasets or (DatasetConfig("data.jsonl"),), default_tokenizer="bytes", **options
    )


def data_files(folder: Path) -> list[Path]:
    return sorted(path for path in Path(folder).iterdir() if path.name.startswith("data-"))


def read_file(path: Path) -> list[dict[str, Any]]:
    """The rows of one file."""
    if path.suffix == ".parquet":
        table = pq.read_table(path, page_checksum_verification=True)
        return list(table.to_pylist())
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as file:
            return list(pa.ipc.open_stream(file).read_all().to_pylist())
    unpack = {
        ".gz": gzip.decompress,
        ".zst": lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
        ".lz4": lz4.frame.decompress,
        ".jsonl": bytes,
    }[path.suffix]
    return [json.loads(line) for line in unpack(path.read_bytes()).decode().split("\n")[:-1]]


def read_all(folder: Path) -> list[dict[str, Any]]:
    """The rows of all files, in order."""
    return [row for path in data_files(folder) for row in read_file(path)]
