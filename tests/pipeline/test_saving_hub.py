"""Uploading: with what `datasets` is called, and that nobody sees the token."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

import datasets
import pytest

import easydata as ed
from easydata.pipeline.config import DatasetConfig
from easydata.pipeline.saving import save_results

from .saved import EXPECTED, config, documents

TOKEN = "hf_" + "secret" * 4


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []

    def record(self: datasets.Dataset, repo_id: str, **options: Any) -> None:
        found.append({"rows": self.to_list(), "repo_id": repo_id, **options})

    monkeypatch.setattr(datasets.Dataset, "push_to_hub", record)
    return found


def hub(folder: Path, **options: Any) -> dict[str, Any]:
    return {
        "enabled": True,
        "output_dir": folder,
        "push_to_hub": True,
        "hub_repo_id": "me/data",
        "hub_token": TOKEN,
        **options,
    }


@pytest.mark.parametrize("form", ["parquet", "arrow", "jsonl"])
def test_what_is_uploaded(
    tmp_path: Path, calls: list[dict[str, Any]], form: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = documents(tmp_path / "t")
    made = config(save=hub(tmp_path / "o", format=form, num_shards=2, hub_private=True))
    save_results({"dataset_0": tokens}, made)
    assert calls == [
        {
            "rows": EXPECTED,
            "repo_id": "me/data",
            "config_name": "default",
            "private": True,
            "token": TOKEN,
        }
    ]
    save_results({"dataset_0": tokens}, made)  # a hit, whose upload may have failed
    assert len(calls) == 2
    assert "uploaded to me/data" in caplog.text
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(made)
    assert not any(TOKEN.encode() in path.read_bytes() for path in (tmp_path / "o").glob("*.*"))


def test_several_are_configurations(tmp_path: Path, calls: list[dict[str, Any]]) -> None:
    tokens = documents(tmp_path / "t", limit=3)
    made = config(
        DatasetConfig("x", name="a"), DatasetConfig("x", name="b"), save=hub(tmp_path / "o")
    )
    save_results({"a": tokens, "b": tokens}, made)
    assert [call["config_name"] for call in calls] == ["a", "b"]
    assert calls[0]["private"] is False


def test_the_token_is_in_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: datasets.Dataset, repo_id: str, *, token: str, **_: Any) -> None:
        raise RuntimeError(f"401: the token {token} is not valid")

    monkeypatch.setattr(datasets.Dataset, "push_to_hub", refuse)
    tokens = documents(tmp_path / "t", limit=3)
    with pytest.raises(ed.StorageError, match=r"me/data: RuntimeError: 401: the token \*\*\*") as e:
        save_results({"dataset_0": tokens}, config(save=hub(tmp_path / "o")))
    assert TOKEN not in "".join(traceback.format_exception(e.value))
    assert (tmp_path / "o" / ".easydata-save.json").exists()
