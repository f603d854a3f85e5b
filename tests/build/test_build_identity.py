"""What a build knows again, and what it says of what changed."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time

import pyarrow as pa
import pytest

import easydata as ed
from easydata.build import run as build_run
from easydata.build.explain import explain

from .reports import report
from .support import rows, shards, write

ROWS = rows(60)
OLD_NS = time.time_ns() - 3600 * 10**9


def settled(path, at=OLD_NS):
    """A file that was last changed an hour ago, as far as its times of modification say."""
    os.utime(path, ns=(at, at))
    return path


@pytest.fixture
def source(tmp_path):
    return settled(write(tmp_path / "a.jsonl", ROWS))


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out"


def swap_two_letters(path):
    """Change the content, and neither the size nor the time of modification."""
    before = path.stat()
    data = path.read_bytes()
    at = data.index(b'"text": "') + 9
    path.write_bytes(data[:at] + data[at + 1 : at + 2] + data[at : at + 1] + data[at + 2 :])
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_content_sees_an_edit_that_keeps_size_and_time(source, out):
    report(source, out, hash_fn="content")
    swap_two_letters(source)
    with pytest.raises(ed.OutputExistsError, match=r"the content of .*a\.jsonl changed"):
        report(source, out, hash_fn="content")


def test_path_misses_it_as_the_docs_say(source, out):
    report(source, out, hash_fn="path")
    swap_two_letters(source)
    assert report(source, out, hash_fn="path").outcome is None


def test_path_takes_another_time_for_a_change_and_combined_does_not(source, out):
    report(source, out)
    settled(source, OLD_NS + 10**9)
    assert report(source, out, hash_fn="combined").outcome is None
    with pytest.raises(ed.OutputExistsError, match=r"a\.jsonl changed"):
        report(source, out, hash_fn="path")


@pytest.mark.parametrize("hash_fn", ["content", "path", "combined"])
def test_an_edit_with_another_time_is_seen(source, out, hash_fn):
    report(source, out, hash_fn=hash_fn)
    swap_two_letters(source)
    settled(source, OLD_NS + 10**9)
    said = r"a\.jsonl changed \(place, size or time\)"
    if hash_fn != "path":
        said = r"the content of .*a\.jsonl changed\."
    with pytest.raises(ed.OutputExistsError, match=said):
        report(source, out, hash_fn=hash_fn)


def test_combined_reads_only_what_may_have_changed(tmp_path, out, monkeypatch):
    from easydata.sources.file_source import FileSource

    sources = [settled(write(tmp_path / f"{i}.jsonl", rows(5, seed=i))) for i in range(3)]
    # That the stamps are of an hour ago includes the time of the inode, which nobody can set.
    monkeypatch.setattr("easydata.fingerprint.files._SETTLED_NS", 0)
    report(sources, out)
    read = []
    real = FileSource.read_content_hash
    monkeypatch.setattr(
        FileSource, "read_content_hash", lambda self: read.append(self.name) or real(self)
    )
    assert report(sources, out).outcome is None
    assert read == []
    settled(sources[1], OLD_NS + 10**9)
    assert report(sources, out).outcome is None
    assert set(read) == {str(sources[1])}


def test_a_stamp_taken_too_soon_after_an_edit_is_not_trusted(source, out, monkeypatch):
    # However long it takes until then.
    monkeypatch.setattr("easydata.fingerprint.files._SETTLED_NS", 3600 * 10**9)
    source.write_bytes(source.read_bytes())  # its times are now
    report(source, out)
    entry = ed.open_dataset(out).ledger.source(0)
    assert json.loads(entry["stamp"])["settled"] is False
    swap_two_letters(source)
    with pytest.raises(ed.OutputExistsError, match=r"a\.jsonl changed"):
        report(source, out)


def test_the_second_build_loads_no_tokenizer(tmp_path, source, out, monkeypatch):
    from tokenizers import Tokenizer, models

    path = tmp_path / "tokenizer.json"
    Tokenizer(models.WordLevel({"the": 0, "[UNK]": 1, "</s>": 2}, unk_token="[UNK]")).save(
        str(path)
    )
    report(source, out, tokenizer=path)
    monkeypatch.setattr(build_run, "prepare_job", lambda *_: pytest.fail("it was prepared"))
    assert report(source, out, tokenizer=path).outcome is None
    # Whatever shapes the result is looked at again.
    with pytest.raises(pytest.fail.Exception):
        report(source, out, tokenizer=path, max_length=5)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(pytest.fail.Exception):
        report(source, out, tokenizer=path)


def lower(row):
    return {**row, "text": row["text"].lower()}


def upper(row):
    return {**row, "text": row["text"].upper()}


def test_another_transform_is_told_in_words(tmp_path, source, out):
    report(source, out, transform=lower)
    assert report(source, out, transform=lower).outcome is None
    with pytest.raises(ed.OutputExistsError, match="transform changed: it is another function"):
        report(source, out, transform=upper)
    with pytest.raises(ed.OutputExistsError, match=r"transform changed: .*:lower → none"):
        report(source, out)
    report(source, out, transform=upper, overwrite=True)
    report(source, tmp_path / "clean", transform=upper)
    assert shards(out) == shards(tmp_path / "clean")
    metadata = ed.open_dataset(out).metadata
    assert metadata.transform_hash
    assert (
        metadata.transform_hash
        != ed.build(source, tokenizer="bytes", out=tmp_path / "plain").metadata.transform_hash
    )


def test_the_changed_source_of_a_transform_is_a_miss(tmp_path, source, out, monkeypatch):
    # Python takes a stored .pyc for that of any source of the same size and second.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def made(text):
        space = {}
        exec(f"LIMIT = 3\ndef shorten(row):\n    return {{'text': {text}}}\n", space)
        space["shorten"].__module__ = "__main__"
        return space["shorten"]

    def imported(text):
        (tmp_path / "prep").mkdir(exist_ok=True)
        (tmp_path / "prep" / "mine.py").write_text(
            f"LIMIT = 3\n\ndef shorten(row):\n    return {{'text': {text}}}\n"
        )
        import importlib.util

        spec = importlib.util.spec_from_file_location("mine", tmp_path / "prep" / "mine.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.shorten

    for make in (made, imported):
        shutil.rmtree(out, ignore_errors=True)
        report(source, out, transform=make("row['text'][:LIMIT]"))
        assert report(source, out, transform=make("row['text'][:LIMIT]")).outcome is None
        with pytest.raises(ed.OutputExistsError, match="transform changed: the code of shorten"):
            report(source, out, transform=make("row['text'][LIMIT:]"))


def test_a_version_stands_for_the_code(source, out):
    lock = {"handle": open(source)}  # noqa: SIM115

    def reads(row):
        return {"text": row["text"] + str(lock["handle"].closed)}

    with pytest.raises(ed.UsageError, match="transform_version"):
        report(source, out, transform=reads)
    report(source, out, transform=reads, transform_version="1")
    assert report(source, out, transform=reads, transform_version="1").outcome is None
    with pytest.raises(ed.OutputExistsError, match="version was '1' and is '2'"):
        report(source, out, transform=reads, transform_version="2")
    lock["handle"].close()


def failing(row):
    if row["id"] == 7:
        raise ValueError("seven is odd")
    return row


def test_a_transform_that_raises_is_told_with_file_and_row(source, out):
    with pytest.raises(ed.BadRowError) as caught:
        report(source, out, transform=failing)
    assert re.search(
        r"a\.jsonl, .*7.*transform failing raised ValueError: seven", str(caught.value)
    )
    assert isinstance(caught.value.__cause__, ValueError)
    found = report(source, out, transform=failing, on_error="skip")
    assert (found.outcome.rows, found.outcome.skipped) == (59, 1)


def every_third(row):
    return row if row["id"] % 3 == 0 else None


def none_at_all(row):
    del row


def test_rows_left_out_are_counted_and_an_empty_result_is_an_error(source, out):
    found = report(source, out, transform=every_third)
    assert (found.outcome.rows, found.outcome.dropped) == (20, 40)
    assert "40 rows left out by the transform" in found.summary
    before = shards(out)
    with pytest.raises(ed.SourceError, match="the transform left out 60 rows"):
        report(source, out, transform=none_at_all, overwrite=True)
    assert shards(out) == before


def tokenizer_file(path, words):
    from tokenizers import Tokenizer, models

    vocabulary = {word: i for i, word in enumerate(["[UNK]", "</s>", *words])}
    Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).save(str(path))
    return path


def test_explain_says_what_differs_and_nothing_else(tmp_path, source, out):
    first = tokenizer_file(tmp_path / "first.json", ["the", "cat"])
    second = tokenizer_file(tmp_path / "second.json", ["the", "cat", "sat"])
    report(source, out, tokenizer=first)
    assert explain(out, source, tokenizer=first) == []
    assert explain(out) == []
    (reason,) = explain(out, tokenizer=second)
    assert reason.startswith("tokenizer changed: vocab 4 → 5")
    assert explain(out, max_length=None) == []
    assert explain(out, max_length=7) == ["max_length changed: none → 7"]
    assert explain(out, add_eos=False) == ["eos_id changed: 1 → none"]
    assert explain(out, transform=lower)[0].startswith("transform changed: none → ")
    assert explain(out, keep_fields=["id"]) == ["keep_fields changed: [] → ['id']"]
    swap_two_letters(source)
    assert explain(out, source, hash_fn="content") == [f"the content of {source} changed"]
    other = write(tmp_path / "b.jsonl", ROWS)
    assert explain(out, [source, other])[0] == f"{other} was added"
    with pytest.raises(ed.UsageError, match="'workers' is no option"):
        explain(out, workers=3)
    with pytest.raises(ed.NotADatasetError):
        explain(tmp_path / "nothing")


def test_another_merge_is_told(tmp_path, source, out):
    from tokenizers import Tokenizer, models

    def bpe(path, merges):
        vocabulary = {c: i for i, c in enumerate(["</s>", "t", "h", "e", "th", "he", "the"])}
        Tokenizer(models.BPE(vocab=vocabulary, merges=merges)).save(str(path))
        return path

    first = bpe(tmp_path / "a.json", [("t", "h"), ("th", "e")])
    second = bpe(tmp_path / "b.json", [("h", "e"), ("t", "he")])
    report(source, out, tokenizer=first)
    with pytest.raises(ed.OutputExistsError, match=r"tokenizer changed: .*2 merges differ"):
        report(source, out, tokenizer=second)
    assert "2 of 2 merges differ" in explain(out, tokenizer=second)[0]


@pytest.mark.parametrize("change", ["changed", "added", "removed"])
def test_of_100_files_only_the_one_that_changed_is_tokenized(tmp_path, out, change):
    seen = []

    def encode(texts):
        seen.extend(texts)
        return [[len(text) % 7] for text in texts]

    tokenizer = ed.CallableTokenizer(encode, vocab_size=9, identity="mod 7", eos_id=8)
    folder = tmp_path / "in"
    for i in range(100):
        write(
            folder / f"{i:03}.jsonl", [{"text": f"{i} {text['text']}"} for text in rows(30, seed=i)]
        )
    options = {"tokenizer": tokenizer, "part_size": "2kB"}
    report(folder, out, **options)
    assert len(seen) == 3000
    seen.clear()
    if change == "removed":
        (folder / "040.jsonl").unlink()
    else:
        name = "040" if change == "changed" else "0405"
        write(
            folder / f"{name}.jsonl", [{"text": f"new {text['text']}"} for text in rows(30, seed=5)]
        )
    found = report(folder, out, overwrite=True, **options)
    assert all(text.startswith("new ") for text in seen)
    assert len(seen) == (0 if change == "removed" else 30)
    assert any(
        f"04{'05' if change == 'added' else '0'}.jsonl" in reason for reason in found.reasons
    )
    report(folder, tmp_path / "clean", **options)
    assert shards(out) == shards(tmp_path / "clean")


def test_conversations_are_rendered_with_the_chat_template(tmp_path, out):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(
        models.WordLevel({"[UNK]": 0, "user": 1, "hi": 2, "bot": 3, "ho": 4}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken("<|s|>"), AddedToken("<|e|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    template = "{% for m in messages %}<|s|>{{ m.role }} {{ m.content }}<|e|>{% endfor %}"
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|e|>", "chat_template": template})
    )
    talk = [{"role": "user", "content": "hi"}, {"role": "bot", "content": "ho"}]
    given = [{"messages": talk}, {"messages": talk[:1]}]
    ds = ed.build(given, tokenizer=folder, out=out, text_field="messages")
    assert [row["input_ids"].tolist() for row in ds] == [[5, 1, 2, 6, 5, 3, 4, 6], [5, 1, 2, 6]]
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "<|e|>", "chat_template": template.replace("<|e|>", "")})
    )
    assert any("chat" in reason for reason in explain(out, tokenizer=folder))
    with pytest.raises(ed.OutputExistsError, match="chat"):
        ed.build(given, tokenizer=folder, out=out, text_field="messages")


SPLITS = {"train": 0.7, "test": 0.3}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd"},
        {"keep_fields": ["id", "note", "tags", "flag"]},
        {"splits": SPLITS},
        {"max_length": 20, "min_tokens": 12},
        {"keep_fields": ["note"], "splits": SPLITS, "on_error": "skip", "max_length": 9},
    ],
    ids=str,
)
@pytest.mark.parametrize("change", ["changed", "added", "removed", "all"])
def test_small_files_that_share_a_part_are_told_apart(tmp_path, out, options, change):
    seen = []

    def encode(texts):
        seen.extend(texts)
        return [[ord(c) for c in text] for text in texts]

    tokenizer = ed.CallableTokenizer(encode, vocab_size=1 << 17, identity="points", eos_id=0)
    folder = tmp_path / "in"

    def write_file(number, seed):
        found = [
            {
                "text": f"{seed} {row['text']}",
                "id": i,
                "note": None if i % 3 else f"n{i}",
                "tags": [None] * (i % 4) if i % 2 else None,
                "flag": i % 5 == 0,
            }
            for i, row in enumerate(rows(20, seed=seed))
        ]
        write(folder / f"{number:03}.jsonl", found)

    for number in range(100):
        write_file(number, number)
    # At the default size of parts, all of them are in one.
    options = {"tokenizer": tokenizer, "part_size": "32MB", "shard_size": "256MB", **options}
    if "tags" in options.get("keep_fields", ()):
        options["schema"] = {"tags": pa.list_(pa.string())}
    report(folder, out, **options)
    assert len(seen) == 2000
    seen.clear()
    if change == "removed":
        (folder / "040.jsonl").unlink()
    elif change == "all":
        for number in range(100):
            write_file(number, 1000 + number)
    else:
        write_file(40 if change == "changed" else 400, 500)
    found = report(folder, out, overwrite=True, **options)
    assert len(seen) == {"changed": 20, "added": 20, "removed": 0, "all": 2000}[change]
    if change != "all":
        assert found.outcome.parts == 1
        assert "rows taken over" in found.summary
    report(folder, tmp_path / "clean", **options)
    assert shards(out) == shards(tmp_path / "clean")
    first, second = (entry.ledger for entry in opened(out, tmp_path / "clean", options))
    assert first.parts() == second.parts()


def opened(out, clean, options):
    split = "test" if options.get("splits") else None
    return [ed.open_dataset(path, split=split) for path in (out, clean)]
