"""Building what is there already, and building over what is there."""

from __future__ import annotations

import json
import logging

import datasets
import pytest

import easydata as ed
from easydata.format.directory import read_state

from .reports import report
from .support import everything, rows, shards, write


class Counting:
    """A tokenizer that counts the texts it was given."""

    def __init__(self, identity: str = "code points 1") -> None:
        self.texts = 0
        self.tokenizer = ed.CallableTokenizer(
            self._encode, vocab_size=1 << 21, identity=identity, eos_id=0
        )

    def _encode(self, given: list[str]) -> list[list[int]]:
        self.texts += len(given)
        return [[ord(char) for char in text] for text in given]


ROWS = rows(120)


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "a.jsonl", ROWS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def test_a_second_build_does_nothing_and_says_so(source, out, caplog):
    counting = Counting()
    report(source, out, tokenizer=counting.tokenizer)
    assert counting.texts == len(ROWS)
    before = everything(out)
    with caplog.at_level(logging.INFO, "easydata"):
        again = report(source, out, tokenizer=counting.tokenizer)
    assert again.outcome is None
    assert again.summary == f"{out} is up to date; nothing to do."
    assert again.summary in caplog.text
    assert counting.texts == len(ROWS)
    assert everything(out) == before


def test_a_renamed_copy_of_the_input_is_a_hit(tmp_path, source, out):
    report(source, out)
    assert report(write(tmp_path / "b.jsonl", ROWS), out).outcome is None


CHANGES = [
    ({"add_bos": True, "bos_token": 5}, "bos_id changed: none → 5"),
    ({"add_eos": False}, "eos_id changed: 256 → none"),
    ({"min_tokens": 3}, "min_tokens changed: 0 → 3"),
    ({"max_length": 9}, "max_length changed: none → 9"),
    ({"compression": "zstd"}, "compression changed: none → zstd"),
    ({"format": "parquet"}, "format changed: ipc → parquet"),
    ({"shard_size": "30kB"}, "shard_size changed: 20000 → 30000"),
    ({"part_size": "5kB"}, "part_size changed: 4000 → 5000"),
    ({"dtype": "int32"}, "dtype changed: uint16 → int32"),
    ({"keep_fields": ["id"]}, "keep_fields changed: [] → [['id', 'int64']]"),
    ({"limit": 5}, "limit changed: none → 5"),
    ({"on_error": "skip"}, "on_error changed: raise → skip"),
    ({"splits": {"a": 0.5, "b": 0.5}}, "splits changed: none → "),
    ({"tokenizer": Counting().tokenizer}, "tokenizer changed: "),
]


def name_of(value: object) -> str:
    return next(iter(value)) if isinstance(value, dict) else ""


@pytest.mark.parametrize(("change", "named"), CHANGES, ids=name_of)
def test_another_option_is_refused_by_name(source, out, change, named):
    report(source, out)
    before = everything(out)
    with pytest.raises(ed.OutputExistsError) as caught:
        report(source, out, **change)
    assert named in str(caught.value)
    assert str(out) in str(caught.value)
    assert "--overwrite" in str(caught.value)
    assert everything(out) == before


@pytest.mark.parametrize("change", [change for change, _ in CHANGES], ids=name_of)
def test_with_overwrite_another_option_gives_what_a_clean_build_gives(
    tmp_path, source, out, change
):
    report(source, out)
    report(source, out, overwrite=True, **change)
    report(source, tmp_path / "clean", **change)
    assert shards(out) == shards(tmp_path / "clean")


def test_changed_content_is_refused_and_named(tmp_path, source, out):
    other = write(tmp_path / "b.jsonl", rows(30, seed=1))
    report([source, other], out)
    before = everything(out)
    write(other, rows(30, seed=2))
    with pytest.raises(ed.OutputExistsError, match=r"the content of .*b\.jsonl changed"):
        report([source, other], out)
    with pytest.raises(ed.OutputExistsError, match=r"b\.jsonl was removed"):
        report(source, out)
    assert everything(out) == before


def test_overwrite_tokenizes_only_what_changed(tmp_path, out):
    counting = Counting()
    source = write(tmp_path / "a.jsonl", rows(600))
    first = report(source, out, tokenizer=counting.tokenizer).outcome
    old = shards(out)
    (out / "notes.txt").write_text("mine")
    (out / "cache-1234.arrow").write_text("a result of datasets.map")
    changed = rows(600)
    changed[300] = {"text": "something else"}
    write(source, changed)

    counting.texts = 0
    second = report(source, out, overwrite=True, tokenizer=counting.tokenizer).outcome
    assert second.rows == 600
    assert first.parts - 4 <= second.reused < second.parts
    assert 0 < counting.texts < 100

    clean = tmp_path / "clean"
    report(source, clean, tokenizer=counting.tokenizer)
    assert shards(out) == shards(clean)
    assert not set(old) & set(shards(out))
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "cache-1234.arrow").exists()
    names = sorted(path.name for path in out.iterdir())
    extra = {"notes.txt", "cache-1234.arrow"}
    assert len(names) == len(list(clean.iterdir())) + len(extra)


def test_overwrite_with_equal_content_changes_no_shard(source, out):
    report(source, out)
    before = shards(out)
    outcome = report(source, out, overwrite=True).outcome
    assert outcome.reused == outcome.parts
    assert shards(out) == before


@pytest.mark.parametrize("over", ["generator", "list"])
def test_rows_without_identity_hit_through_equal_parts(out, over):
    counting = Counting()

    def given():
        return iter(ROWS) if over == "generator" else ROWS

    report(given(), out, tokenizer=counting.tokenizer)
    before = shards(out)
    outcome = report(given(), out, tokenizer=counting.tokenizer).outcome
    assert outcome is None or outcome.reused == outcome.parts
    assert counting.texts == len(ROWS)
    assert shards(out) == before
    with pytest.raises(ed.OutputExistsError, match="other rows"):
        report(rows(120, seed=1), out, tokenizer=counting.tokenizer)
    assert shards(out) == before


def test_fewer_equal_parts_do_not_replace_a_dataset(out):
    # Equal rows are cut at equal distances, so that a prefix has no part of its own.
    row = {"text": "x" * 90}
    report([row] * 300, out)
    dataset = ed.open_dataset(out)
    (first, *others) = dataset.ledger.parts()
    assert others
    count = sum(span.records for span in first.spans)
    before = shards(out)
    with pytest.raises(ed.OutputExistsError, match="other rows"):
        report([row] * count, out)
    assert shards(out) == before


def test_a_dataset_object_is_known_by_its_fingerprint(out):
    counting = Counting()
    data = datasets.Dataset.from_list(ROWS)
    report(data, out, tokenizer=counting.tokenizer)
    assert report(data, out, tokenizer=counting.tokenizer).outcome is None
    with pytest.raises(ed.OutputExistsError, match="rows of Dataset changed"):
        report(data.select(range(10)), out, tokenizer=counting.tokenizer)


def test_broken_rows_that_were_skipped_are_not_hidden_from_a_strict_build(tmp_path, out):
    source = write(tmp_path / "a.jsonl", ROWS)
    source.write_bytes(source.read_bytes() + b"{broken\n")
    assert report(source, out, on_error="skip").outcome.skipped == 1
    with pytest.raises(ed.BadRowError, match="line 121"):
        report(source, out, on_error="raise", overwrite=True)
    assert len(ed.open_dataset(out)) == 120


def test_a_limit_is_a_hit_too(source, out):
    counting = Counting()
    report(source, out, tokenizer=counting.tokenizer, limit=50)
    counting.texts = 0
    outcome = report(source, out, tokenizer=counting.tokenizer, limit=50).outcome
    assert outcome is None or outcome.reused == outcome.parts
    assert counting.texts == 0
    assert len(ed.open_dataset(out)) == 50


def test_foreign_files_stop_a_build(source, out):
    out.mkdir()
    (out / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ed.OutputExistsError, match=r"thesis\.tex.*--out"):
            report(source, out, overwrite=overwrite)
    assert [path.name for path in out.iterdir()] == ["thesis.tex"]


def test_a_file_stops_a_build(source, out):
    out.write_text("x")
    for overwrite in (False, True):
        with pytest.raises(ed.OutputExistsError, match=r"is a file\. .*--out"):
            report(source, out, overwrite=overwrite)
    assert out.read_text() == "x"


def test_an_empty_folder_is_built_in(source, out):
    out.mkdir()
    report(source, out)
    assert len(ed.open_dataset(out)) == len(ROWS)


def test_a_dataset_of_datasets_is_replaced_only_when_asked(source, out):
    datasets.Dataset.from_list(ROWS[:3]).save_to_disk(out)
    before = everything(out)
    with pytest.raises(ed.OutputExistsError, match=r"HuggingFace datasets saved.*--overwrite"):
        report(source, out)
    assert everything(out) == before
    report(source, out, overwrite=True)
    assert len(ed.open_dataset(out, verify="open")) == len(ROWS)
    assert not (out / "data-00000-of-00001.arrow").exists()


@pytest.mark.parametrize("hurt", ["flip", "cut", "remove"])
def test_a_damaged_ledger_is_built_again_only_when_asked(source, out, hurt):
    report(source, out)
    whole = shards(out)
    ledger = out / read_state(out)
    data = bytearray(ledger.read_bytes())
    ledger.unlink()
    if hurt == "flip":
        data[len(data) // 2] ^= 1
        ledger.write_bytes(data)
    if hurt == "cut":
        ledger.write_bytes(data[:100])
    with pytest.raises(ed.DatasetError, match="--overwrite"):
        report(source, out)
    report(source, out, overwrite=True)
    assert shards(out) == whole
    ed.open_dataset(out, verify="open")


def test_damaged_shards_are_not_reused(source, out):
    parts = report(source, out).outcome.parts
    whole = shards(out)
    name = min(whole)
    data = bytearray(whole[name])
    data[len(data) // 2] ^= 1
    (out / name).unlink()
    (out / name).write_bytes(data)
    outcome = report(source, out, overwrite=True).outcome
    assert 0 < outcome.reused < parts
    assert shards(out) == whole
    ed.open_dataset(out, verify="open")


def test_an_unfinished_build_of_another_recipe_is_no_obstacle(source, out):
    work = out / ".build" / ("0" * 32)
    work.mkdir(parents=True)
    (work / "part-1.arrow").write_bytes(b"junk")
    (out / ".tmp-12-data-00000-of-00001.arrow").write_bytes(b"never renamed")
    report(source, out)
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert len(ed.open_dataset(out, verify="open")) == len(ROWS)


def test_a_state_that_is_no_json_is_named(source, out):
    report(source, out)
    (out / "state.json").write_text("{")
    with pytest.raises(ed.NotADatasetError, match=r"state\.json .*--overwrite"):
        report(source, out)
    report(source, out, overwrite=True)
    assert len(ed.open_dataset(out)) == len(ROWS)


def test_a_newer_format_is_named(source, out):
    report(source, out)
    state = json.loads((out / "state.json").read_text())
    state["easydata"]["format"] = 99
    (out / "state.json").write_text(json.dumps(state))
    with pytest.raises(ed.FormatVersionError, match="99"):
        report(source, out)
