"""Effects of the fields of the stages that load and save, and of the whole pipeline."""

from __future__ import annotations

import dataclasses
import json
import logging

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import easydata as ed

from . import test_effects_data, test_effects_stages
from .counting import words, write_rows
from .effects import FIELDS, Case, Effects

EFFECTS = Effects()
effect = EFFECTS.of


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


# --- LoadStageConfig


@effect("LoadStageConfig.batch_size", "LoadStageConfig.drop_last")
def _(case):
    def sizes(**load):
        batches = case.batches(pack={"seq_length": 40}, load=load)
        return [len(batch["input_ids"]) for batch in batches]

    assert set(sizes(batch_size=5)) == {5}
    *full, last = sizes(batch_size=7, drop_last=False)
    assert set(full) == {7}
    assert last < 7


@effect(
    "LoadStageConfig.prefetch_enabled",
    "LoadStageConfig.prefetch_workers",
    "LoadStageConfig.prefetch_buffer_size",
)
def _(case):
    import threading

    def threads(**load):
        before = set(threading.enumerate())  # others may end meanwhile
        batches = iter(case.pipeline("load", pack={"seq_length": 10}, load=load).build())
        next(batches)
        found = set(threading.enumerate()) - before
        batches.close()
        return len(found)

    assert threads(prefetch_enabled=False) == 0
    assert threads(prefetch_workers=1) == 1
    assert threads(prefetch_workers=3) == 3
    for size in (1, 3):
        loader = case.pipeline(
            "load",
            pack={"seq_length": 10},
            load={"batch_size": 1, "prefetch_workers": 1, "prefetch_buffer_size": size},
        ).build()
        assert loader.batches._prefetch == size  # its own tests see what it does


@effect("LoadStageConfig.shuffle_buffer_size")
def _(case):
    fields = {"pack": {"seq_length": 10}}
    rows = case.rows(load={"batch_size": 1, "shuffle_buffer_size": 4}, **fields)
    stream = [token for row in case.ids() for token in row]
    pieces = [stream[at : at + 10] for at in range(0, len(stream) - 9, 10)]
    for at in range(0, len(rows) - 4, 4):
        assert sorted(rows[at : at + 4]) == sorted(pieces[at : at + 4])
    anywhere = case.rows(load={"batch_size": 1}, **fields)
    assert sorted(anywhere[:4]) != sorted(pieces[:4])


@effect("LoadStageConfig.prefetch_to_device")
def _(case):
    import jax

    on_host = case.batches(pack={"seq_length": 40})[0]["input_ids"]
    assert isinstance(on_host, np.ndarray)
    load = {"prefetch_to_device": True}
    on_device = case.batches(pack={"seq_length": 40}, load=load)[0]["input_ids"]
    assert isinstance(on_device, jax.Array)
    assert on_device.tolist() == on_host.tolist()


# --- SaveStageConfig


@effect("SaveStageConfig.enabled", "SaveStageConfig.output_dir")
def _(case):
    case.tokens(save={"enabled": True, "output_dir": str(case.folder / "x")})
    assert len(pq.read_table(case.folder / "x")) == 40
    case.tokens(save={"output_dir": str(case.folder / "y")})
    assert not (case.folder / "y").exists()


@effect("SaveStageConfig.format")
def _(case):
    assert len(datasets.load_from_disk(str(case.saved(save={"format": "arrow"})))) == 40


@effect("SaveStageConfig.compression")
def _(case):
    for name in ("gzip", "lz4"):
        (path,) = case.saved(save={"compression": name}).glob("*.parquet")
        found = pq.read_metadata(path).row_group(0).column(0).compression
        assert found.lower().startswith(name)


@effect("SaveStageConfig.max_shard_size")
def _(case):
    many = write_rows(case.folder / "many.jsonl", words("m", 3000))
    folder = case.saved(dataset={"data_files": many}, save={"max_shard_size": "20kB"})
    files = list(folder.glob("*.parquet"))
    assert len(files) > 1
    assert max(path.stat().st_size for path in files) <= 20_000
    assert sum(len(pq.read_table(path)) for path in files) == 3000


@effect("SaveStageConfig.overwrite")
def _(case):
    case.saved()
    with pytest.raises(ed.OutputExistsError):
        case.saved(dataset={"data_files": case.b}, save={"overwrite": False})
    assert len(pq.read_table(case.saved(dataset={"data_files": case.b}))) == 30


@effect(
    "SaveStageConfig.push_to_hub",
    "SaveStageConfig.hub_repo_id",
    "SaveStageConfig.hub_private",
    "SaveStageConfig.hub_token",
)
def _(case):
    calls = []
    with pytest.MonkeyPatch.context() as patch:
        for kind in (datasets.Dataset, datasets.DatasetDict):
            patch.setattr(kind, "push_to_hub", lambda self, *a, **k: calls.append((a, k)))
        case.saved()
        assert not calls
        hub = {"hub_repo_id": "me/mine", "hub_private": True, "hub_token": "hf_secret"}
        case.saved(save={"push_to_hub": True, **hub})
    ((args, kwargs),) = calls
    assert "me/mine" in (*args, *kwargs.values())
    assert kwargs["private"] is True
    assert kwargs["token"] == "hf_secret"


# --- RayConfig


@effect(
    "RayConfig.enabled",
    "RayConfig.num_workers",
    "RayConfig.resources_per_worker",
    "RayConfig.use_gpu",
    "RayConfig.object_store_memory",
)
def _(case):
    from easydata.pipeline.engines import engine_maker

    assert engine_maker(ed.RayConfig()) is None
    calls = []

    class Recorder:
        def __init__(self, *args, **kwargs):
            calls.append((args, kwargs))

    with pytest.MonkeyPatch.context() as patch:
        # What these do on a real Ray: tests/engine/test_engine_ray.py, and one more below.
        patch.setattr("easydata.engine.ray_engine.RayEngine", Recorder)
        engine_maker(
            ed.RayConfig(
                enabled=True,
                num_workers=3,
                resources_per_worker={"CPU": 2},
                use_gpu=True,
                object_store_memory="100MB",
            )
        )()
    expected = {
        "resources_per_worker": {"CPU": 2},
        "use_gpu": True,
        "object_store_memory": 100_000_000,
    }
    assert calls == [((3,), expected)]


# --- ObservabilityConfig


@effect("ObservabilityConfig.progress_enabled", "ObservabilityConfig.progress_type")
def _(case):
    import contextlib
    import io

    def shown(**observability):
        text = io.StringIO()
        with contextlib.redirect_stderr(text):
            case.pipeline(
                observability=observability, cache={"enabled": False}, streaming=False
            ).build()
        return text.getvalue()

    assert shown(progress_enabled=False) == ""
    assert shown(progress_enabled=True, progress_type="none") == ""
    last = shown(progress_enabled=True, progress_type="json").splitlines()[-1]
    assert "40 rows" in json.loads(last)["message"]
    assert "40 rows" in shown(progress_enabled=True, progress_type="tqdm")
    assert "40 rows" in shown(progress_enabled=True, progress_type="rich")


@effect("ObservabilityConfig.metrics_enabled")
def _(case):
    for enabled in (True, False):
        pipeline = case.pipeline(observability={"metrics_enabled": enabled})
        pipeline.build()
        assert bool(pipeline.get_context().metrics) == enabled


@effect("ObservabilityConfig.log_level", "ObservabilityConfig.log_interval")
def _(case):
    class Heard(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.lines.append(record.getMessage())

    def heard(**observability):
        handler, logger = Heard(), logging.getLogger("easydata")
        logger.addHandler(handler)
        try:
            loader = case.pipeline(
                "load",
                observability=observability,
                pack={"seq_length": 10},
                load={"batch_size": 1},
            ).build()
            count = len(list(loader))
        finally:
            logger.removeHandler(handler)
        return count, handler.lines

    count, lines = heard(log_interval=10)
    assert sum("tokens/s" in line for line in lines) == count // 10
    assert any("40 rows" in line for line in lines)
    count, lines = heard(log_interval=20)
    assert sum("tokens/s" in line for line in lines) == count // 20
    assert heard(log_level="ERROR")[1] == []


# --- PipelineConfig


@effect("PipelineConfig.datasets")
def _(case):
    assert list(case.tokens(both=True)) == ["a", "b"]


@effect("PipelineConfig.streaming")
def _(case):
    off = {"cache": {"enabled": False}}
    stream = case.tokens(**off)
    assert case.counting.texts == []
    kept = case.tokens(streaming=False, **off)
    assert len(case.counting.texts) == 40
    assert [row["input_ids"].tolist() for row in stream] == [
        row["input_ids"].tolist() for row in kept
    ]


STAGES = {field.name for field in dataclasses.fields(ed.PipelineConfig)} - {
    "datasets",
    "default_tokenizer",
    "streaming",
    "seed",
}


@effect(*(f"PipelineConfig.{name}" for name in STAGES))
def _(case):
    kinds = {type(getattr(ed.PipelineConfig.from_dict(case.config()), n)).__name__ for n in STAGES}
    # Each is a configuration whose fields have their effects above.
    assert kinds == {name.split(".")[0] for name in FIELDS} - {
        "PipelineConfig",
        "DatasetConfig",
        "TokenizerConfig",
        "WeightSchedulePoint",
    }


@pytest.mark.parametrize("field", EFFECTS)
def test_effect(case, field):
    EFFECTS[field](case)


def test_no_field_is_without_an_effect():
    assert {*test_effects_data.EFFECTS, *test_effects_stages.EFFECTS, *EFFECTS} == FIELDS


def test_a_pipeline_on_a_real_ray_gives_the_same_bytes(case):
    import ray

    from tests.rays import small_ray

    def shards():
        return {p.name: p.read_bytes() for p in (case.folder / "cache").rglob("data-*")}

    with small_ray():
        tokens = case.tokens(default_tokenizer="bytes", ray={"enabled": True, "num_workers": 1})
        assert ray.is_initialized()
    on_ray = shards()
    import shutil

    shutil.rmtree(case.folder / "cache")
    again = case.tokens(default_tokenizer="bytes")
    assert shards() == on_ray
    assert pa.table(tokens.to_table()).equals(again.to_table())
