"""`explain` says what `build` would, of what it is given and of nothing else."""

from __future__ import annotations

import inspect
import json

import datasets
import pytest
import typer.main

import easydata as ed
from easydata.build.explain import EXPLAINED, explain
from easydata.cli import main
from easydata.cli.main import app

from .reports import report
from .support import rows, write

ROWS = rows(60)
LABELS = [{**row, "score": i} for i, row in enumerate(ROWS)]


@pytest.fixture
def source(tmp_path):
    return write(tmp_path / "a.jsonl", LABELS)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def tokenizer_folder(folder, words=("the", "cat"), **declared):
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    folder.mkdir()
    vocabulary = {word: i for i, word in enumerate(["[UNK]", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(name) for name in ("<|s|>", "<|e|>", "<|p|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    declared = {"eos_token": "<|e|>", "bos_token": "<|s|>", "pad_token": "<|p|>", **declared}
    (folder / "tokenizer_config.json").write_text(json.dumps(declared))
    return folder


def both(out, sources, options, **changed):
    """What `explain` says of a change, which must be what `build` says."""
    found = explain(out, sources, **changed)
    with pytest.raises(ed.OutputExistsError) as caught:
        report(sources, out, **{**options, **changed})
    assert str(caught.value).startswith(f"{out} holds another dataset: {'; '.join(found)}. ")
    return found


def test_every_option_that_shapes_a_dataset_can_be_given():
    parameters = inspect.signature(ed.build).parameters.keys()
    shaping = parameters - {
        *("sources", "tokenizer", "out", "workers", "engine"),
        *("progress", "overwrite", "dry_run"),
    }
    assert shaping == EXPLAINED
    command = typer.main.get_command(app).commands["explain"]
    given = {param.name for param in command.params} - {"path", "sources", "tokenizer", "help"}
    assert given == EXPLAINED - {"transform", "transform_version"}


def test_sources_are_read_as_they_were(tmp_path, out):
    path = tmp_path / "a.log"
    path.write_text("".join(f"line {i}\n" for i in range(99)))
    options = {"type": "text", "text_rows": "line", "hash_fn": "content"}
    report(path, out, **options)
    assert explain(out, path) == []
    assert explain(out, path, hash_fn="content") == []
    assert both(out, path, options, text_rows="file") == ["text_rows changed: line → file"]
    assert both(out, path, options, type="jsonl") == ["type changed: text → jsonl"]
    other = path.rename(tmp_path / "a.txt")
    assert explain(out, other) == []  # its extension says nothing, as type does
    assert report(other, out, **options).outcome is None


def test_what_is_asked_of_the_tokenizer_is_as_it_was(tmp_path, source, out):
    one = tokenizer_folder(tmp_path / "one")
    options = {"tokenizer": one, "parse_special": True, "eos_token": "<|p|>", "add_bos": True}
    report(source, out, **options)
    assert explain(out, tokenizer=one) == []
    assert explain(out, parse_special=True) == []
    assert explain(out, eos_token="<|p|>", bos_token=None) == []
    assert both(out, source, options, parse_special=False) == [
        "tokenizer changed: parse_special True → False"
    ]
    assert both(out, source, options, tokenizer=one, parse_special=False) == [
        "tokenizer changed: parse_special True → False"
    ]
    assert both(out, source, options, eos_token=None) == ["eos_id changed: 5 → 4"]
    assert both(out, source, options, add_bos=False) == ["bos_id changed: 3 → none"]
    # The token that was asked for is another id of the larger vocabulary.
    two = tokenizer_folder(tmp_path / "two", ["the", "cat", "sat"])
    found = both(out, source, options, tokenizer=two)
    assert found[0].startswith("tokenizer changed: vocab")
    assert found[1:] == ["bos_id changed: 3 → 4", "eos_id changed: 5 → 6"]


def test_another_declared_padding_is_told_as_build_tells_it(tmp_path, source, out):
    one = tokenizer_folder(tmp_path / "one")
    options = {"tokenizer": one, "padding": "longest", "batch_size": 4, "attention_mask": True}
    report(source, out, **options)
    two = tokenizer_folder(tmp_path / "two", pad_token="<|s|>")
    assert "pad_id changed: 5 → 3" in both(out, source, options, tokenizer=two)
    assert explain(out, tokenizer=two, pad_token="<|p|>") == []
    assert explain(out, pad_token="<|e|>") == ["pad_id changed: 5 → 4"]
    assert explain(out, padding=None) == ["padding changed: longest → none"]
    assert explain(out, batch_size=None) == ["batch_size changed: 4 → none"]
    assert explain(out, batch_size=5) == ["batch_size changed: 4 → 5"]
    assert explain(out, padding="max_length", max_length=9) == [
        "max_length changed: none → 9",
        "padding changed: longest → max_length",
    ]
    assert explain(out, padding="longest", attention_mask=True) == []


def test_conversations_have_no_bos_and_eos_to_compare(tmp_path, out):
    template = "{% for m in messages %}<|s|>{{ m.content }}<|e|>{% endfor %}"
    one = tokenizer_folder(tmp_path / "one", chat_template=template)
    given = [{"messages": [{"role": "user", "content": "the"}]}]
    options = {"tokenizer": one, "text_field": "messages"}
    report(given, out, **options)
    for words in ({}, {"add_eos": True}, {"add_bos": True}, {"add_eos": False}):
        assert explain(out, tokenizer=one, **words) == explain(out, **words) == []
    two = tokenizer_folder(tmp_path / "two", chat_template=template + " ")
    (reason,) = both(out, given, options, tokenizer=two)
    assert reason.startswith("chat_template changed: ")


def test_types_of_kept_fields_are_compared(source, out):
    options = {"keep_fields": ["id", "score"]}
    report(source, out, **options)
    assert explain(out, keep_fields=["id", "score"], schema={"id": "int64"}) == []
    before = [["id", "int64"], ["score", "int64"]]
    after = [["id", "int64"], ["score", "float64"]]
    said = [f"keep_fields changed: {before} → {after}".replace("float64", "double")]
    assert both(out, source, options, schema={"score": "float64"}) == said
    assert explain(out, keep_fields=["id"]) == ["keep_fields changed: ['id', 'score'] → ['id']"]


def test_sources_of_one_name_are_told_apart(out):
    made = [datasets.Dataset.from_list(rows(20, seed=seed)) for seed in range(3)]
    report(made[:2], out)
    name = "rows of Dataset"
    assert explain(out, made[:2]) == []
    assert both(out, [made[1]], {}) == [f"{name} was removed"]
    assert both(out, made, {}) == [f"{name} was added"]
    assert both(out, made[1::-1], {}) == ["the order of the sources changed"]
    assert both(out, [made[0], made[2]], {}) == [f"the content of {name} changed"]
    assert both(out, [made[2]], {}) == [f"{name} was removed", f"the content of {name} changed"]


def test_the_same_bytes_read_in_another_way_are_told(tmp_path, source, out):
    report(source, out)
    other = tmp_path / "a.txt"
    source.rename(other)
    assert both(out, other, {}) == [f"{other} is read in another way: .jsonl → .txt"]
    alike = other.rename(tmp_path / "a.ndjson")
    assert explain(out, alike) == []
    assert report(alike, out).outcome is None


def test_what_was_not_read_is_not_called_content(tmp_path, out):
    folder = tmp_path / "in"
    for number in range(5):
        write(folder / f"{number}.jsonl", rows(5, seed=number))
    report(folder, out, hash_fn="path")
    for number in (1, 2):
        path = folder / f"{number}.jsonl"
        path.write_bytes(path.read_bytes() + b"\n")
        names = ", ".join(str(folder / f"{n}.jsonl") for n in range(1, number + 1))
        how = "changed (place, size or time)"
        one, two = f"{names} {how}", f"2 of 5 sources {how}: {names}"
        assert both(out, folder, {}, hash_fn="path") == [one if number == 1 else two]
    assert both(out, folder, {}, hash_fn="content") == [
        f"the content of 2 of 5 sources changed: {names}"
    ]


def test_the_command_line_takes_them_all(tmp_path, out, capsys):
    path = tmp_path / "a.log"
    path.write_text("one\n\ntwo\n")
    one = tokenizer_folder(tmp_path / "one")
    report(path, out, tokenizer=one, type="text", text_rows="line", part_size="32MB")
    same = ["--type", "text", "--text-rows", "line", "--no-parse-special", "--format", "ipc"]
    same += ["--shard-size", "20kB", "--part-size", "32MB", "--on-error", "raise"]
    assert main(["explain", str(out), str(path), "--tokenizer", str(one), *same]) == 0
    assert capsys.readouterr().out == f"{out} is what that would build.\n"
    other = ["--type", "jsonl", "--text-rows", "file", "--parse-special", "--splits", "a=0.5,b=0.5"]
    other += ["--padding", "longest", "--batch-size", "3", "--attention-mask"]
    assert main(["explain", str(out), *other]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "tokenizer changed: parse_special False → True",
        "type changed: text → jsonl",
        "text_rows changed: line → file",
        "padding changed: none → longest",
        "attention_mask changed: False → True",
        "batch_size changed: none → 3",
        "splits changed: none → [['a', 0.5], ['b', 0.5]]",
    ]
