"""The issue's list of bad input, through Python and through the command line."""

from __future__ import annotations

import errno
import gzip
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zstandard

import easydata as ed
from easydata.cli import main

from .support import SMALL, environment, everything, jsonl, rows, write

GOOD = jsonl(rows(200))


@dataclass(frozen=True)
class Bad:
    """One bad input: what lies in the folder, what is asked for, what must be said."""

    name: str
    kind: type[ed.EasyDataError]
    says: str
    content: bytes = GOOD
    file: str = "in.jsonl"
    source: str = "in.jsonl"
    options: dict[str, Any] = field(default_factory=dict)
    prepare: Callable[[Path], None] | None = None

    def __str__(self) -> str:
        return self.name


def broken(line: bytes) -> bytes:
    """200 good lines with another as number 151."""
    lines = GOOD.splitlines(keepends=True)
    return b"".join([*lines[:150], line + b"\n", *lines[150:]])


def many_pieces(data: bytes) -> bytes:
    """Gzip that cannot be told to be cut from its first bytes."""
    return gzip.compress(data)[:-200]


def make_foreign(folder: Path) -> None:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.tex").write_text("mine")


BAD = [
    Bad("missing file", ed.SourceNotFoundError, r"no\.jsonl does not exist", source="no.jsonl"),
    Bad("empty glob", ed.SourceNotFoundError, r"\*\.json matches no file", source="*.json"),
    Bad(
        "folder without known files",
        ed.SourceNotFoundError,
        r"no file of a known type: it has 1 files with the extensions \.bin",
        file="a.bin",
        source=".",
    ),
    Bad(
        "broken JSON",
        ed.BadRowError,
        r"in\.jsonl, row 150 \(line 151\): .*--on-error skip",
        broken(b'{"text": "a'),
    ),
    Bad(
        "not an object",
        ed.BadRowError,
        r"in\.jsonl, row 150 \(line 151\): .*--on-error skip",
        broken(b"[1]"),
    ),
    Bad(
        "missing field",
        ed.BadRowError,
        r"in\.jsonl, row 150 \(line 151\): .*'text' is missing.*'content'.*--text-field content",
        broken(b'{"content": "a"}'),
    ),
    Bad(
        "number as text",
        ed.BadRowError,
        r"in\.jsonl, row 150 \(line 151\): .*'text' is .*--on-error skip",
        broken(b'{"text": 7}'),
    ),
    Bad(
        "null as text",
        ed.BadRowError,
        r"in\.jsonl, row 150 \(line 151\): .*'text' is .*--on-error skip",
        broken(b'{"text":null}'),
    ),
    Bad(
        "invalid UTF-8",
        ed.BadRowError,
        r"in\.jsonl, row 150 \(line 151\): .*not UTF-8.*--on-error skip",
        broken(b'{"text": "a\xff"}'),
    ),
    Bad(
        "invalid UTF-8 in text",
        ed.BadRowError,
        r"in\.txt, row 2 \(line 3\): .*not UTF-8.*--on-error skip",
        b"one\ntwo\nth\xffree\n",
        "in.txt",
        "in.txt",
        {"text_rows": "line"},
    ),
    Bad(
        "truncated gz",
        ed.SourceError,
        r"in\.jsonl\.gz",
        many_pieces(GOOD),
        "in.jsonl.gz",
        "in.jsonl.gz",
    ),
    Bad(
        "truncated zst",
        ed.SourceError,
        r"in\.jsonl\.zst",
        zstandard.compress(GOOD)[:-20],
        "in.jsonl.zst",
        "in.jsonl.zst",
    ),
    Bad("empty file", ed.SourceError, r"in\.jsonl gives not one row: the input is empty", b""),
    Bad(
        "unknown codec",
        ed.UsageError,
        r"compression is 'brotli'; choose one of none, lz4",
        options={"compression": "brotli"},
    ),
    Bad(
        "gzip in IPC",
        ed.UsageError,
        r"gzip; choose format='parquet'",
        options={"compression": "gzip", "format": "ipc"},
    ),
    Bad(
        "unknown extension",
        ed.SourceError,
        r"in\.weird has the unknown extension '\.weird'.*--type",
        file="in.weird",
        source="in.weird",
    ),
    Bad(
        "tokenizer that is missing",
        ed.TokenizerError,
        r"nowhere\.json",
        options={"tokenizer": "nowhere.json"},
    ),
    Bad(
        "tokenizer that does not load",
        ed.TokenizerError,
        r"in\.jsonl",
        options={"tokenizer": "in.jsonl"},
    ),
    Bad(
        "ids that do not fit",
        ed.EasyDataError,
        r"uint8",
        options={"dtype": "uint8"},
    ),
    Bad(
        "kept value of another type",
        ed.BadRowError,
        r"in\.jsonl, row 1499 \(line 1500\): .*'id'.*--on-error skip",
        jsonl([{"text": "a", "id": i} for i in range(1499)]) + b'{"text": "a", "id": "x"}\n',
        options={"keep_fields": ["id"]},
    ),
    Bad(
        "foreign folder",
        ed.OutputExistsError,
        r"out already holds files that are no dataset \(thesis\.tex\).*--out",
        prepare=make_foreign,
    ),
    Bad(
        "file as output",
        ed.OutputExistsError,
        r"out is a file.*--out",
        prepare=lambda folder: (folder / "out").touch(),
    ),
]


@pytest.fixture(params=BAD, ids=str)
def bad(request, tmp_path, monkeypatch):
    (tmp_path / request.param.file).write_bytes(request.param.content)
    if request.param.prepare:
        request.param.prepare(tmp_path)
    monkeypatch.chdir(tmp_path)
    return request.param


@pytest.mark.parametrize("workers", [1, 2])
def test_python_says_what_where_and_what_to_do(bad, tmp_path, workers):
    before = everything(tmp_path)
    with pytest.raises(bad.kind) as caught:
        ed.build(bad.source, out="out", workers=workers, **{**SMALL, **bad.options})
    message = str(caught.value)
    assert re.search(bad.says, message, re.DOTALL), message
    check_nothing_visible(tmp_path, before)


def test_the_command_line_says_it_in_one_line(bad, tmp_path, capfd, monkeypatch):
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    before = everything(tmp_path)
    arguments = command(bad)
    assert main(arguments) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("Error: ")
    assert shown.err.count("\n") == 1
    assert shown.err.endswith("\n")
    assert re.search(bad.says, shown.err), shown.err
    assert "Traceback" not in shown.err

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    assert main(arguments) == 2
    assert capfd.readouterr().err.startswith("\x1b[31mError: ")

    with pytest.raises(bad.kind):
        main([*arguments, "--debug"])
    check_nothing_visible(tmp_path, before)


def command(bad: Bad) -> list[str]:
    options = {**SMALL, **bad.options}
    words = ["build", bad.source, "--out", "out", "--workers", "1"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", ",".join(value) if name[0] == "k" else value]
    return words


def check_nothing_visible(folder: Path, before: dict[str, Any]) -> None:
    found = everything(folder)
    assert {k: v for k, v in found.items() if not k.startswith("out/.build/")} == before
    if "out" not in before and not any(name.startswith("out/") for name in found):
        assert not (folder / "out").exists()
    with pytest.raises(ed.NotADatasetError):
        ed.open_dataset(folder / "out")


def test_a_traceback_is_shown_with_debug_only(tmp_path):
    for words, shown in (([], False), (["--debug"], True)):
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from easydata.cli import main; raise SystemExit(main())"),
                *("build", "no.jsonl", "--tokenizer", "bytes", "--out", "out", *words),
            ],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("Traceback" in done.stderr) is shown
        assert done.returncode == (1 if shown else 2)


def test_an_empty_file_among_others_is_no_error(tmp_path):
    (tmp_path / "a.jsonl").touch()
    write(tmp_path / "b.jsonl", rows(3))
    ds = ed.build([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], out=tmp_path / "out", **SMALL)
    assert len(ds) == 3
    assert ds.lineage(0) == (str(tmp_path / "b.jsonl"), 0)


def test_skipped_rows_are_counted_and_named(tmp_path, caplog):
    source = tmp_path / "in.jsonl"
    source.write_bytes(broken(b'{"text": 7}') + b"{\n")
    ds = ed.build(source, out=tmp_path / "out", on_error="skip", **SMALL)
    assert [ds.decode(i) for i in range(len(ds))] == [row["text"] for row in rows(200)]
    assert ds.lineage(150) == (str(source), 151)
    assert "line 151" in caplog.text
    assert "line 202" in caplog.text
    assert "2 broken rows were left out" in caplog.text


def test_only_broken_rows_are_an_error(tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_bytes(b"{\n{\n")
    with pytest.raises(ed.SourceError, match="2 records are broken"):
        ed.build(source, out=tmp_path / "out", on_error="skip", **SMALL)
    write(source, [{"text": "a"}])
    with pytest.raises(ed.SourceError, match="1 rows are too short"):
        ed.build(source, out=tmp_path / "out", min_tokens=5, **SMALL)
    assert not (tmp_path / "out" / "state.json").exists()


LIMITED = """
import resource, sys
from easydata.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
raise SystemExit(main(sys.argv[1:]))
"""


def test_a_full_disk_is_told_and_loses_nothing(tmp_path):
    out = tmp_path / "out"
    ed.build(rows(3), out=out, **SMALL)
    before = everything(out)
    source = write(tmp_path / "in.jsonl", rows(300))
    done = subprocess.run(
        [
            *(sys.executable, "-c", LIMITED, "build", source, "--tokenizer", "bytes"),
            *("--out", out, "--part-size", "4kB", "--workers", "2", "--overwrite"),
        ],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert re.fullmatch(
        r"Error: Cannot write .*/out/.*: File too large; .*Free space and run again\.\n",
        done.stderr,
    )
    found = everything(out)
    assert {name: found[name] for name in before} == before
    assert all(name.startswith(".build/") for name in found.keys() - before.keys())
    # With space again the same build continues.
    ed.build(source, out=out, overwrite=True, tokenizer="bytes", part_size="4kB")
    assert len(ed.open_dataset(out, verify="open")) == 300


UNPRIVILEGED = """
import os, sys
import contextlib, tempfile
from easydata.cli import main
# Everything is imported while the interpreter's own files may still be read.
with tempfile.TemporaryDirectory() as folder:
    main(["build", sys.argv[2], "--tokenizer", "bytes", "--out", folder + "/o"])
    main(["build", "none", "--tokenizer", "bytes", "--out", folder + "/o"])
print("--", file=sys.stderr)
if os.getuid() == 0:
    os.setgid(65534)
    os.setuid(65534)
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("has_old", [False, True], ids=["new", "over a dataset"])
def test_a_read_only_folder_is_told(tmp_path, has_old):
    source = write(tmp_path / "in.jsonl", rows(30))
    folder = tmp_path / "closed"
    out = folder / "out"
    folder.mkdir()
    if has_old:
        ed.build(rows(3), out=out, **SMALL)
    before = everything(folder)
    for path in (folder, out) if has_old else (folder,):
        path.chmod(0o555)
    for parent in [source, *source.parents]:
        if parent.is_relative_to(tmp_path.parent.parent):
            parent.chmod(parent.stat().st_mode | 0o055)
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-c", UNPRIVILEGED, "build", source, "--tokenizer", "bytes"),
                *("--out", out, "--workers", "1", "--overwrite"),
            ],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    finally:
        for path in (folder, out) if has_old else (folder,):
            path.chmod(0o755)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(
        r"Error: none .*\n--\nError: Cannot make .*/closed/out.*: Permission denied; "
        r"permission denied\. Choose a folder that you may write to\.\n",
        done.stderr,
    ), done.stderr
    assert everything(folder) == before


def test_storage_errors_are_os_errors(tmp_path, monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="Choose a folder") as caught:
        ed.build(rows(3), out=tmp_path / "out", **SMALL)
    assert caught.value.errno == errno.EROFS
    assert isinstance(caught.value, ed.StorageError)
