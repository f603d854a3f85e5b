"""Pipelines end to end: stages, results, hits, and what they say."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import easydata as ed
from easydata.cli.main import main

from .counting import Counting, quiet, words, write_rows


@pytest.fixture
def files(tmp_path):
    return {
        "a": write_rows(tmp_path / "in" / "a.jsonl", words("a", 40), id=range(40)),
        "b": write_rows(tmp_path / "in" / "b.jsonl", words("b", 30), id=range(30)),
    }


@pytest.fixture
def counting():
    return Counting()


@pytest.fixture
def config(tmp_path, files, counting):
    def make(*names, **fields):
        return quiet(
            tmp_path,
            datasets=[{"name": name, "data_files": files[name]} for name in names or ("a",)],
            default_tokenizer=counting.tokenizer,
            **fields,
        )

    return make


def start(config):
    return ed.Pipeline.from_config(config).source()


def spoken(tokens):
    return ["".join(map(chr, row["input_ids"][:-1])) for row in tokens]


def test_one_dataset_is_itself_and_several_are_a_dictionary(config):
    one = start(config("a")).build()
    assert spoken(one) == words("a", 40)
    both = start(config("a", "b")).build()
    assert list(both) == ["a", "b"]
    assert spoken(both["b"]) == words("b", 30)


def test_the_second_run_tokenizes_nothing_and_says_so(config, counting, caplog):
    start(config("a", "b")).build()
    assert len(counting.texts) == 70
    with caplog.at_level(logging.INFO, "easydata"):
        pipeline = start(config("a", "b"))
        pipeline.build()
    assert len(counting.texts) == 70
    assert caplog.text.count("is up to date; nothing to do.") == 2
    assert str(pipeline).count("cache hit") == 2
    assert [item["hit"] for item in list(pipeline.get_context().metrics["tokenize"].values())[:2]]


def test_a_changed_row_is_told_and_gives_what_a_clean_run_gives(tmp_path, config, files, counting):
    start(config("a")).build()
    write_rows(files["a"], ["new", *words("a", 40)[1:]], id=range(40))
    pipeline = start(config("a"))
    assert spoken(pipeline.build())[0] == "new"
    assert f"because the content of {files['a']} changed" in str(pipeline)
    found = shards(tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    start(config("a")).build()
    assert shards(tmp_path / "cache") == found


def shards(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("data-*"))}


def test_two_configurations_do_not_drive_each_other_out(config, counting):
    long, short = config("a"), config("a", tokenize={"max_length": 5})
    for _ in range(3):
        assert max(len(row["input_ids"]) for row in start(long).build()) > 5
        assert max(len(row["input_ids"]) for row in start(short).build()) == 5
    assert len(counting.texts) == 80


def test_the_reason_compares_with_what_was_there(config):
    start(config("a")).build()
    pipeline = start(config("a", tokenize={"max_length": 5}))
    pipeline.build()
    assert "max_length changed: none → 5" in str(pipeline)
    other = Counting("characters 2")
    pipeline = start({**config("a"), "default_tokenizer": other.tokenizer})
    pipeline.build()
    assert "tokenizer changed: characters 1 → characters 2" in str(pipeline)
    assert len(other.texts) == 40


def test_of_100_files_only_the_changed_one_is_tokenized(tmp_path, counting):
    folder = tmp_path / "many"
    for i in range(100):
        write_rows(folder / f"{i:03}.jsonl", words(f"{i} ", 20))
    fields = {"default_tokenizer": counting.tokenizer, "cache": {"hash_fn": "content"}}
    config = quiet(tmp_path, datasets=[{"name": "many", "data_files": str(folder)}], **fields)
    start(config).build()
    counting.texts.clear()
    write_rows(folder / "050.jsonl", words("new ", 20))
    pipeline = start(config)
    pipeline.build()
    outcome = pipeline.get_context().datasets["many"].report.outcome
    assert counting.texts == words("new ", 20)
    assert outcome.rows_reused == 99 * 20
    assert "1,980 rows taken over" in str(pipeline)


ORDERS = [
    (["tokenize"], r"tokenize\(\) is called before source\(\)"),
    (["source", "source"], r"source\(\) is called twice"),
    (["source", "pack", "tokenize"], r"tokenize\(\) is called after pack\(\)"),
    (["source", "load", "save"], r"save\(\) is called after load\(\)"),
    (["source", "save", "mix"], r"mix\(\) is called after save\(\)"),
    (["source", "load", "cache"], r"cache\(\) is called after load\(\)"),
]


@pytest.mark.parametrize(("stages", "message"), ORDERS, ids=str)
def test_a_wrong_order_is_a_clear_error(config, stages, message):
    pipeline = ed.Pipeline.from_config(config("a"))
    *first, last = stages
    for stage in first:
        getattr(pipeline, stage)()
    with pytest.raises(ed.UsageError, match=message):
        getattr(pipeline, last)()


def test_nothing_to_build_and_wrong_overrides(config):
    with pytest.raises(ed.UsageError, match=r"begin with source\(\)"):
        ed.Pipeline.from_config(config("a")).build()
    with pytest.raises(ed.UsageError, match="takes a PackStageConfig"):
        start(config("a")).pack(ed.MixStageConfig())
    with pytest.raises(ed.UsageError, match="from_config"):
        ed.Pipeline(config("a"))


def test_mixing_and_packing_may_change_places(config):
    fields = {"pack": {"seq_length": 16}, "mix": {"weights": {"a": 0.5, "b": 0.5}}}
    batches = [
        [batch["input_ids"].tolist() for batch in pipeline.load().build()]
        for pipeline in (
            start(config("a", "b", **fields)).mix().pack(),
            start(config("a", "b", **fields)).pack().mix(),
        )
    ]
    assert batches[0] == batches[1]
    assert len(batches[0]) > 5


def test_every_dataset_takes_part_in_exact_shares(config):
    fields = {
        # No row is longer, so that each sample has a letter that tells where it is from.
        "pack": {"seq_length": 40, "shuffle_packed": False},
        "mix": {"weights": {"a": 0.75, "b": 0.25}},
        "load": {"batch_size": 4},
    }
    loader = start(config("a", "b", **fields)).mix().pack().load().build()
    ids = np.concatenate([batch["input_ids"] for batch in loader])
    is_b = [(row == ord("b")).any() for row in ids]
    assert len(is_b) > 30
    for count in range(1, len(is_b)):
        assert abs(sum(is_b[:count]) - count * 0.25) <= 1


def test_without_pack_samples_are_pieces_of_the_stream(config, counting):
    pipeline = start(config("a", pack={"seq_length": 10})).load()
    loader = pipeline.build()
    stream = [ord(char) for text in words("a", 40) for char in [*text, "\0"]]
    found = Counter(tuple(row) for batch in loader for row in batch["input_ids"].tolist())
    expected = Counter(tuple(stream[at : at + 10]) for at in range(0, len(stream) - 9, 10))
    assert found <= expected
    assert len(loader) == expected.total() // 8 == found.total() // 8
    assert [*map(len, loader)]
    assert pipeline.get_context().metrics["load"]["batches"] == len(loader)


def test_get_data_builds_once(config, counting):
    pipeline = start(config("a"))
    data = pipeline.get_data()
    assert pipeline.get_data() is data
    assert pipeline.get_stages() == ["source", "tokenize", "cache"]


def test_a_cache_kept_in_memory_leaves_nothing_behind(tmp_path, config, counting):
    fields = {"cache": {"cache_type": "memory"}}
    first = start(config("a", **fields)).build()
    assert start(config("a", **fields)).build() is first
    assert len(counting.texts) == 40
    assert not (tmp_path / "cache").exists()
    assert not first.path.is_relative_to(tmp_path)


def test_hierarchical_hands_out_what_is_open_and_disk_opens_anew(config):
    first = start(config("a")).build()
    assert start(config("a")).build() is first
    disk = {"cache": {"cache_type": "disk"}}
    assert start(config("a", **disk)).build() is not start(config("a", **disk)).build()


def test_what_is_too_old_is_tokenized_again(config, counting, monkeypatch):
    fields = {"cache": {"disk_cache_expiry": 60}}
    made = start(config("a", **fields)).build().metadata.created_at
    monkeypatch.setattr("easydata.pipeline.slots.time.time", lambda: made + 59)
    start(config("a", **fields)).build()
    assert len(counting.texts) == 40
    monkeypatch.setattr("easydata.pipeline.slots.time.time", lambda: made + 61)
    pipeline = start(config("a", **fields))
    pipeline.build()
    assert len(counting.texts) == 80
    assert "because expired: 61 s old, of 60 s at most" in str(pipeline)


def test_a_path_of_its_own_is_replaced_when_something_changes(tmp_path, config, counting):
    given = config("a")
    given["datasets"][0]["cache_path"] = tmp_path / "own"
    start(given).build()
    assert ed.open_dataset(tmp_path / "own").num_tokens
    assert not (tmp_path / "cache").exists()
    pipeline = start({**given, "tokenize": {"max_length": 4}})
    pipeline.build()
    assert "max_length changed: none → 4" in str(pipeline)
    assert max(len(row["input_ids"]) for row in ed.open_dataset(tmp_path / "own")) == 4


def test_a_folder_of_someone_else_is_not_touched(tmp_path, config):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("mine")
    given = config("a")
    given["datasets"][0]["cache_path"] = tmp_path / "own"
    with pytest.raises(ed.OutputExistsError, match=r"thesis\.txt"):
        start(given).build()
    assert (tmp_path / "own" / "thesis.txt").read_text() == "mine"


def fail_at_seven(row):
    if row["id"] == 7:
        raise ValueError("seven")
    return row


def nothing(row):
    del row


def test_errors_name_file_and_row_and_lose_nothing(config, files, counting):
    start(config("a")).build()
    given = config("a")
    given["datasets"][0]["format_callback"] = fail_at_seven
    with pytest.raises(ed.BadRowError, match=r"a\.jsonl, .*fail_at_seven raised ValueError: seven"):
        start(given).build()
    given["datasets"][0]["format_callback"] = nothing
    with pytest.raises(ed.SourceError, match="the transform left out 40 rows"):
        start(given).build()
    start(config("a")).build()
    assert len([text for text in counting.texts if text == words("a", 1)[0]]) <= 2


def test_the_command_runs_a_file(tmp_path, files, capsys):
    config = quiet(
        tmp_path,
        datasets=[{"data_files": str(files["a"])}],
        default_tokenizer="bytes",
        save={"enabled": True, "output_dir": str(tmp_path / "saved"), "format": "jsonl"},
    )
    path = tmp_path / "pipeline.json"
    path.write_text(json.dumps(config))
    assert main(["run", str(path), "--describe"]) == 0
    assert "not built yet" in capsys.readouterr().out
    assert main(["run", str(path)]) == 0
    assert "40 rows" in capsys.readouterr().out
    assert main(["run", str(path)]) == 0
    assert "cache hit" in capsys.readouterr().out
    assert list((tmp_path / "saved").glob("*.jsonl"))
    path.write_text(json.dumps({**config, "tokenise": {}}))
    assert main(["run", str(path)]) == 2
    assert "did you mean tokenize?" in capsys.readouterr().err


FORKS = """
import atexit, os, sys
import easydata as ed

tokens = ed.create_pipeline(
    sys.argv[1],
    "bytes",
    cache={"enabled": False},
    streaming=False,
    observability={"progress_enabled": False},
).source().build()
child = os.fork()
if not child:
    atexit._run_exitfuncs()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert len([row for row in tokens]) == 40
path = tokens.path
del tokens
assert not path.exists()
"""


def test_a_forked_child_deletes_nothing_of_its_parent(files):
    subprocess.run([sys.executable, "-c", FORKS, str(files["a"])], check=True)
