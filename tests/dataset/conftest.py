"""A small dataset in every codec and format, and what it must hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pytest

import easydata as ed

EOS = 256  # of the tokenizer "bytes"
WAYS = {
    "none": {"compression": "none"},
    "lz4": {"compression": "lz4"},
    "zstd": {"compression": "zstd"},
    "zstd:9": {"compression": "zstd:9"},
    "gzip": {"compression": "gzip"},
    "parquet none": {"compression": "none", "format": "parquet"},
    "parquet zstd": {"compression": "zstd", "format": "parquet"},
}


def make_rows(count: int = 150) -> list[dict[str, Any]]:
    """Rows of many lengths, empty ones among them."""
    return [
        {
            "text": f"Zeile {i}: äöü. " * (i * 7 % 11),
            "id": i,
            "tag": None if i % 3 else f"tag {i}",
            "scores": None if i % 5 == 0 else [i / 4] * (i % 3),
        }
        for i in range(count)
    ]


@dataclass(frozen=True)
class Oracle:
    """What a dataset must hold, as plain Python values."""

    rows: list[dict[str, Any]]
    stream: list[int]

    @classmethod
    def of(cls, rows: list[dict[str, Any]]) -> Oracle:
        columns = [
            {
                "input_ids": [*row["text"].encode(), EOS],
                "id": row["id"],
                "tag": row["tag"],
                "scores": row["scores"],
            }
            for row in rows
        ]
        return cls(columns, [token for row in columns for token in row["input_ids"]])


def build_rows(rows: list[dict[str, Any]], out: Path, **options: Any) -> ed.TokenDataset:
    """A dataset of many parts, batches and shards."""
    defaults = {"part_size": 1024, "shard_size": "6kB", "workers": 1, "progress": "none"}
    return ed.build(
        rows,
        tokenizer="bytes",
        out=out,
        keep_fields=["id", "tag", "scores"],
        **{**defaults, **options},
    )


@pytest.fixture(scope="session")
def oracle() -> Oracle:
    return Oracle.of(make_rows())


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same rows in every way; tests must not change them."""
    root = tmp_path_factory.mktemp("ways")
    found = {}
    for number, (name, options) in enumerate(WAYS.items()):
        found[name] = root / str(number)
        dataset = build_rows(make_rows(), found[name], **options)
        assert dataset.ledger.num_shards >= 2
        assert len(dataset.ledger.batch_offsets) >= 6
    return found


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def folder(folders: dict[str, Path], way: str) -> Path:
    return folders[way]


@pytest.fixture
def dataset(folder: Path) -> ed.TokenDataset:
    return ed.open_dataset(folder)


@pytest.fixture
def mapped(folders: dict[str, Path]) -> ed.TokenDataset:
    return ed.open_dataset(folders["none"])


@pytest.fixture(autouse=True)
def _no_progress_bars() -> Iterator[None]:
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()
