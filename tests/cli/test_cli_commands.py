"""`easydata build`, `info`, `head` and `verify`: output, exit codes, help."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys

import pytest
import typer.main

import easydata as ed
from easydata.cli import main
from easydata.cli.main import app

from .terminal import PROGRAM, easydata, environment

TEXTS = [f"text number {i}, naïve 🙂 " + "x" * (i % 50) for i in range(300)]
SIZES = ["--part-size", "4kB", "--shard-size", "20kB", "--workers", "1"]


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": t, "id": i}) + "\n" for i, t in enumerate(TEXTS)))
    return path


@pytest.fixture
def out(tmp_path, source, capsys):
    folder = tmp_path / "out"
    words = ["build", str(source), "--tokenizer", "bytes", "--out", str(folder), *SIZES]
    assert main([*words, "--keep-fields", "id"]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture
def splits(tmp_path, source, capsys):
    folder = tmp_path / "splits"
    words = ["build", str(source), "--tokenizer", "bytes", "--out", str(folder), *SIZES]
    assert main([*words, "--splits", "a=0.5,b=0.5"]) == 0
    capsys.readouterr()
    return folder


def test_build_says_what_it_made_and_that_it_is_there(tmp_path, source, capsys):
    words = ["build", str(source), "--tokenizer", "bytes", "--out", str(tmp_path / "o"), *SIZES]
    assert main(words) == 0
    shown = capsys.readouterr()
    tokens = sum(len(text.encode()) + 1 for text in TEXTS)
    assert re.fullmatch(rf"{tmp_path}/o: 300 rows, {tokens:,} tokens in \d+\.\d s\.\n", shown.out)
    assert shown.err == ""
    assert main(words) == 0
    assert capsys.readouterr().out == f"{tmp_path}/o is up to date; nothing to do.\n"


def test_every_option_of_the_command_line_reaches_the_build(tmp_path, source):
    words = [
        *("build", str(source), "--tokenizer", "bytes", "--out", str(tmp_path / "o")),
        *("--text-field", "text", "--keep-fields", "id", "--schema", "id=int16"),
        *("--type", "jsonl", "--text-rows", "line", "--compression", "zstd:3", "--format", "ipc"),
        *("--dtype", "int32", "--shard-size", "9kB", "--part-size", "3kB"),
        *("--no-add-eos", "--min-tokens", "25"),
        *("--max-length", "40", "--limit", "200", "--on-error", "skip", "--splits", "a=0.4,b=0.6"),
        *("--workers", "1", "--progress", "none"),
    ]
    assert main(words) == 0
    options = {
        "keep_fields": ["id"],
        "schema": {"id": "int16"},
        "type": "jsonl",
        "text_rows": "line",
        "compression": "zstd:3",
        "format": "ipc",
        "dtype": "int32",
        "shard_size": "9kB",
        "part_size": "3kB",
        "add_eos": False,
        "min_tokens": 25,
        "max_length": 40,
        "limit": 200,
        "on_error": "skip",
        "splits": {"a": 0.4, "b": 0.6},
    }
    python = ed.build(source, tokenizer="bytes", out=tmp_path / "p", **options)
    for name, ds in ed.open_splits(tmp_path / "o").items():
        assert ds.ledger.metadata["recipe"] == python[name].ledger.metadata["recipe"]
        assert ds.fingerprint == python[name].fingerprint


def test_a_dry_run_prints_an_estimate_and_writes_nothing(tmp_path, source, capsys):
    words = ["build", str(source), "--tokenizer", "bytes", "--out", str(tmp_path / "o")]
    assert main([*words, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    tokens = sum(len(text.encode()) + 1 for text in TEXTS)
    (about,) = re.findall(r"tokens +about ([\d,]+)", shown)
    assert 0.75 * tokens < int(about.replace(",", "")) < 1.25 * tokens
    for label in ("sources", "input", "rows", "output", "time", "judged by"):
        assert re.search(f"^{label} ", shown, re.MULTILINE)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_info_says_everything_twice(out, capsys):
    ds = ed.open_dataset(out)
    size = sum(path.stat().st_size for path in out.glob("data-*"))
    assert main(["info", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = {
        "path": str(out),
        "rows": 300,
        "tokens": ds.num_tokens,
        "shards": len(list(out.glob("data-*"))),
        "bytes": size,
        "dtype": "uint16",
        "columns": {"input_ids": "list<item: uint16>", "id": "int64"},
        "format": "ipc",
        "compression": "none",
        "sources": 1,
        "tokenizer": "bytes",
        "eos_id": 256,
        "fingerprint": ds.fingerprint,
        "config_hash": ds.metadata.config_hash,
    }
    assert {name: found[name] for name in expected} == expected
    assert found["bits_per_token"] == pytest.approx(8 * size / ds.num_tokens)

    assert main(["info", str(out)]) == 0
    shown = capsys.readouterr().out
    for line in (
        "rows            300",
        f"tokens          {ds.num_tokens:,}",
        "compression     none",
        f"bits per token  {8 * size / ds.num_tokens:.2f}",
        f"fingerprint     {ds.fingerprint}",
    ):
        assert line in shown.splitlines()


def test_head_shows_ids_or_text(out, capsys):
    assert main(["head", str(out), "-n", "2"]) == 0
    shown = capsys.readouterr().out
    first = [*TEXTS[0].encode(), 256]
    assert shown.startswith(f"row 0: {len(first)} tokens, {out.parent}/a.jsonl, record 0\nid: 0\n")
    assert " ".join(map(str, first[:24])) in shown.splitlines()[2]
    assert shown.count("row ") == 2
    assert main(["head", str(out), "-n", "4", "--decode"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2::4] == TEXTS[:4]
    assert main(["head", str(out), "-n", "0"]) == 2
    assert "--rows" in capsys.readouterr().err


def test_all_commands_show_all_splits(splits, capsys):
    assert main(["info", str(splits), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [item["path"] for item in found] == [str(splits / "a"), str(splits / "b")]
    assert sum(item["rows"] for item in found) == 300
    assert main(["info", str(splits)]) == 0
    assert capsys.readouterr().out.count("rows  ") == 2
    assert main(["head", str(splits), "-n", "1", "--decode"]) == 0
    assert capsys.readouterr().out.count("row 0:") == 2
    assert main(["verify", str(splits)]) == 0
    assert capsys.readouterr().out.count("Undamaged.") == 2
    assert main(["info", str(splits / "a")]) == 0


def test_verify_finds_a_flipped_byte(out, capsys, monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    assert main(["verify", str(out)]) == 0
    assert capsys.readouterr().out.endswith("Undamaged.\n")
    for path in sorted(out.glob("data-*"))[:2]:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 4
        path.write_bytes(data)
    assert main(["verify", str(out)]) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    lines = shown.err.splitlines()
    assert len(lines) == 2
    for line, path in zip(lines, sorted(out.glob("data-*")), strict=False):
        assert line.startswith("Damaged: ")
        assert str(path) in line
        assert re.search(r"batch \d", line)
        assert "easydata build" in line or "--overwrite" in line


@pytest.mark.parametrize("command", ["info", "head", "verify"])
def test_what_is_no_dataset_is_told(tmp_path, command, capsys):
    assert main([command, str(tmp_path / "none")]) == 2
    assert "none does not exist" in capsys.readouterr().err
    assert main([command, str(tmp_path)]) == 2
    assert "holds no dataset" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command", ["info", "head", "verify", "explain", "ls", "get", "stats", "gc"]
)
def test_a_url_for_a_folder_is_refused_as_it_was_written(tmp_path, command, capsys, monkeypatch):
    # As a path it would be a folder named s3: in the working directory.
    monkeypatch.chdir(tmp_path)
    more = {"explain": ["--tokenizer", "bytes"], "get": ["key"]}.get(command, [])
    assert main([command, "s3://bucket/x", *more]) == 2
    assert "path is 's3://bucket/x'; give a folder of a local disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_build_into_a_url_is_refused(tmp_path, source, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["build", str(source), "--tokenizer", "bytes", "--out", "s3://bucket/x"]) == 2
    assert "out is 's3://bucket/x'; give a folder of a local disk" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


def test_every_command_has_help_with_an_example(capsys):
    commands = typer.main.get_command(app).commands
    of_datasets = {"build", "run", "explain", "info", "head", "verify"}
    assert set(commands) == of_datasets | {"ls", "get", "stats", "gc"}
    for name, command in commands.items():
        assert main([name, "--help"]) == 0
        shown = capsys.readouterr().out
        assert re.search(rf"^  easydata {name} \S+", shown, re.MULTILINE)
        assert "\b" not in shown
        for param in command.params:
            assert getattr(param, "help", None), param.name
    assert main(["--help"]) == 0
    assert "--debug" in capsys.readouterr().out


def test_the_examples_of_the_help_are_commands_that_parse(capsys):
    import shlex

    for name, command in typer.main.get_command(app).commands.items():
        for example in re.findall(rf"^ *(easydata {name} .*)$", command.help, re.MULTILINE):
            words = shlex.split(example.split("|")[0])[2:]
            command.make_context(name, words)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["buidl"], "buidl"),
        (["build", "x", "--tokenizer", "bytes"], "--out"),
        (["build", "x", "--tokenizer", "bytes", "--out", "o", "--wrong"], "--wrong"),
        (["build", "x", "--tokenizer", "bytes", "--out", "o", "--workers", "many"], "--workers"),
        (["build", "x", "--tokenizer", "bytes", "--out", "o", "--splits", "a"], "NAME=VALUE"),
        (["build", "x", "--tokenizer", "bytes", "--out", "o", "--splits", "a=x"], "no number"),
        (["build", "x", "--tokenizer", "bytes", "--out", "o", "--schema", "a"], "NAME=VALUE"),
        (["build", "x", "--tokenizer", "bytes", "--out", "o", "--progress", "bar"], "progress"),
    ],
)
def test_wrong_words_are_named_with_exit_code_2(words, says, capsys):
    assert main(words) == 2
    shown = capsys.readouterr()
    assert says in shown.err
    assert "Traceback" not in shown.err


def test_the_program_runs_as_a_command(out):
    done = easydata("info", out, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["rows"] == 300
    assert done.stderr == ""


def test_on_a_terminal_errors_are_red(tmp_path):
    main_end, other_end = pty.openpty()
    try:
        process = subprocess.Popen(
            [*PROGRAM, "info", str(tmp_path / "none")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=other_end,
            env=environment(TERM="xterm-256color"),
        )
        assert process.wait(120) == 2
        shown = os.read(main_end, 10_000).decode()
    finally:
        os.close(main_end)
        os.close(other_end)
    assert shown.startswith("\x1b[31mError: ")
    assert shown.count("\n") == 1


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path):
    # More than a pipe holds, so that the program is still writing when the reader leaves.
    given = [{"text": "x" * 1000}] * 1000
    ed.build(given, tokenizer="bytes", out=tmp_path / "o", workers=1)
    with subprocess.Popen(
        [*PROGRAM, "head", str(tmp_path / "o"), "-n", "1000", "--decode"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(),
    ) as process:
        assert process.stdout.readline().startswith(b"row 0: ")
        process.stdout.close()
        assert process.stderr.read() == b""
        # 1 is what click makes of it.
        assert process.wait(120) in (0, 1)


def test_the_command_line_does_not_load_what_it_does_not_need(out):
    program = (
        "import sys; from easydata.cli import main; main(sys.argv[1:]);"
        "heavy = {'jax', 'torch', 'ray', 'datasets', 'pandas', 'transformers', 'tokenizers'};"
        "print(*heavy & set(sys.modules), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "info", out],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr.strip() == ""
