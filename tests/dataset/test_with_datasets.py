"""Our folders as HuggingFace `datasets` opens them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pytest

import easydata as ed

from .conftest import Oracle, build_rows

_MEMORY = """
import sys
import datasets
import pyarrow as pa
before = pa.total_allocated_bytes()
rows = datasets.load_from_disk(sys.argv[1])
table = rows.data.table
total = sum(chunk.values.sum().as_py() for chunk in table["input_ids"].chunks)
print(table.nbytes, pa.total_allocated_bytes() - before, total)
"""


def test_every_way_that_it_can_open(folder: Path, way: str, oracle: Oracle) -> None:
    if way.startswith(("gzip", "parquet")):
        with pytest.raises(Exception, match=r"."):
            datasets.load_from_disk(str(folder))
        return
    found = datasets.load_from_disk(str(folder))
    assert found[:] == {name: [r[name] for r in oracle.rows] for name in found.column_names}
    assert found.features["input_ids"] == datasets.List(datasets.Value("uint16"))
    state = json.loads((folder / "state.json").read_text())
    assert state["_fingerprint"] == ed.open_dataset(folder).fingerprint
    assert datasets.load_from_disk(str(folder))._fingerprint == found._fingerprint


def test_it_is_memory_mapped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [bytes(rng.integers(97, 123, 200_000, dtype=np.uint8)).decode() for _ in range(20)]
    rows = [{"text": t, "id": 1, "tag": None, "scores": None} for t in texts]
    build_rows(rows, tmp_path / "out", part_size="1MB", shard_size="4MB")
    result = subprocess.run(
        [sys.executable, "-c", _MEMORY, str(tmp_path / "out")],
        capture_output=True,
        text=True,
        check=True,
    )
    size, grown, total = map(int, result.stdout.split())
    assert size > 8_000_000
    assert grown < 1_000_000
    assert total == sum(sum(text.encode()) + 256 for text in texts)


def test_its_cached_results_stay_and_do_not_disturb(tmp_path: Path) -> None:
    rows = [{"text": f"row {i}", "id": i, "tag": None, "scores": None} for i in range(50)]
    build_rows(rows, tmp_path / "out")
    mapped = datasets.load_from_disk(str(tmp_path / "out")).map(lambda row: {"id2": 2 * row["id"]})
    assert mapped["id2"] == [2 * i for i in range(50)]
    cached = {path.name for path in (tmp_path / "out").glob("cache-*.arrow")}
    assert len(cached) == 1
    again = build_rows(rows[:40], tmp_path / "out", overwrite=True)
    assert {path.name for path in (tmp_path / "out").glob("cache-*.arrow")} == cached
    assert len(again) == 40
    remapped = datasets.load_from_disk(str(tmp_path / "out")).map(
        lambda row: {"id2": 2 * row["id"]}
    )
    assert len(remapped) == 40  # the old result belongs to another fingerprint


def test_splits(tmp_path: Path) -> None:
    rows = [{"text": f"row {i}"} for i in range(100)]
    built = ed.build(
        rows, tokenizer="bytes", out=tmp_path / "out", splits={"train": 0.8, "validation": 0.2}
    )
    found = datasets.load_from_disk(str(tmp_path / "out"))
    assert isinstance(found, datasets.DatasetDict)
    for name, dataset in built.items():
        assert found[name].data.table.to_pylist() == dataset.to_table().to_pylist()
        assert str(found[name].split) == name
