"""Saved samples lie in files as `build` lays them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import easydata as ed
from easydata.build import sample_layout
from easydata.dataset.info import dataset_info
from easydata.loader.packing import pack
from easydata.pipeline.saving import save_results

from .saved import config, data_files

TEXTS = [{"text": f"{i} " + "word " * (i % 13)} for i in range(300)]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    return ed.build(TEXTS, tokenizer="bytes", out=tmp_path_factory.mktemp("tokens") / "out")


def save(result: Any, folder: Path, *, shuffle: bool = False, **options: Any) -> ed.TokenDataset:
    options = {"output_dir": folder, "format": "arrow", **options}
    made = config(save=options, pack={"shuffle_packed": shuffle}, seed=3)
    save_results({"dataset_0": result}, made)
    return ed.open_dataset(folder, verify="open")


def batch_rows(ds: ed.TokenDataset) -> list[list[int]]:
    """Rows in each record batch of each shard."""
    rows = np.diff(ds.ledger.first_rows)
    return [part.tolist() for part in np.split(rows, ds.ledger.first_batches[1:-1])]


@pytest.mark.parametrize("way", ["concat", "greedy"])
def test_a_build_and_a_pipeline_write_the_same_batches(
    tokens: ed.TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(sample_layout, "_BATCH_BYTES", 130 * 32 * 11)
    pad: Any = {"pad_token": 0} if way == "greedy" else {}
    options: Any = {"seq_len": 32, "pack": way, "shuffle": True, "seed": 3, "segment_ids": True}
    built = ed.build(TEXTS, tokenizer="bytes", out=tmp_path / "built", **options, **pad)
    samples = pack(tokens, 32, way, pad_token_id=0 if pad else None)
    saved = save(samples, tmp_path / "saved", shuffle=True)
    assert saved.schema == built.schema
    assert saved.to_table() == built.to_table()
    assert batch_rows(saved) == batch_rows(built)
    assert len(batch_rows(saved)[0]) > 1

    def body(ds: ed.TokenDataset) -> bytes:
        data = (ds.path / ds.ledger.shard_name(0)).read_bytes()
        return data[int(ds.ledger.batch_offsets[0]) :]

    assert body(saved) == body(built)
    described = saved.ledger.metadata["samples"]
    assert described == {"seq_len": 32, "shuffle": True, "seed": 3}
    info = dataset_info(saved)
    assert (info.seq_len, info.order, info.sample_alignment) == (32, "shuffled with seed 3", 64)
    assert info.pack is None


def test_files_hold_whole_batches(
    tokens: ed.TokenDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample_layout, "_BATCH_BYTES", 65 * 16 * 2)
    samples = pack(tokens, 16, "concat", include_segment_ids=False)
    expected = samples.read(np.arange(samples.num_samples))["input_ids"]
    by_size = save(samples, tmp_path / "size", max_shard_size="5kB")
    assert by_size.ledger.shard_bytes.max() <= 5000
    sizes = [size for shard in batch_rows(by_size) for size in shard]
    assert sizes == [60] * (len(sizes) - 1) + [samples.num_samples - 60 * (len(sizes) - 1)]
    assert len(batch_rows(by_size)[0]) == 2
    by_number = save(samples, tmp_path / "number", num_shards=4)
    found = batch_rows(by_number)
    assert len(found) == 4
    assert [size for shard in found for size in shard] == sizes
    # More files than batches: they are cut.
    many = save(samples, tmp_path / "many", num_shards=len(sizes) + 3)
    assert [len(shard) > 0 for shard in batch_rows(many)] == [True] * (len(sizes) + 3)
    # A batch that is larger than a file is halved.
    small = save(samples, tmp_path / "small", max_shard_size="2kB")
    assert {size for shard in batch_rows(small)[:-2] for size in shard} == {30}
    for ds in (by_size, by_number, many, small):
        assert np.array_equal(ds.tokens(0, ds.num_tokens).reshape(-1, 16), expected)
    assert len(data_files(tmp_path / "many")) == len(sizes) + 3


def test_samples_without_lists_of_one_length_are_documents(
    tokens: ed.TokenDataset, tmp_path: Path
) -> None:
    plain = save(tokens, tmp_path / "out")
    assert plain.schema.field("input_ids").type == pa.list_(pa.uint16())
    assert "samples" not in plain.ledger.metadata
    assert dataset_info(plain).seq_len is None


@pytest.mark.parametrize("options", [{}, {"seq_len": 8}], ids=["documents", "samples"])
def test_a_build_does_not_take_what_was_saved_for_its_own(
    tokens: ed.TokenDataset, tmp_path: Path, options: dict[str, Any]
) -> None:
    out = save(pack(tokens, 16, "concat"), tmp_path / "out").path
    given: dict[str, Any] = {"tokenizer": "bytes", "out": out, **options}
    with pytest.raises(ed.OutputExistsError, match="was saved, not built"):
        ed.build(TEXTS, **given)
    assert len(ed.build(TEXTS, overwrite=True, **given)) > 0
