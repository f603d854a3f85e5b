"""PipelineConfig: what its parts must promise each other, and which tokenizer a dataset gets."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from easydata.errors import UsageError
from easydata.pipeline.config import (
    CacheStageConfig,
    DatasetConfig,
    MixStageConfig,
    PackStageConfig,
    PipelineConfig,
    TokenizerConfig,
    TokenizeStageConfig,
    resolve_tokenizer,
)


def pipeline(*names: str | None, **fields: Any) -> PipelineConfig:
    """A pipeline of datasets of these names, read with the tokenizer of bytes."""
    datasets = [DatasetConfig(f"{name}.txt", name=name) for name in names]
    return PipelineConfig(datasets, **{"default_tokenizer": "bytes", **fields})


def lines_of(make: Any, *args: Any, **fields: Any) -> list[str]:
    """The lines of the error that making it raises."""
    with pytest.raises(UsageError) as caught:
        make(*args, **fields)
    return str(caught.value).splitlines()


def test_datasets_without_names_get_them_by_position() -> None:
    made = pipeline(None, "b", None)
    assert [dataset.name for dataset in made.datasets] == ["dataset_0", "b", "dataset_2"]
    assert made.get_dataset_by_name("dataset_2") is made.datasets[2]
    assert isinstance(made.datasets, tuple)


def test_two_datasets_of_one_name() -> None:
    assert lines_of(pipeline, "b", "dataset_2", None, "b") == [
        "PipelineConfig.datasets[2].name is 'dataset_2', as is that of datasets[1]; give each a "
        "name of its own.",
        "PipelineConfig.datasets[3].name is 'b', as is that of datasets[0]; give each a name of "
        "its own.",
    ]


@pytest.mark.parametrize("datasets", [[], (), None, "a.txt", {"a": 1}, DatasetConfig("a.txt")])
def test_no_list_of_datasets(datasets: Any) -> None:
    (line,) = lines_of(PipelineConfig, datasets, default_tokenizer="bytes")
    assert line.startswith("PipelineConfig.datasets is ")
    assert line.endswith("; it must be a list of at least one.")


def test_a_dataset_that_is_none() -> None:
    assert lines_of(PipelineConfig, ["a.txt"], default_tokenizer="bytes") == [
        "PipelineConfig.datasets[0] is 'a.txt'; it must be DatasetConfig(…), or a mapping of its "
        "fields."
    ]
    assert lines_of(PipelineConfig.from_dict, {}) == [
        "PipelineConfig.datasets: missing; every PipelineConfig needs it."
    ]
    assert lines_of(PipelineConfig.from_dict, []) == [
        "PipelineConfig is []; give a mapping of its fields."
    ]


def test_a_dataset_by_a_wrong_name() -> None:
    with pytest.raises(UsageError, match=r"no dataset 'wikipedia'; did you mean wiki\?"):
        pipeline("wiki", "code").get_dataset_by_name("wikipedia")
    with pytest.raises(UsageError, match=r"no dataset 'x'; choose one of wiki, code\."):
        pipeline("wiki", "code").get_dataset_by_name("x")


def test_weights_must_name_the_datasets() -> None:
    made = pipeline("wiki", "code", mix=MixStageConfig(weights={"code": 1.0, "wiki": 0.0}))
    made.validate()
    assert lines_of(pipeline, "wiki", "code", mix={"weights": {"wki": 0.5, "code": 0.5}}) == [
        "PipelineConfig.mix.weights names the unknown dataset 'wki'; did you mean wiki?",
        "PipelineConfig.mix.weights has no share for the dataset 'wiki'; give it one, or 0.",
    ]


def test_the_weights_of_a_schedule_must_name_the_datasets() -> None:
    points = [{"step": 0, "weights": {"a": 1.0, "b": 0}}, {"step": 9, "weights": {"a": 1.0}}]
    assert lines_of(pipeline, "a", "b", mix={"weight_schedule": points}) == [
        "PipelineConfig.mix.weight_schedule[1].weights has no share for the dataset 'b'; give it "
        "one, or 0."
    ]


def test_everything_that_is_wrong_at_once() -> None:
    wrong = {
        "datasets": [{"data_files": "a"}, {"data_files": "b", "nam": "x"}, {"num_rows": 0}],
        "steaming": True,
        "pack": {"seq_len": 0, "num_packers": 0},
        "mix": {"weights": {"a": 0.5}, "block_size": True},
        "cache": None,
        "save": {"push_to_hub": True},
    }
    assert lines_of(PipelineConfig.from_dict, wrong) == [
        "PipelineConfig.steaming: unknown; did you mean streaming?",
        "PipelineConfig.datasets[1].nam: unknown; did you mean name?",
        "PipelineConfig.datasets[2].data_files: missing; every DatasetConfig needs it.",
        "PipelineConfig.datasets[2].num_rows is 0; it must be a whole number from 1 up.",
        "PipelineConfig.cache is None; it must be CacheStageConfig(…), or a mapping of its fields.",
        "PipelineConfig.mix.weights adds up to 0.5; the shares must add up to 1.",
        "PipelineConfig.mix.block_size is True; it must be a whole number from 1 up.",
        "PipelineConfig.pack.seq_len: unknown; did you mean seq_length?",
        "PipelineConfig.pack.num_packers is 0; it must be a whole number from 1 up.",
        "PipelineConfig.save.hub_repo_id is None, but push_to_hub is True; say where to, as "
        "'user/name'.",
    ]


def test_contradictions_of_all_kinds_at_once() -> None:
    lines = lines_of(
        PipelineConfig,
        [DatasetConfig("a", name="a"), DatasetConfig("a", name="a", tokenizer="bytes")],
        mix={"weights": {"b": 1}},
        pack={"seq_length": 0},
    )
    assert [line.split()[0] for line in lines] == [
        "PipelineConfig.pack.seq_length",
        "PipelineConfig.datasets[1].name",
        "PipelineConfig.mix.weights",
        "PipelineConfig.mix.weights",
        "PipelineConfig.datasets[0].tokenizer",
    ]


def test_validate_checks_again() -> None:
    made = pipeline("a")
    made.validate()
    object.__setattr__(made, "seed", -1)
    assert lines_of(made.validate) == [
        "PipelineConfig.seed is -1; it must be a whole number from 0 to 18446744073709551615."
    ]


def test_mappings_become_configurations() -> None:
    made = pipeline("a", cache={"compression": "lz4"}, pack={"strategy": "best_fit"})
    assert made.cache == CacheStageConfig(compression="lz4")
    assert made.pack == PackStageConfig(strategy="best_fit")
    assert made == pickle.loads(pickle.dumps(made))
    assert hash(made) == hash(pickle.loads(pickle.dumps(made)))


class TestTokenizers:
    def test_the_nearest_one_is_taken(self) -> None:
        own, stage, whole = (TokenizerConfig(name) for name in ("own", "stage", "whole"))
        plain, named = DatasetConfig("a"), DatasetConfig("b", name="named", tokenizer=own)
        tokenize = TokenizeStageConfig(default_tokenizer=stage)
        made = PipelineConfig([plain, named], default_tokenizer=whole, tokenize=tokenize)
        assert resolve_tokenizer(named, made) == own
        assert resolve_tokenizer(plain, made) == stage
        made = dataclasses.replace(made, tokenize=TokenizeStageConfig())
        assert resolve_tokenizer(plain, made) == whole

    @pytest.mark.parametrize("max_length", [None, 77])
    def test_a_name_takes_the_length_of_the_stage(self, max_length: int | None) -> None:
        tokenizer = object()
        tokenize = TokenizeStageConfig(max_length=max_length)
        for given in ("name", tokenizer):
            made = pipeline("a", default_tokenizer=given, tokenize=tokenize)
            found = resolve_tokenizer(made.datasets[0], made)
            assert found == TokenizerConfig(given, max_length=max_length)
            assert found.name_or_path is given
            assert found.cut_length == max_length

    def test_a_config_keeps_its_own_length(self) -> None:
        made = pipeline(
            "a", default_tokenizer={"name_or_path": "x"}, tokenize=TokenizeStageConfig(max_length=7)
        )
        assert resolve_tokenizer(made.datasets[0], made) == TokenizerConfig("x", max_length=2048)

    def test_overrides_come_last(self) -> None:
        tokenizer = TokenizerConfig("x", max_length=9, truncation=False)
        dataset = DatasetConfig(
            "a", tokenizer=tokenizer, tokenizer_kwargs={"max_length": 5, "padding": "longest"}
        )
        made = PipelineConfig([dataset])
        assert resolve_tokenizer(made.datasets[0], made) == TokenizerConfig(
            "x", max_length=5, truncation=False, padding="longest"
        )
        assert resolve_tokenizer(made.datasets[0], made).cut_length is None

    def test_overrides_that_contradict_the_tokenizer(self) -> None:
        dataset = DatasetConfig("a", tokenizer_kwargs={"padding": "max_length"})
        assert lines_of(PipelineConfig, [dataset], default_tokenizer="bytes") == [
            "PipelineConfig.datasets[0].tokenizer_kwargs.padding is 'max_length', but max_length "
            "is None; set max_length."
        ]
        made = PipelineConfig([dataset], default_tokenizer=TokenizerConfig("bytes"))
        assert resolve_tokenizer(dataset, made).padding == "max_length"

    def test_there_must_be_one(self) -> None:
        datasets = [DatasetConfig("a"), DatasetConfig("b", tokenizer="bytes")]
        expected = (
            "tokenizer is None, as are tokenize.default_tokenizer and default_tokenizer; set one "
            "of them."
        )
        assert lines_of(PipelineConfig, datasets) == [f"PipelineConfig.datasets[0].{expected}"]
        made = PipelineConfig(datasets[1:])
        assert lines_of(resolve_tokenizer, datasets[0], made) == [expected]
