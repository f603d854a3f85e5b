"""What is saved is what other libraries read."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest

import easydata as ed
from easydata.loader.mixing import Mixture
from easydata.loader.packing import pack
from easydata.loader.permutation import Permutation
from easydata.pipeline.config import DatasetConfig, MixStageConfig
from easydata.pipeline.save_rows import SavedRows
from easydata.pipeline.save_writing import Layout, write_files
from easydata.pipeline.saving import save_results

from .saved import EXPECTED, config, data_files, documents, read_all


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    return documents(tmp_path_factory.mktemp("tokens"), part_size="2kB")


def save(result: Any, folder: Path, *, pack: Any = (), **options: Any) -> Path:
    made = config(save={"output_dir": folder, **options}, pack=dict(pack))
    saved = save_results(result if isinstance(result, Mixture) else {"dataset_0": result}, made)
    assert list(saved.values()) == [str(folder)]
    return folder


FORMATS = [
    ("parquet", None, ".parquet"),
    ("parquet", "none", ".parquet"),
    ("parquet", "gzip", ".parquet"),
    ("parquet", "lz4", ".parquet"),
    ("parquet", "zstd:9", ".parquet"),
    ("arrow", None, ".arrow"),
    ("arrow", "zstd", ".arrow"),
    ("jsonl", None, ".jsonl"),
    ("jsonl", "gzip", ".jsonl.gz"),
    ("jsonl", "zstd:2", ".jsonl.zst"),
    ("jsonl", "lz4", ".jsonl.lz4"),
]


@pytest.mark.parametrize(("form", "compression", "suffix"), FORMATS)
def test_documents_come_back(
    tokens: ed.TokenDataset, tmp_path: Path, form: str, compression: str | None, suffix: str
) -> None:
    folder = save(tokens, tmp_path / "out", format=form, compression=compression, num_shards=2)
    assert [path.name for path in data_files(folder)] == [
        f"data-00000-of-00002{suffix}",
        f"data-00001-of-00002{suffix}",
    ]
    assert read_all(folder) == EXPECTED


def test_parquet_has_small_types_checksums_and_its_codec(
    tokens: ed.TokenDataset, tmp_path: Path
) -> None:
    (path,) = data_files(save(tokens, tmp_path / "out"))
    file = pq.ParquetFile(path)
    assert file.schema_arrow.field("input_ids").type == pa.list_(pa.uint16())
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    data = bytearray(path.read_bytes())
    data[file.metadata.row_group(0).column(0).data_page_offset + 40] ^= 1
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"CRC|checksum"):
        pq.read_table(path, page_checksum_verification=True)


def test_parquet_for_datasets_pandas_polars_and_pyarrow(
    tokens: ed.TokenDataset, tmp_path: Path
) -> None:
    folder = save(tokens, tmp_path / "out", num_shards=3)
    loaded = datasets.load_dataset(
        "parquet", data_files=f"{folder}/*.parquet", split="train", cache_dir=str(tmp_path / "hf")
    )
    assert loaded.to_list() == EXPECTED
    assert loaded.features == datasets.Features(
        {
            "input_ids": datasets.List(datasets.Value("uint16")),
            "id": datasets.Value("int64"),
            "lang": datasets.Value("string"),
        }
    )
    # Whole folders: the manifest must not pass for data.
    assert pads.dataset(folder, format="parquet").to_table().to_pylist() == EXPECTED
    assert pd.read_parquet(folder)["id"].tolist() == [row["id"] for row in EXPECTED]
    assert pl.read_parquet(folder / "*.parquet").to_dicts() == EXPECTED


def test_class_labels_stay(tmp_path: Path) -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    source = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features)
    tokens = ed.build(
        source, tokenizer="bytes", out=tmp_path / "t", keep_fields=["label"], progress="none"
    )
    save(tokens, tmp_path / "parquet")
    loaded = datasets.load_dataset(
        "parquet",
        data_files=f"{tmp_path}/parquet/*.parquet",
        split="train",
        cache_dir=str(tmp_path / "hf"),
    )
    assert loaded.features["label"].names == ["no", "yes"]
    save(tokens, tmp_path / "arrow", format="arrow")
    assert datasets.load_from_disk(tmp_path / "arrow").features["label"].names == ["no", "yes"]


def test_arrow_is_a_dataset_directory(tokens: ed.TokenDataset, tmp_path: Path) -> None:
    folder = save(tokens, tmp_path / "out", format="arrow", num_shards=3)
    assert datasets.load_from_disk(folder).to_list() == EXPECTED
    opened = ed.open_dataset(folder, verify="open")
    assert opened.schema == tokens.schema
    assert opened.to_table() == tokens.to_table()
    assert opened.decode(4) == tokens.decode(4)
    assert opened.metadata.source_hash == tokens.metadata.source_hash
    other = save(documents(tmp_path / "other", limit=7), tmp_path / "out2", format="arrow")
    assert ed.open_dataset(other).fingerprint != opened.fingerprint
    path = data_files(folder)[1]
    path.write_bytes(path.read_bytes()[:-9] + b"x" + path.read_bytes()[-8:])
    with pytest.raises(ed.CorruptShardError):
        opened.verify()


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_samples_in_their_order(
    tokens: ed.TokenDataset, tmp_path: Path, form: str, shuffle: bool
) -> None:
    samples = pack(tokens, 32, "best_fit", pad_token_id=0)
    folder = tmp_path / "out"
    made = config(
        save={"output_dir": folder, "format": form, "num_shards": 2},
        pack={"shuffle_packed": shuffle},
        seed=5,
    )
    save_results({"dataset_0": samples}, made)
    order = np.arange(samples.num_samples)
    if shuffle:
        order = Permutation(samples.num_samples, seed=5, epoch=0)(order)
    expected = samples.read(order)
    assert set(expected) == {"input_ids", "segment_ids", "positions", "loss_mask"}
    rows = read_all(folder)
    for name, array in expected.items():
        assert [row[name] for row in rows] == array.tolist(), name
    if form == "parquet":
        loaded = datasets.load_dataset(
            "parquet", data_files=f"{folder}/*", split="train", cache_dir=str(tmp_path / "hf")
        )
        assert loaded.features["input_ids"] == datasets.List(datasets.Value("uint16"), 32)
        assert loaded.features["loss_mask"] == datasets.List(datasets.Value("uint8"), 32)
    if form == "arrow":
        opened = ed.open_dataset(folder, verify="open")
        assert opened.num_tokens == expected["input_ids"].size
        assert opened.schema.field("input_ids").type == pa.list_(pa.uint16(), 32)
        assert opened.ledger.metadata["samples"]["seq_len"] == 32
        loaded = datasets.load_from_disk(folder)
        assert loaded[3]["input_ids"] == expected["input_ids"][3].tolist()


@pytest.mark.parametrize("strategy", ["restart", "first_exhausted"])
def test_one_epoch_of_a_mixture(tokens: ed.TokenDataset, tmp_path: Path, strategy: str) -> None:
    other = documents(tmp_path / "other", limit=30)
    mixture = Mixture(
        {"a": pack(tokens, 16, "concat"), "b": pack(other, 16, "concat")},
        weights={"a": 0.5, "b": 0.5},
        stop_strategy=strategy,
        seed=3,
    )
    folder = save(mixture, tmp_path / "out", pack={"shuffle_packed": False})
    expected = mixture.read(*mixture.start().take(mixture.num_samples))
    assert np.array_equal([row["input_ids"] for row in read_all(folder)], expected["input_ids"])
    config_of_two = config(
        DatasetConfig("x", name="a", num_shards=2),
        DatasetConfig("y", name="b"),
        save={"output_dir": tmp_path / "two"},
        mix=MixStageConfig(),
    )
    with pytest.raises(ed.UsageError, match=r"'a' has num_shards=2.*mixture"):
        save_results(mixture, config_of_two)


def rows_with(values: list[Any], kind: pa.DataType) -> SavedRows:
    batch = pa.RecordBatch.from_arrays([pa.array(values, kind)], ["x"])
    return SavedRows(batch.schema, lambda: iter([batch]), None, None)


def test_jsonl_of_other_values(tmp_path: Path) -> None:
    kind = pa.struct({"when": pa.timestamp("s"), "text": pa.string(), "none": pa.int8()})
    value = {"when": dt.datetime(2024, 5, 1, 2, 3), "text": 'ö"\u2028\n', "none": None}
    write_files("r", rows_with([value], kind), Layout("jsonl"), tmp_path)
    assert read_all(tmp_path) == [{"x": {**value, "when": "2024-05-01T02:03:00"}}]


@pytest.mark.parametrize(
    ("values", "kind", "match"),
    [
        ([b"x"], pa.binary(), "'x' has the type binary"),
        ([[b"x"]], pa.list_(pa.binary()), "'x' has the type list<item: binary>"),
        ([math.nan], pa.float64(), "NaN"),
        ([math.inf], pa.float64(), "infinite"),
    ],
)
def test_what_json_cannot_hold(
    tmp_path: Path, values: list[Any], kind: pa.DataType, match: str
) -> None:
    with pytest.raises(ed.UsageError, match=match):
        write_files("r", rows_with(values, kind), Layout("jsonl"), tmp_path)


def test_gzip_of_a_dataset_saved_as_arrow_is_refused(
    tokens: ed.TokenDataset, tmp_path: Path
) -> None:
    made = config(
        DatasetConfig("x", name="a", save_format="arrow"),
        save={"output_dir": tmp_path / "out", "compression": "gzip"},
    )
    with pytest.raises(ed.UsageError, match="'a' is saved as arrow with compression 'gzip'"):
        save_results({"a": tokens}, made)
