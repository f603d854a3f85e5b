from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest

import easydata as ed

from .conftest import Oracle


def test_lengths(dataset: ed.TokenDataset, oracle: Oracle) -> None:
    for _ in range(2):
        found = dataset.lengths()
        assert found.dtype == np.int64
        assert found.tolist() == [len(row["input_ids"]) for row in oracle.rows]
    assert found.sum() == dataset.num_tokens


def test_of_empty_rows_and_none(tmp_path: Path) -> None:
    made = datasets.Dataset.from_dict({"input_ids": [[], [1, 2], [], [3]]})
    made.save_to_disk(tmp_path / "foreign")
    with pytest.warns(UserWarning, match="foreign"):
        assert ed.open_dataset(tmp_path / "foreign").lengths().tolist() == [0, 2, 0, 1]


def test_reads_no_token_ids_of_large_mapped_batches(tmp_path: Path) -> None:
    rows = [{"text": "x" * 400_000} for _ in range(8)]
    built = ed.build(rows, tokenizer="bytes", out=tmp_path / "out", part_size="4MB")
    assert built.ledger.batch_bytes.max() > 4 << 20
    dataset = ed.open_dataset(tmp_path / "out")
    assert dataset.lengths().tolist() == [400_001] * 8
    assert not dataset._shards._checked.all()
