"""Building samples again: what is a hit, what is reused, what is refused, what a kill leaves."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import easydata as ed
from easydata.build.explain import explain
from easydata.build.task import BuildTask
from easydata.cli import main
from easydata.loader.plan_store import stored_plan

from .killing import OPTIONS
from .reports import report
from .support import everything, rows, shards, write

SEQ = {"seq_len": 64}


@pytest.fixture
def source(tmp_path) -> Path:
    return write(tmp_path / "a.jsonl", rows(120))


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def tokenized(monkeypatch) -> list[int]:
    """The number of records of every task that is tokenized in this process."""
    done = []
    real = BuildTask.__call__

    def call(self, blocks):
        done.append(sum(item.block.num_records for item in blocks))
        return real(self, blocks)

    monkeypatch.setattr(BuildTask, "__call__", call)
    return done


def top(folder: Path) -> dict[str, bytes]:
    """The shards of the samples alone."""
    return {name: data for name, data in shards(folder).items() if "/" not in name}


def clean(source: Any, folder: Path, **options: Any) -> dict[str, bytes]:
    report(source, folder, **options)
    return shards(folder)


def test_the_same_build_is_a_hit_and_writes_nothing(source, out, tokenized):
    options = {**SEQ, "pack": "greedy", "pad_token": 0, "shuffle": True}
    report(source, out, **options)
    before = everything(out)
    tokenized.clear()
    assert report(source, out, **options).summary == f"{out} is up to date; nothing to do."
    # Another way to say the same, which is known only when the tokenizer is loaded.
    report(source, out, **options, add_bos=False, seed=0, dtype="uint16")
    assert everything(out) == before
    assert tokenized == []
    report(source, out.parent / "plain", **SEQ)
    assert report(source, out.parent / "plain", **SEQ, pack="concat").outcome is None


CHANGES = [
    ({"seq_len": 32}, ["seq_len changed: 64 → 32"]),
    ({"pack": "best_fit"}, ["pack changed: greedy → best_fit"]),
    ({"pad_token": 5}, ["pad_id changed: 0 → 5"]),
    ({"segment_ids": True}, ["segment_ids changed: False → True"]),
    ({"shuffle": True}, ["shuffle changed: False → True", "seed changed: none → 0"]),
    ({"compression": "zstd"}, ["compression changed: none → zstd"]),
]


@pytest.mark.parametrize(("changed", "reasons"), CHANGES, ids=str)
def test_other_samples_are_refused_and_made_without_tokenizing(
    source, out, tmp_path, tokenized, changed, reasons
):
    options = {**SEQ, "pack": "greedy", "pad_token": 0}
    report(source, out, **options)
    before = everything(out)
    tokenized.clear()
    with pytest.raises(ed.OutputExistsError) as caught:
        report(source, out, **{**options, **changed})
    assert sorted(str(caught.value).split(": ", 1)[1].split(". Pass")[0].split("; ")) == sorted(
        reasons
    )
    assert "--overwrite" in str(caught.value)
    assert everything(out) == before
    found = explain(out, source, **changed)
    assert found == [reason for reason in reasons if not reason.startswith("seed")]
    replaced = report(source, out, overwrite=True, **{**options, **changed})
    assert tokenized == []
    assert sorted(replaced.reasons) == sorted(reasons)
    assert shards(out) == clean(source, tmp_path / "clean", **{**options, **changed})


def test_explain_knows_what_belongs_together(source, out):
    report(source, out, **SEQ, pack="greedy", pad_token=0, shuffle=True, seed=3)
    assert explain(out, source) == []
    assert explain(out, seq_len=64, pack="greedy", shuffle=True, seed=3) == []
    assert explain(out, pad_token=0) == explain(out, tokenizer="bytes") == []
    assert explain(out, pad_token=1) == ["pad_id changed: 0 → 1"]
    assert explain(out, seed=4) == ["seed changed: 3 → 4"]
    assert explain(out, shuffle=False) == ["shuffle changed: True → False"]
    assert explain(out, seq_len=None) == ["seq_len changed: 64 → none"]
    assert explain(out / "documents", seq_len=9) == ["seq_len changed: none → 9"]
    with pytest.raises(ed.UsageError, match="seq_len"):
        explain(out / "documents", pack="greedy")


def test_explain_on_the_command_line(source, out, capsys):
    report(source, out, **SEQ)
    words = ["explain", str(out), "--seq-len", "32", "--pack", "pool", "--shuffle", "--seed", "1"]
    assert main([*words, "--segment-ids"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "seq_len changed: 64 → 32",
        "pack changed: concat → pool",
        "shuffle changed: False → True",
        "seed changed: none → 1",
        "segment_ids changed: False → True",
    ]
    assert main(["explain", str(out), "--seq-len", "64", "--no-shuffle"]) == 0


def test_changed_input_reuses_the_parts_of_the_documents(source, out, tmp_path, tokenized):
    report(source, out, **SEQ)
    report(source, tmp_path / "plain")
    values = rows(120)
    values[60] = {"text": "another text", "id": -1}
    write(source, values)
    with pytest.raises(ed.OutputExistsError, match="changed"):
        report(source, out, **SEQ)
    tokenized.clear()
    done = report(source, out, overwrite=True, **SEQ)
    assert done.outcome.reused >= done.outcome.parts - 2 > 0
    assert 0 < sum(tokenized) < 60
    assert shards(out) == clean(source, tmp_path / "clean", **SEQ)


def test_documents_become_samples_and_samples_documents(source, out, tmp_path, tokenized):
    report(source, out)
    assert not (out / "documents").exists()
    with pytest.raises(ed.OutputExistsError, match="seq_len changed: none → 64"):
        report(source, out, **SEQ)
    tokenized.clear()
    report(source, out, overwrite=True, **SEQ)
    assert tokenized == []
    assert shards(out) == clean(source, tmp_path / "samples", **SEQ)
    tokenized.clear()
    with pytest.raises(ed.OutputExistsError, match="seq_len changed: 64 → none"):
        report(source, out)
    report(source, out, overwrite=True)
    assert not (out / "documents").exists()
    assert not (out / ".build").exists()
    assert tokenized == []
    assert shards(out) == clean(source, tmp_path / "plain")


def test_samples_of_documents_that_were_deleted(source, out, tokenized):
    report(source, out, **SEQ)
    before = everything(out)
    shutil.rmtree(out / "documents")
    samples = {name: value for name, value in before.items() if not name.startswith("documents")}
    ed.open_dataset(out).verify()
    with pytest.raises(ed.OutputExistsError, match="seq_len changed"):
        report(source, out, seq_len=32)
    tokenized.clear()
    assert report(source, out, **SEQ).outcome is None  # made again: they tell what changed
    assert tokenized
    assert {name: value for name, value in everything(out).items() if name in samples} == samples
    tokenized.clear()
    assert report(source, out, **SEQ).outcome is None
    assert tokenized == []
    shutil.rmtree(out / "documents")
    write(source, rows(121))
    with pytest.raises(ed.OutputExistsError, match="other rows"):
        report(source, out, **SEQ)
    report(source, out, overwrite=True, **SEQ)
    assert ed.open_dataset(out / "documents").num_tokens // 64 == len(ed.open_dataset(out))


def test_rows_without_identity_are_read_again_and_compared(out, tokenized):
    report(rows(50), out, **SEQ)
    before = top(out)
    tokenized.clear()
    assert report(rows(50), out, **SEQ).outcome is None
    assert tokenized == []
    with pytest.raises(ed.OutputExistsError, match="other rows"):
        report(rows(51), out, **SEQ)
    assert top(out) == before
    ed.open_dataset(out).verify()


def test_damage_is_mended_by_building_again(source, out):
    report(source, out, **SEQ)
    whole = shards(out)
    for name in [next(iter(top(out))), next(name for name in whole if "/" in name)]:
        (out / name).unlink()
        (out / name).write_bytes(whole[name][:-100])
        report(source, out, overwrite=True, **SEQ)
        assert shards(out) == whole


def test_the_repair_of_documents_keeps_them_those_of_the_samples(source, out):
    options = {**SEQ, "pack": "greedy", "pad_token": 0, "compression": "zstd"}
    report(source, out, **options)
    documents = ed.open_dataset(out / "documents")
    command = documents.ledger.repair_command(documents.path)
    assert "--seq-len" not in command
    assert main(shlex.split(command)[1:]) == 0
    assert report(source, out, **options).outcome is None
    report(source, out, overwrite=True)
    assert not (out / "documents").exists()


@pytest.mark.parametrize("before", ["nothing", "documents"])
def test_a_dataset_that_lies_there_is_not_taken_for_the_documents(source, out, before):
    if before == "documents":
        report(source, out)
    report(rows(3), out / "documents")
    found = everything(out / "documents")
    with pytest.raises(ed.OutputExistsError, match="documents"):
        report(source, out, overwrite=True, **SEQ)
    if before == "documents":
        report(source, out, overwrite=True)
    assert everything(out / "documents") == found


def test_each_split_has_its_samples(source, out, tmp_path, tokenized):
    splits = {"splits": {"train": 0.7, "test": 0.3}}
    report(source, out, **SEQ, **splits)
    for name, split in ed.open_splits(out).items():
        documents = ed.open_dataset(out / "documents", split=name)
        expected = documents.tokens(0, len(split) * 64)
        assert np.array_equal(split.tokens(0, split.num_tokens), expected)
        assert documents.num_tokens - len(expected) < 64
    assert set(datasets.load_from_disk(out)) == {"train", "test"}
    assert report(source, out, **SEQ, **splits).outcome is None
    tokenized.clear()
    report(source, out, overwrite=True, seq_len=32, **splits)
    assert tokenized == []
    assert shards(out) == clean(source, tmp_path / "clean", seq_len=32, **splits)
    report(source, out, overwrite=True, **splits)
    assert shards(out) == clean(source, tmp_path / "plain", **splits)
    assert not (out / "documents").exists()


def test_a_failed_build_can_be_corrected(source, out):
    with pytest.raises(ed.UsageError, match=r"seq_len is 1000000, but the input has only \d+"):
        report(source, out, seq_len=1_000_000)
    with pytest.raises(ed.NotADatasetError):
        ed.open_dataset(out)
    report(source, out, **SEQ)
    assert len(ed.open_dataset(out)) > 0
    assert not list(out.glob(".*"))


def test_a_dry_run_counts_samples_and_writes_nothing(source, out):
    plain = ed.build(source, tokenizer="bytes", out=out, dry_run=True)
    found = ed.build(source, tokenizer="bytes", out=out, dry_run=True, **SEQ)
    assert not out.exists()
    assert plain.samples is None
    assert found.samples == pytest.approx(found.tokens / 64, abs=1)
    assert found.output_bytes == pytest.approx(2 * plain.output_bytes, rel=0.1)


def test_the_command_line_builds_the_same(source, out, tmp_path, capsys):
    words = ["--seq-len", "64", "--pack", "first_fit", "--pad-token", "0", "--shuffle"]
    command = ["build", str(source), *OPTIONS, *words, "--seed", "9", "--segment-ids"]
    assert main([*command, "--out", str(out)]) == 0
    assert "samples of 64 tokens (first_fit, " in capsys.readouterr().out
    options = {"pack": "first_fit", "pad_token": 0, "shuffle": True, "seed": 9}
    expected = clean(source, tmp_path / "api", **SEQ, **options, segment_ids=True)
    assert shards(out) == expected
    ds = ed.open_dataset(out)
    repair = shlex.split(ds.ledger.repair_command(out))
    assert {*words, "--seed", "9", "--segment-ids"} <= {*repair}
    assert main(repair[1:]) == 0
    assert shards(out) == expected
    assert main(["info", str(out)]) == 0
    assert "shuffled with seed 9" in capsys.readouterr().out


def test_a_plan_is_kept_as_long_as_its_documents(source, out):
    def plans() -> set[Path]:
        return set(out.rglob("plans/*.arrow"))

    report(source, out, **SEQ)
    documents = ed.open_dataset(out / "documents")
    stored_plan(documents.path, documents.fingerprint, documents.lengths, 32, "greedy")
    before = plans()
    assert before
    report(source, out, overwrite=True, seq_len=16)
    assert before <= plans()
    write(source, rows(130))
    report(source, out, overwrite=True, **SEQ)
    assert not before & plans()
    documents = ed.open_dataset(out / "documents")
    stored_plan(documents.path, documents.fingerprint, documents.lengths, 32, "greedy")
    report(source, out, overwrite=True)
    assert not plans()
