"""Which file a row goes to."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.loader.packing import pack
from easydata.pipeline.config import DatasetConfig
from easydata.pipeline.save_rows import SavedRows
from easydata.pipeline.save_shards import shards_of
from easydata.pipeline.save_writing import Layout, write_files
from easydata.pipeline.saving import save_results

from .saved import EXPECTED, config, data_files, documents, read_file


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    return documents(tmp_path_factory.mktemp("tokens"), part_size="2kB")


class Stream:
    """Rows of which nobody knows how many there are, read once."""

    def __init__(self, lengths: list[int], rows_per_batch: int = 5) -> None:
        self.schema = pa.schema({"input_ids": pa.list_(pa.uint16()), "id": pa.int64()})
        random = np.random.default_rng(7)
        self.rows = [
            {"input_ids": random.integers(0, 60_000, length).tolist(), "id": number}
            for number, length in enumerate(lengths)
        ]
        self._size = rows_per_batch

    def batches(self) -> Any:
        for start in range(0, len(self.rows), self._size):
            rows = self.rows[start : start + self._size]
            yield pa.RecordBatch.from_pylist(rows, schema=self.schema)


def contents(folder: Path) -> list[list[dict[str, Any]]]:
    return [read_file(path) for path in data_files(folder)]


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
@pytest.mark.parametrize("num_shards", [1, 7, 120])
def test_so_many_files(tokens: ed.TokenDataset, tmp_path: Path, form: str, num_shards: int) -> None:
    made = config(save={"output_dir": tmp_path / "o", "format": form, "num_shards": num_shards})
    save_results({"dataset_0": tokens}, made)
    files = contents(tmp_path / "o")
    assert len(files) == num_shards
    assert {len(rows) for rows in files} == {120 // num_shards, -(-120 // num_shards)}
    assert list(itertools.chain(*files)) == EXPECTED


def test_a_dataset_says_how_many_before_the_stage(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    made = config(
        DatasetConfig("x", name="a", num_shards=3),
        save={"output_dir": tmp_path / "o", "num_shards": 5},
    )
    save_results({"a": tokens}, made)
    assert len(data_files(tmp_path / "o")) == 3


def test_a_stream_is_counted_first(tmp_path: Path) -> None:
    stream = Stream([3] * 11)
    save = {"output_dir": tmp_path / "o", "num_shards": 4}
    save_results({"dataset_0": stream}, config(save=save))
    assert [len(rows) for rows in contents(tmp_path / "o")] == [2, 3, 3, 3]
    assert min(path.name for path in (tmp_path / "o").iterdir()) == ".easydata-save.json"
    assert len(list((tmp_path / "o").iterdir())) == 5
    save = {"output_dir": tmp_path / "few", "num_shards": 12}
    with pytest.raises(ed.UsageError, match="num_shards is 12, but 'dataset_0' has 11 rows"):
        save_results({"dataset_0": stream}, config(save=save))
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


def test_fewer_rows_than_files(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    made = config(save={"output_dir": tmp_path / "o", "num_shards": 121})
    with pytest.raises(ed.UsageError, match="num_shards is 121, but 'dataset_0' has 120 rows"):
        save_results({"dataset_0": tokens}, made)
    assert not list(tmp_path.iterdir())


FORMATS = [
    ("parquet", "zstd"),
    ("parquet", "none"),
    ("arrow", "none"),
    ("arrow", "lz4"),
    ("jsonl", "none"),
    ("jsonl", "gzip"),
    ("jsonl", "zstd"),
    ("jsonl", "lz4"),
]


@settings(max_examples=40)
@given(
    form=st.sampled_from(FORMATS),
    lengths=st.lists(st.integers(0, 400) | st.just(3000), max_size=40),
    max_bytes=st.integers(1, 40_000),
)
def test_files_of_at_most_a_size(form: tuple[str, str], lengths: list[int], max_bytes: int) -> None:
    stream = Stream(lengths)
    rows = SavedRows(stream.schema, stream.batches, None, None)
    with tempfile.TemporaryDirectory() as name:
        layout = Layout(*form, max_shard_bytes=max_bytes)
        sizes, num_rows = write_files("r", rows, layout, Path(name))
        files = contents(Path(name))
        assert list(itertools.chain(*files)) == stream.rows
        assert num_rows == len(lengths)
        assert len(files) == 1 or all(files)
        for path, content in zip(data_files(Path(name)), files, strict=True):
            assert sizes[path.name] == path.stat().st_size
            assert path.stat().st_size <= max_bytes or len(content) <= 1


@pytest.mark.parametrize(("form", "compression"), FORMATS)
def test_files_of_a_size_are_full(tmp_path: Path, form: str, compression: str) -> None:
    stream = Stream([500] * 2000)
    rows = SavedRows(stream.schema, stream.batches, None, None)
    write_files("r", rows, Layout(form, compression, max_shard_bytes=400_000), tmp_path)
    sizes = [path.stat().st_size for path in data_files(tmp_path)]
    assert len(sizes) > 4
    assert min(sizes[:-1]) > 300_000
    assert max(sizes) <= 400_000


@pytest.mark.parametrize(("form", "compression"), FORMATS)
def test_what_a_codec_holds_back_is_counted(tmp_path: Path, form: str, compression: str) -> None:
    stream = Stream([100] * 200)
    rows = SavedRows(stream.schema, stream.batches, None, None)
    write_files("r", rows, Layout(form, compression, max_shard_bytes=12_000), tmp_path)
    assert max(path.stat().st_size for path in data_files(tmp_path)) <= 12_000


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_equal_values_share_a_file(tokens: ed.TokenDataset, tmp_path: Path, form: str) -> None:
    dataset = DatasetConfig("x", name="a", shard_column="id", num_shards=5)
    other = DatasetConfig("x", name="b", shard_column="lang", num_shards=4)
    save = {"output_dir": tmp_path / "o", "format": form}
    save_results({"a": tokens, "b": tokens}, config(dataset, other, save=save))
    by_id = contents(tmp_path / "o" / "a")
    assert len(by_id) == 5
    assert all(by_id)
    assert sorted((row for rows in by_id for row in rows), key=lambda row: row["id"]) == EXPECTED
    assert all(rows == sorted(rows, key=lambda row: row["id"]) for rows in by_id)
    by_lang = contents(tmp_path / "o" / "b")
    assert len(by_lang) == 4
    assert sum(map(len, by_lang)) == 120
    for lang in ("de", "en"):
        assert sum(any(row["lang"] == lang for row in rows) for rows in by_lang) == 1


def test_the_file_of_a_value_never_changes() -> None:
    values = pa.array(["de", "en", None, "de"])
    assert shards_of(values, 1000).tolist() == [20, 8, 673, 20]
    zeros = shards_of(pa.array([0.0, -0.0, 1.5]), 1000)
    assert zeros[0] == zeros[1] != zeros[2]
    lists = shards_of(pa.array([[1, 2], [1], [1, 2]]), 1000)
    assert lists[0] == lists[2] != lists[1]


def test_a_column_that_is_not_kept(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    dataset = DatasetConfig("x", name="a", shard_column="url", num_shards=5)
    made = config(dataset, save={"output_dir": tmp_path / "o"})
    with pytest.raises(ed.UsageError, match=r"'url'.*input_ids, id, lang.*additional_fields"):
        save_results({"a": tokens}, made)
    with pytest.raises(ed.UsageError, match=r"'url'.*save without packing"):
        save_results({"a": pack(tokens, 8, "concat")}, made)
    assert not list(tmp_path.iterdir())
