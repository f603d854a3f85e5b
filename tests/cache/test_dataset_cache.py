"""DatasetCache: what is put comes back, through every way to read it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import (
    Array2D,
    ClassLabel,
    Dataset,
    DatasetDict,
    Features,
    Image,
    IterableDataset,
    IterableDatasetDict,
    LargeList,
    Sequence,
    Value,
)

import easydata as ed
from easydata.cache.dataset_cache import DatasetCache
from easydata.cache.datasets import writing
from easydata.format.alignment import ALIGNMENT

CODECS = ["none", "lz4", "zstd", "zstd:5", "gzip"]
FEATURES = Features(
    {
        "input_ids": Sequence(Value("int32")),
        "label": ClassLabel(names=["no", "yes"]),
        "text": Value("string"),
        "blob": Value("large_binary"),
        "grid": Array2D((2, 2), "int16"),
        "pair": Sequence(Value("float32"), length=2),
        "nested": {"x": Value("float64"), "y": [{"z": Value("string")}]},
        "wide": LargeList(Value("int8")),
        "when": Value("timestamp[us, tz=UTC]"),
        "flag": Value("bool"),
        "nothing": Value("null"),
        "image": Image(decode=False),
    }
)


def rich(rows: int = 7) -> Dataset:
    """Every kind of feature, with nulls."""
    stamp = pd.Timestamp("2024-05-06T07:08:09.123456Z").to_pydatetime()
    return Dataset.from_dict(
        {
            "input_ids": [list(range(i)) for i in range(rows)],
            "label": [i % 2 for i in range(rows)],
            "text": [None if i == 2 else "ä" * i for i in range(rows)],
            "blob": [None if i == 3 else bytes([i]) * i for i in range(rows)],
            "grid": [[[i, 1], [2, 3]] for i in range(rows)],
            "pair": [[i, -i] for i in range(rows)],
            "nested": [
                {"x": i / 3, "y": [{"z": str(j)} for j in range(i)]} if i != 4 else None
                for i in range(rows)
            ],
            "wide": [[i] * 3 for i in range(rows)],
            "when": [stamp] * rows,
            "flag": [i % 3 == 0 for i in range(rows)],
            "nothing": [None] * rows,
            "image": [{"bytes": b"png %d" % i, "path": None} for i in range(rows)],
        },
        features=FEATURES,
    )


def tokens(*rows: list[int]) -> Dataset:
    features = Features({"input_ids": Sequence(Value("int32"))})
    return Dataset.from_dict({"input_ids": list(rows)}, features=features)


@pytest.mark.parametrize("codec", CODECS)
class TestEveryCodec:
    def test_a_rich_dataset_comes_back(self, tmp_path: Path, codec: str) -> None:
        cache, dataset = DatasetCache(tmp_path, codec), rich()
        cache.put("k", dataset)
        found = cache.get("k")
        assert isinstance(found, Dataset)
        assert found.features == FEATURES
        assert found.to_list() == dataset.to_list()
        assert found.data.table.remove_column(0).num_columns == len(FEATURES) - 1
        again = pickle.loads(pickle.dumps(found))
        assert again.to_list() == dataset.to_list()

    def test_splits_come_back(self, tmp_path: Path, codec: str) -> None:
        splits = DatasetDict({"train": rich(5), "test": tokens([1], [2, 3])})
        cache = DatasetCache(tmp_path, codec)
        cache.put("k", splits)
        found = cache.get("k")
        assert isinstance(found, DatasetDict)
        assert list(found) == ["train", "test"]
        assert {name: part.to_list() for name, part in found.items()} == {
            name: part.to_list() for name, part in splits.items()
        }
        assert cache.open("k", split="test")[1]["input_ids"].tolist() == [2, 3]
        for split in (None, "dev"):
            with pytest.raises(ed.NotADatasetError, match="one of train, test"):
                cache.open("k", split=split)

    def test_without_rows(self, tmp_path: Path, codec: str) -> None:
        cache = DatasetCache(tmp_path, codec)
        cache.put("k", rich(0))
        found = cache.get("k")
        assert (len(found), found.features) == (0, FEATURES)
        assert len(cache.open("k")) == 0

    def test_the_rows_as_tokens(self, tmp_path: Path, codec: str) -> None:
        cache = DatasetCache(tmp_path, codec)
        cache.put("k", tokens([1, 2], [], [3]), ed.CacheMetadata(tokenizer_hash="t"))
        opened = cache.open("k")
        assert opened.tokens(0, 3).tolist() == [1, 2, 3]
        assert [row["input_ids"].tolist() for row in map(opened.__getitem__, range(3))] == [
            [1, 2],
            [],
            [3],
        ]
        assert opened.dtype == np.int32
        assert (opened.metadata.tokenizer_hash, opened.metadata.num_examples) == ("t", 3)
        opened.verify()

    def test_load_from_disk(self, tmp_path: Path, codec: str) -> None:
        cache, splits = DatasetCache(tmp_path, codec), DatasetDict({"a": rich(), "b": tokens([1])})
        cache.put("one", rich())
        cache.put("many", splits)
        if codec == "gzip":
            with pytest.raises(ed.UsageError, match="compression='zstd'"):
                cache.path("one")
            return
        loaded = datasets.load_from_disk(cache.path("one"))
        assert loaded.features == FEATURES
        assert loaded.to_list() == rich().to_list()
        state = json.loads((cache.path("one") / "state.json").read_bytes())
        assert state["_fingerprint"] == cache.get("one")._fingerprint
        loaded = datasets.load_from_disk(cache.path("many"))
        assert {name: part.to_list() for name, part in loaded.items()} == {
            name: part.to_list() for name, part in splits.items()
        }


class TestZeroCopy:
    def test_columns_are_aligned_views_of_the_file(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens([1, 2, 3], [4]))
        (shard,) = tmp_path.rglob("data-*.arrow")
        before = pa.total_allocated_bytes()
        column = cache.get("k").data.table["input_ids"].chunk(0)
        assert pa.total_allocated_bytes() - before < 1000
        assert column.values.buffers()[1].address % ALIGNMENT == 0
        assert column.values.buffers()[1].to_pybytes()[:16] in shard.read_bytes()

    def test_map_keeps_its_results_by_content(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens([1], [2]))
        mapped = cache.get("k").map(lambda row: {"n": len(row["input_ids"])})
        assert mapped["n"][:] == [1, 1]
        cache.put("k", tokens([1, 1], [2]))
        assert cache.get("k").map(lambda row: {"n": len(row["input_ids"])})["n"][:] == [2, 1]


class TestInputs:
    def test_indices_count_and_the_format_does_not(self, tmp_path: Path) -> None:
        cache, dataset = DatasetCache(tmp_path), rich()
        cache.put("k", dataset.select([5, 0, 5]).with_format("numpy", columns=["label"]))
        found = cache.get("k")
        assert found.format["type"] is None
        assert found.to_list() == [dataset.to_list()[i] for i in (5, 0, 5)]

    def test_the_split_is_kept(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", Dataset.from_dict({"a": [1]}, split=datasets.Split.TEST))
        assert cache.get("k").split == "test"

    def test_images_in_files_are_stored(self, tmp_path: Path) -> None:
        from PIL import Image as Pillow

        Pillow.new("RGB", (3, 2), "red").save(tmp_path / "red.png")
        data = (tmp_path / "red.png").read_bytes()
        features = Features({"image": Image()})
        cache = DatasetCache(tmp_path / "cache")
        cache.put("k", Dataset.from_dict({"image": [str(tmp_path / "red.png")]}, features=features))
        (tmp_path / "red.png").unlink()
        found = cache.get("k")
        assert found.features == features
        assert found[0]["image"].getpixel((0, 0)) == (255, 0, 0)
        assert found.cast_column("image", Image(decode=False))[0]["image"]["bytes"] == data

    @pytest.mark.parametrize("declared", [True, False])
    def test_a_stream(self, tmp_path: Path, declared: bool) -> None:
        rows = [{"a": i, "b": {"c": [str(i)]}} for i in range(1000)]
        features = Features({"a": Value("int16"), "b": {"c": Sequence(Value("string"))}})
        stream = IterableDataset.from_generator(
            lambda: iter(rows), features=features if declared else None
        )
        cache = DatasetCache(tmp_path)
        cache.put("k", stream)
        found = cache.get("k")
        assert found.to_list() == rows
        assert found.features["a"] == Value("int16" if declared else "int64")
        cache.put("k", IterableDatasetDict({"train": stream, "dev": stream.take(3)}))
        assert {name: part.to_list() for name, part in cache.get("k").items()} == {
            "train": rows,
            "dev": rows[:3],
        }

    def test_a_stream_with_nulls_and_encoded_features(self, tmp_path: Path) -> None:
        features = Features(
            {"c": ClassLabel(names=["no", "yes"]), "i": Image(), "l": [Value("int8")]}
        )
        rows = [{"c": "yes", "i": None, "l": []}, {"c": None, "i": b"png", "l": None}]
        cache = DatasetCache(tmp_path)
        cache.put("k", IterableDataset.from_generator(lambda: iter(rows), features=features))
        found = cache.get("k").cast_column("i", Image(decode=False))
        assert cache.get("k").features == features
        assert found.to_list() == [
            {"c": 1, "i": None, "l": []},
            {"c": None, "i": {"bytes": b"png", "path": None}, "l": None},
        ]
        arrow = rich().to_iterable_dataset()
        cache.put("k", arrow)
        assert (cache.get("k").to_list(), cache.get("k").features) == (rich().to_list(), FEATURES)

    def test_a_long_stream_is_written_as_it_comes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made, most_unwritten, written = 0, 0, 0
        write = writing._ShardFiles.write

        def counting(self: Any, batch: pa.RecordBatch, count: int) -> None:
            nonlocal written
            write(self, batch, count)
            written += batch.num_rows

        def generate() -> Iterator[dict[str, Any]]:
            nonlocal made, most_unwritten
            for number in range(200_000):
                made += 1
                most_unwritten = max(most_unwritten, made - written)
                yield {"n": number, "text": "x" * 40}

        monkeypatch.setattr(writing._ShardFiles, "write", counting)
        monkeypatch.setattr(writing, "BATCH_BYTES", 200_000)
        monkeypatch.setattr(writing, "SHARD_BYTES", 1_000_000)
        cache = DatasetCache(tmp_path)
        cache.put("k", IterableDataset.from_generator(generate))
        assert made == written == 200_000
        assert most_unwritten < 6000
        found = cache.get("k")
        assert found.data.table["n"].to_numpy().tolist() == list(range(200_000))
        shards = sorted(tmp_path.rglob("data-*.arrow"))
        assert len(shards) > 8
        assert max(shard.stat().st_size for shard in shards) <= 1_001_000

    def test_one_huge_batch_is_cut(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(writing, "BATCH_BYTES", 1000)
        table = pa.table({"a": np.arange(5000)})
        cache = DatasetCache(tmp_path)
        cache.put("k", table)
        chunks = cache.get("k").data.table["a"].chunks
        assert max(chunk.nbytes for chunk in chunks) <= 1000
        assert cache.get("k")["a"][:] == list(range(5000))

    def test_arrow(self, tmp_path: Path) -> None:
        table = pa.table({"a": [1, 2, None], "b": ["x", "y", "x"]})
        frame = pd.DataFrame({"a": [1, 2], "b": ["x", "y"]})
        coded = pa.table({"b": table["b"].dictionary_encode()})
        batches = table.to_batches(max_chunksize=2)
        cache = DatasetCache(tmp_path)
        for value, expected in (
            (table, table),
            (batches[0], table[:2]),
            (pa.RecordBatchReader.from_batches(table.schema, batches), table),
            (batches, table),
            (iter(batches), table),
            ((batch for batch in batches), table),
            ([table, table[:1]], pa.concat_tables([table, table[:1]])),
            (frame, pa.table({"a": [1, 2], "b": ["x", "y"]})),
            (coded, table.select(["b"])),
        ):
            cache.put("k", value)
            assert cache.get("k").to_list() == expected.to_pylist(), value

    def test_features_in_a_schema_count(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", rich().data.table)
        assert cache.get("k").features == FEATURES

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            (5, "dataset is a int; give"),
            ("text", "dataset is a str; give"),
            (None, "dataset is a NoneType"),
            ({"a": [1]}, r"rows in a dict use Dataset\.from_dict"),
            (DatasetDict(), "no splits"),
            (DatasetDict({"a/b": tokens([1])}), "called 'a/b'"),
            (DatasetDict({"a": tokens([1]), "A": tokens([1])}), "differ in case"),
            (DatasetDict({"a": 5}), "Split 'a' is a int"),
            ([], "empty and does not say"),
            (IterableDataset.from_generator(lambda: iter([])), "empty and does not say"),
            ([{"a": 1}], "Item 0 of the iterable is a dict"),
            (pa.table([[1], [2]], names=["a", "a"]), "Two columns have one name"),
            (pa.table({"a": pa.array([[(1, 2)]], pa.map_(pa.int8(), pa.int8()))}), "cannot repr"),
            (Dataset.from_dict({}), "no columns"),
            ([pa.table({"a": [1]}), pa.table({"b": [1]})], "Rows have the columns b: int64"),
            ([pa.table({"a": ["1"]}), pa.table({"a": [1]})], "Rows have the columns a: int64"),
            ([pa.table({"a": [1]}), pa.table({"a": [1.5]})], "Rows have the columns a: double"),
        ],
    )
    def test_what_cannot_be_put(self, tmp_path: Path, value: object, message: str) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", tokens([1]))
        with pytest.raises(ed.UsageError, match=message):
            cache.put("k", value)
        assert cache.get("k").to_list() == [{"input_ids": [1]}]
        assert len(list(next(tmp_path.glob("k-*")).glob("generation-*"))) == 1

    def test_rows_that_do_not_fit_their_features(self, tmp_path: Path) -> None:
        rows = [{"a": 1}] * 300 + [{"a": "one"}]
        stream = IterableDataset.from_generator(
            lambda: iter(rows), features=Features({"a": Value("int64")})
        )
        with pytest.raises(ValueError, match="'one'"):
            DatasetCache(tmp_path).put("k", stream)
        assert DatasetCache(tmp_path).keys() == []

    def test_what_a_generator_raises_comes_through(self, tmp_path: Path) -> None:
        def generate() -> Iterator[pa.RecordBatch]:
            yield pa.record_batch({"a": [1]})
            raise FileNotFoundError("of the user")

        cache = DatasetCache(tmp_path)
        with pytest.raises(FileNotFoundError, match="of the user"):
            cache.put("k", generate())
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []

    def test_a_stream_goes_on_with_missing_values(self, tmp_path: Path) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", [pa.table({"a": [1.5]}), pa.table({"a": pa.nulls(1)}), pa.table({"a": [2]})])
        assert cache.get("k")["a"][:] == [1.5, None, 2.0]


class TestOtherReaders:
    def test_the_shards_say_what_they_are(self, tmp_path: Path) -> None:
        metadata = ed.CacheMetadata(source_hash="s", extra={"a": 1})
        for codec in ("zstd", "gzip"):
            cache = DatasetCache(tmp_path / codec, codec)
            cache.put("k", rich(), metadata)
        (ipc,) = (tmp_path / "zstd").rglob("data-*.arrow")
        (parquet,) = (tmp_path / "gzip").rglob("data-*.parquet")
        frame = pd.read_parquet(parquet, columns=["text", "label"])
        assert frame["text"].fillna("-").tolist() == [
            t or ("-" if t is None else t) for t in rich()["text"]
        ]
        for schema in (pq.read_schema(parquet), pa.ipc.open_stream(ipc.read_bytes()).schema):
            stored = json.loads(schema.metadata[b"easydata"])
            assert (stored["source_hash"], stored["extra"]) == ("s", {"a": 1})
            assert "created_at" not in stored
            shown = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
            assert Features.from_dict(shown) == FEATURES

    @pytest.mark.parametrize(
        ("dataset", "message"),
        [
            (Dataset.from_dict({"a": [1]}), r"no column 'input_ids'.*\(there is: a\)"),
            (Dataset.from_dict({"input_ids": [1]}), "is a int32 and no list"),
            (Dataset.from_dict({"input_ids": [["x"]]}), "no list of token ids"),
            (Dataset.from_dict({"input_ids": [[1], None]}), "has nulls"),
            (Dataset.from_dict({"input_ids": [[1, None]]}), "has nulls"),
        ],
    )
    def test_what_has_no_tokens(self, tmp_path: Path, dataset: Dataset, message: str) -> None:
        cache = DatasetCache(tmp_path)
        cache.put("k", dataset)
        with pytest.raises(ed.DatasetError, match=message):
            cache.open("k")
        assert cache.get("k").to_list() == dataset.to_list()
