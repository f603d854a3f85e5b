"""A dataset that is not cached, from its configuration to batches."""

from __future__ import annotations

import datasets
import numpy as np
import pytest

import easydata as ed
from easydata.engine import SerialEngine
from easydata.pipeline.arguments import build_arguments
from easydata.pipeline.config import PipelineConfig
from easydata.pipeline.loading import make_loader
from easydata.pipeline.samples import pack_dataset
from easydata.pipeline.streaming import (
    TokenStream,
    make_stream,
    make_stream_loader,
    stream_samples,
)
from tests.bpe import train_bpe
from tests.build.support import rows, write

ROWS = rows(400)


def configured(data, **stages) -> PipelineConfig:
    dataset = {"data_files": data, "name": "a", "additional_fields": ["id"]}
    return PipelineConfig(
        datasets=[dataset], **{"default_tokenizer": "bytes", "pack": {"seq_length": 64}, **stages}
    )


def stream_of(config: PipelineConfig, **options) -> TokenStream:
    return make_stream(config.datasets[0], config, **options)


def built(config: PipelineConfig, out) -> ed.TokenDataset:
    arguments = build_arguments(config.datasets[0], config)
    return ed.build(config.datasets[0].data_files, **{**arguments, "out": out}, progress="none")


def test_rows_are_those_of_the_built_dataset_again_and_again(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS)
    config = configured(source, default_tokenizer={"name_or_path": "bytes", "max_length": 70})
    stream, dataset = stream_of(config), built(config, tmp_path / "out")
    assert stream.schema == dataset.schema
    assert stream.dtype == dataset.dtype
    assert stream.name == "a"
    for _ in range(2):
        found = list(stream)
        assert len(found) == len(dataset)
        for one, other in zip(found, dataset, strict=True):
            assert one.keys() == other.keys()
            assert one["input_ids"].tolist() == other["input_ids"].tolist()
            assert one["input_ids"].dtype == other["input_ids"].dtype
            assert not one["input_ids"].flags.writeable
            assert one["id"] == other["id"]


def test_a_stream_gives_its_tokenizer():
    bpe = train_bpe()
    config = configured(datasets.Dataset.from_list(ROWS), default_tokenizer=bpe)
    stream = stream_of(config)
    first = next(iter(stream))["input_ids"]
    assert stream.tokenizer().decode(first[:-1]) == ROWS[0]["text"]
    assert stream.tokenizer() is stream.tokenizer()


def test_nothing_is_written(tmp_path, monkeypatch):
    folder = tmp_path / "data"
    write(folder / "a.jsonl", ROWS)
    monkeypatch.chdir(folder)
    assert len(list(stream_of(configured(folder)))) == len(ROWS)
    assert [path.name for path in folder.iterdir()] == ["a.jsonl"]


def test_what_is_no_pure_repetition_has_another_fingerprint(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS)
    one = stream_of(configured(source))
    assert stream_of(configured(source)).fingerprint == one.fingerprint
    other = configured(source, default_tokenizer={"name_or_path": "bytes", "max_length": 5})
    assert stream_of(other).fingerprint != one.fingerprint
    before = one.fingerprint
    write(source, ROWS[1:])
    assert one.fingerprint != before


def test_the_streamed_hub_dataset_is_read_anew_each_time():
    data = datasets.Dataset.from_list(ROWS).to_iterable_dataset()
    stream = stream_of(configured(data, tokenize={"num_workers": 1}))
    ids = [row["id"] for row in stream]
    assert ids == list(range(400))
    assert [row["id"] for row in stream] == ids


def test_an_iterator_is_read_once_and_says_so():
    config = configured(iter(ROWS), tokenize={"num_workers": 1})
    stream = stream_of(config)
    assert len(list(stream)) == len(ROWS)
    with pytest.raises(ed.SourceError, match="an iterator can be read only once"):
        next(stream.batches())


def test_wrong_arguments_are_told_before_anything_is_read(tmp_path):
    source = write(tmp_path / "a.jsonl", ROWS)
    config = configured(source)
    arguments = build_arguments(config.datasets[0], config)
    with pytest.raises(ed.UsageError, match="splits is"):
        TokenStream("a", source, {**arguments, "splits": {"a": 0.5, "b": 0.5}}).batches()
    with pytest.raises(ed.EasyDataError, match="no/such/tokenizer"):
        TokenStream("a", source, {**arguments, "tokenizer": "no/such/tokenizer/"})


def test_the_engine_that_is_given_is_used():
    made = []

    def maker():
        made.append(SerialEngine())
        return made[-1]

    stream = stream_of(configured(datasets.Dataset.from_list(ROWS)), engine=maker)
    assert made == []
    list(stream)
    list(stream)
    assert len(made) == 2


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("strategy", ["concat", "greedy"])
def test_batches_are_those_of_the_cached_pipeline(tmp_path, strategy, is_packed):
    config = configured(
        write(tmp_path / "a.jsonl", ROWS),
        pack={
            "seq_length": 64,
            "strategy": strategy,
            "pad_token_id": 7,
            "eos_token_id": 3,
            "num_packers": 2,
            "shuffle_buffer_factor": 3,
        },
        load={"batch_size": 6, "shuffle_buffer_size": 50, "drop_last": False},
        seed=11,
    )
    samples = pack_dataset(built(config, tmp_path / "out"), config.pack, is_packed=is_packed)
    expected = list(make_loader(samples, config))
    streamed = stream_samples(stream_of(config), config, is_packed=is_packed)
    batches = list(make_stream_loader(streamed, config))
    assert len(batches) == len(expected) > 50
    for one, other in zip(batches, expected, strict=True):
        assert list(one) == list(other)
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


def test_the_pad_id_is_the_tokenizers_where_none_is_configured():
    data = datasets.Dataset.from_list(ROWS)
    bpe = train_bpe(special=("<|endoftext|>", "<pad>"))
    pad = bpe.token_to_id("<pad>")
    config = configured(data, default_tokenizer=bpe, load={"drop_last": False})
    batches = make_stream_loader(stream_samples(stream_of(config), config, is_packed=True), config)
    padding = {int(one) for batch in batches for one in batch["input_ids"][~batch["loss_mask"]]}
    assert padding == {pad}
    without = configured(data)
    loader = make_stream_loader(
        stream_samples(stream_of(without), without, is_packed=True), without
    )
    with pytest.raises(ed.UsageError, match="no pad_token_id"):
        next(iter(loader))


def test_streamed_and_cached_datasets_are_mixed(tmp_path):
    config = PipelineConfig(
        datasets=[
            {"data_files": write(tmp_path / f"{name}.jsonl", ROWS), "name": name} for name in "ab"
        ],
        default_tokenizer="bytes",
        pack={"seq_length": 64, "strategy": "concat", "pad_token_id": 7},
        mix={"weights": {"a": 0.5, "b": 0.5}, "stop_strategy": "first_exhausted"},
    )
    streamed = stream_samples(stream_of(config), config, is_packed=True)
    cached = pack_dataset(built(config, tmp_path / "out"), config.pack, is_packed=True)
    batches = list(make_stream_loader({"a": streamed, "b": cached}, config))
    assert len(batches) == 2 * cached.num_samples // 8
    kinds = {tuple(ids) for batch in batches for ids in batch["input_ids"].tolist()}
    assert len(kinds) == cached.num_samples
