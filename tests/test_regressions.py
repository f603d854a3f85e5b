"""Defects that were found by trying to break it, so that none comes back."""

from __future__ import annotations

import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import easydata as ed
from easydata.build.work import work_folder


def test_a_part_that_was_sealed_meanwhile_is_read_from_its_shard(tmp_path: Path) -> None:
    # Equal files give equal parts. While the first lies alone the second is found there; then
    # the shard of the first is sealed, and its own file goes.
    lines = [json.dumps({"text": f"{n} {n * 7919 % 10007} " * 8}) for n in range(1500)]
    files = [tmp_path / f"{name}.jsonl" for name in "abc"]
    for file in files:
        file.write_text("\n".join(lines) + "\n")
    found = {}
    for workers in (1, 2):
        splits = ed.build(
            [str(file) for file in files],
            tokenizer="bytes",
            out=tmp_path / f"out{workers}",
            splits={"train": 0.5, "test": 0.5},
            part_size="16KB",
            shard_size="64KB",
            workers=workers,
        )
        assert sum(map(len, splits.values())) == 3 * len(lines)
        assert splits["test"].lineage(-1).source == str(files[2])
        for dataset in splits.values():
            dataset.verify()
        found[workers] = [dataset.fingerprint for dataset in splits.values()]
    assert found[1] == found[2]


@pytest.mark.parametrize("options", [{"limit": 2}, {}])
def test_building_parquet_again_without_identities_is_no_error(
    tmp_path: Path, options: dict[str, int]
) -> None:
    # Parts cannot be taken out of Parquet; they are made again, and are the same.
    rows = [{"text": "one"}, {"text": "two"}, {"text": "three"}]
    out = tmp_path / "out"

    def build(texts: list[dict[str, str]]) -> str:
        return ed.build(
            texts, tokenizer="bytes", out=out, format="parquet", limit=options.get("limit")
        ).fingerprint

    assert build(rows) == build(rows)
    with pytest.raises(ed.OutputExistsError, match="other rows"):
        build([{"text": "four"}, {"text": "five"}])


def test_the_same_bytes_read_as_another_type_are_no_hit(tmp_path: Path) -> None:
    lines, text = tmp_path / "x.jsonl", tmp_path / "x.txt"
    for path in (lines, text):
        path.write_text('{"text": "one"}\n{"text": "two"}\n')
    out = tmp_path / "out"
    assert len(ed.build(lines, tokenizer="bytes", out=out)) == 2
    with pytest.raises(ed.OutputExistsError, match=r"read in another way: \.jsonl → \.txt"):
        ed.build(text, tokenizer="bytes", out=out)
    assert len(ed.build(text, tokenizer="bytes", out=out, overwrite=True)) == 1


def test_an_opened_dataset_survives_a_change_of_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    dataset = ed.build([{"text": "one"}], tokenizer="bytes", out="out")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert dataset.decode(0) == "one"


def test_a_build_that_waited_for_another_finds_its_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The first build removes the work folder, with the lock that the second is waiting for.
    out = tmp_path / "out"
    rows = [{"text": "one"}]
    with ThreadPoolExecutor(1) as pool, work_folder(out, "first"):
        is_waiting = threading.Event()
        monkeypatch.setattr(logging.getLogger("easydata"), "warning", lambda _: is_waiting.set())
        waiting = pool.submit(ed.build, rows, tokenizer="bytes", out=out)
        assert is_waiting.wait(60)
        assert not waiting.done()
    assert len(waiting.result()) == 1
    assert not (out / ".build").exists()
