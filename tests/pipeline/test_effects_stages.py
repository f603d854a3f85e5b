"""Effects of the fields of the stages that tokenize, cache, mix and pack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import easydata as ed

from .counting import words
from .effects import Case, Effects, ord_of

EFFECTS = Effects()
effect = EFFECTS.of


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


# --- TokenizeStageConfig


@effect("TokenizeStageConfig.default_tokenizer")
def _(case):
    assert case.ids(tokenize={"default_tokenizer": "bytes"})[0][-1] == 256


@effect("TokenizeStageConfig.max_length")
def _(case):
    assert max(map(len, case.ids(tokenize={"max_length": 8}))) == 8


@effect("TokenizeStageConfig.batch_size")
def _(case):
    case.ids()
    assert case.counting.calls == [40]
    case.counting.calls.clear()
    case.ids(tokenize={"batch_size": 15}, cache={"enabled": False})
    assert case.counting.calls == [15, 15, 10]


@effect("TokenizeStageConfig.num_workers")
def _(case):
    import subprocess

    started = []
    real = subprocess.Popen

    class Noted(real):
        def __init__(self, command, *args, **kwargs):
            started.append(command)
            super().__init__(command, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "Popen", Noted)
        case.ids(default_tokenizer="bytes", tokenize={"num_workers": 1})
        assert not started
        case.ids(default_tokenizer="bytes", tokenize={"num_workers": 2, "max_length": 9})
    assert started


@effect("TokenizeStageConfig.cache_tokenized", "CacheStageConfig.enabled")
def _(case):
    for fields in ({"tokenize": {"cache_tokenized": False}}, {"cache": {"enabled": False}}):
        case.counting.texts.clear()
        for _run in range(2):
            case.ids(**fields)
        assert len(case.counting.texts) == 80
        assert not (case.folder / "cache").exists()


def fail_at_seven(row: dict[str, Any]) -> dict[str, Any]:
    if row["id"] == 7:
        raise ValueError("seven")
    return row


@effect("TokenizeStageConfig.on_error")
def _(case):
    given = {"format_callback": fail_at_seven}
    with pytest.raises(ed.BadRowError, match="seven"):
        case.ids(dataset=given)
    assert len(case.ids(dataset=given, tokenize={"on_error": "skip"})) == 39


# --- CacheStageConfig


@effect("CacheStageConfig.cache_type")
def _(case):
    memory = {"cache": {"cache_type": "memory"}}
    assert case.tokens(**memory) is case.tokens(**memory)
    assert not (case.folder / "cache").exists()
    assert case.tokens() is case.tokens()
    disk = {"cache": {"cache_type": "disk"}}
    assert case.tokens(**disk) is not case.tokens(**disk)
    assert (case.folder / "cache").exists()
    assert len(case.counting.texts) == 80


@effect("CacheStageConfig.cache_dir")
def _(case):
    case.ids(cache={"cache_dir": str(case.folder / "elsewhere")})
    assert list((case.folder / "elsewhere").rglob("data-*.arrow"))


@effect("CacheStageConfig.memory_cache_size")
def _(case):
    def opened(size):
        cache = {"cache": {"memory_cache_size": size}}
        first = case.tokens(**cache)
        case.tokens(dataset={"data_files": case.b}, **cache)
        return case.tokens(**cache) is first

    assert opened(50)
    assert not opened(1)


@effect("CacheStageConfig.disk_cache_expiry")
def _(case):
    case.ids()
    case.ids(cache={"disk_cache_expiry": 3600})
    assert len(case.counting.texts) == 40
    case.ids(cache={"disk_cache_expiry": 1e-9})
    assert len(case.counting.texts) == 80


@effect("CacheStageConfig.compression")
def _(case):
    assert case.tokens(cache={"compression": "zstd"}).ledger.metadata["compression"] == "zstd"
    assert case.tokens().ledger.metadata["compression"] == "none"


@effect("CacheStageConfig.hash_fn")
def _(case):
    import os
    import time

    an_hour_ago = time.time_ns() - 3600 * 10**9
    changes = {"content": False, "path": True, "combined": False}
    for hash_fn, is_changed in changes.items():
        os.utime(case.a, ns=(an_hour_ago, an_hour_ago))
        case.pipeline(cache={"hash_fn": hash_fn, "cache_dir": str(case.folder / hash_fn)}).build()
        os.utime(case.a, ns=(an_hour_ago, an_hour_ago + 10**9))
        pipeline = case.pipeline(
            cache={"hash_fn": hash_fn, "cache_dir": str(case.folder / hash_fn)}
        )
        pipeline.build()
        assert pipeline.get_context().datasets["a"].is_hit != is_changed


# --- MixStageConfig, WeightSchedulePoint

MIXED = {"pack": {"seq_length": 40, "shuffle_packed": False}, "load": {"batch_size": 4}}


def sources(rows: list[list[int]]) -> str:
    return "".join("b" if ord("b") in row else "a" for row in rows)


@effect("MixStageConfig.weights")
def _(case):
    def found(share):
        mix = {"weights": {"a": share, "b": 1 - share}}
        return sources(case.rows("pack", both=True, mix=mix, **MIXED))

    assert found(0.75)[:8].count("b") == 2
    assert found(0.5)[:8].count("b") == 4


@effect(
    "MixStageConfig.weight_schedule",
    "MixStageConfig.weight_schedule_type",
    "WeightSchedulePoint.step",
    "WeightSchedulePoint.weights",
)
def _(case):
    def found(step, first, kind="step"):
        points = [
            {"step": 0, "weights": {"a": first, "b": 1 - first}},
            {"step": step, "weights": {"a": 0.0, "b": 1.0}},
        ]
        mix = {"weight_schedule": points, "weight_schedule_type": kind, "block_size": 1}
        return sources(case.rows("pack", both=True, mix=mix, **MIXED))

    assert found(2, 1.0).startswith("a" * 8 + "b" * 8)
    assert found(3, 1.0).startswith("a" * 12 + "b" * 8)
    assert found(2, 0.5)[:8].count("b") == 4
    assert 0 < found(4, 1.0, "linear")[:16].count("b") < 16
    assert found(4, 1.0, "linear") != found(4, 1.0, "cosine")


@effect("MixStageConfig.block_size")
def _(case):
    def found(size):
        points = [
            {"step": 0, "weights": {"a": 1.0, "b": 0.0}},
            {"step": 8, "weights": {"a": 0.0, "b": 1.0}},
        ]
        mix = {
            "weight_schedule": points,
            "weight_schedule_type": "linear",
            "block_size": size,
        }
        return sources(case.rows("pack", both=True, mix=mix, **MIXED))

    assert found(1) != found(16)


@effect("MixStageConfig.stop_strategy")
def _(case):
    def found(strategy):
        mix = {"weights": {"a": 0.9, "b": 0.1}, "stop_strategy": strategy}
        return len(case.rows("pack", both=True, mix=mix, **{**MIXED, "load": {"batch_size": 1}}))

    first, restart, every = map(found, ("first_exhausted", "restart", "all_exhausted"))
    assert first < restart < every


@effect("MixStageConfig.seed", "PipelineConfig.seed")
def _(case):
    def found(**fields):
        fields = {"pack": {"seq_length": 40}, **fields}
        return case.rows("pack", both=True, **fields)

    assert found(mix={"seed": 1}) != found(mix={"seed": 2})
    assert found(seed=1) == found(mix={"seed": 1}, seed=5) != found(seed=2)


# --- PackStageConfig


@effect("PackStageConfig.enabled")
def _(case):
    packed = case.tokens(pack={"enabled": True, "seq_length": 40})
    assert packed.read(np.arange(2))["input_ids"].shape == (2, 40)


@effect("PackStageConfig.seq_length")
def _(case):
    for length in (40, 50):
        batch = case.batches("pack", pack={"seq_length": length})[0]
        assert batch["input_ids"].shape == (8, length)


@effect("PackStageConfig.eos_token_id", "PackStageConfig.pad_token_id")
def _(case):
    rows = case.rows("pack", pack={"seq_length": 40, "eos_token_id": 7, "pad_token_id": 9})
    assert {row[-1] for row in rows} <= {7, 9}
    assert any(row[-1] == 9 and 7 in row for row in rows)
    plain = case.rows("pack", pack={"seq_length": 40})
    assert {row[-1] for row in plain} <= {0, 1}


@effect("PackStageConfig.strategy")
def _(case):
    def count(strategy):
        pack = {"seq_length": 50, "strategy": strategy, "num_packers": 2}
        return case.pipeline("pack", pack=pack).build().num_samples

    counts = {name: count(name) for name in ("greedy", "pool", "first_fit", "best_fit")}
    assert counts["best_fit"] < counts["first_fit"] < counts["pool"] < counts["greedy"]
    stream = case.pipeline("pack", pack={"seq_length": 50, "strategy": "concat"}).build()
    assert stream.num_samples <= counts["best_fit"]


@effect("PackStageConfig.num_packers")
def _(case):
    def count(packers):
        pack = {"seq_length": 64, "strategy": "pool", "num_packers": packers}
        return case.pipeline("pack", pack=pack).build().num_samples

    assert count(8) < count(1)


@effect("PackStageConfig.include_segment_ids")
def _(case):
    batch = case.batches("pack", pack={"seq_length": 64})[0]
    assert batch["segment_ids"].max() > 1
    bare = case.batches("pack", pack={"seq_length": 64, "include_segment_ids": False})[0]
    assert "segment_ids" not in bare


@effect("PackStageConfig.shuffle_packed")
def _(case):
    load = {"batch_size": 1}
    ordered = case.rows("pack", pack={"seq_length": 40, "shuffle_packed": False}, load=load)
    shuffled = case.rows("pack", pack={"seq_length": 40}, load=load)
    assert ordered[0][: len(words("a", 1)[0])] == ord_of(words("a", 1)[0], eos=False)
    assert ordered != shuffled
    assert sorted(ordered) == sorted(shuffled)


@effect("PackStageConfig.shuffle_buffer_factor")
def _(case):
    def found(factor):
        pack = {"seq_length": 40, "num_packers": 1, "shuffle_buffer_factor": factor}
        return case.rows("pack", pack=pack, cache={"enabled": False}, load={"batch_size": 1})

    # A stream is shuffled in windows of so many samples.
    assert found(2) != found(20)


@pytest.mark.parametrize("field", EFFECTS)
def test_effect(case, field):
    EFFECTS[field](case)
