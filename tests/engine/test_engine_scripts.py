"""Builds with workers from scripts, and builds that are interrupted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import easydata as ed
from tests.interrupts import unmeasured

ROOT = str(Path(__file__).resolve().parents[2])
SCRIPT = """
import easydata as ed
print("the script runs")
ds = ed.build("in.jsonl", out="out", tokenizer="bytes", workers=2, part_size="4kB")
print(len(ds), "rows")
"""
CALLABLE = """
import easydata as ed

def encode(texts):
    return [[ord(char) for char in text] for text in texts]

tokenizer = ed.CallableTokenizer(encode, vocab_size=1 << 21, identity="points 1", eos_id=0)
ds = ed.build("in.jsonl", out="out", tokenizer=tokenizer, workers=WORKERS, part_size="4kB")
print(len(ds), "rows")
"""


@pytest.fixture
def folder(tmp_path):
    rows = [json.dumps({"text": f"row {i} " + "x" * (i % 70)}) for i in range(300)]
    (tmp_path / "in.jsonl").write_text("\n".join(rows))
    return tmp_path


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    return subprocess.run(
        [sys.executable, "script.py"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_script_without_a_main_guard_runs_once(folder):
    done = run_script(folder, SCRIPT)
    assert done.stderr == ""
    assert done.stdout == "the script runs\n300 rows\n"


def test_a_script_beside_modules_of_its_own_shares_them_with_workers(folder):
    text = CALLABLE.replace("WORKERS", "2").split("tokenizer = ")
    (folder / "mine.py").write_text(text[0])
    done = run_script(folder, "from mine import ed, encode\ntokenizer = " + text[1])
    assert done.stderr == ""
    assert done.stdout == "300 rows\n"


def test_a_tokenizer_defined_in_the_script_works_in_one_process_and_is_refused_in_two(folder):
    assert run_script(folder, CALLABLE.replace("WORKERS", "1")).stdout == "300 rows\n"
    (folder / "out").rename(folder / "old")
    done = run_script(folder, CALLABLE.replace("WORKERS", "2"))
    if done.returncode == 0:  # it may also just work
        assert done.stdout == "300 rows\n"
    else:
        last = done.stderr.strip().splitlines()[-1]
        assert last.startswith("easydata.errors.")
        assert "module" in last
        assert "workers=1" in last or "one worker" in last
        assert not (folder / "out" / "state.json").exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_everything(folder, workers):
    # The tokenizer never returns, so only the interrupt can end this.
    (folder / "hanging.py").write_text(
        "import sys, threading\n"
        "def encode(texts):\n"
        "    print('busy', file=sys.stderr, flush=True)\n"
        "    threading.Event().wait()\n"
    )
    (folder / "script.py").write_text(
        "import easydata as ed, sys\n"
        "from hanging import encode\n"
        "from importlib import import_module\n"
        "prepare = import_module('easydata.build.prepare')\n"
        "from easydata.cli import main\n"
        "tokenizer = ed.CallableTokenizer(encode, vocab_size=9, identity='hangs', eos_id=0)\n"
        "prepare.load_tokenizer = lambda *args, **kwargs: tokenizer\n"
        "raise SystemExit(main(sys.argv[1:]))\n"
    )
    words = ["build", "in.jsonl", "--tokenizer", "any", "--out", "out", "--workers", str(workers)]
    process = subprocess.Popen(
        [sys.executable, "script.py", *words, "--part-size", "4kB"],
        cwd=folder,
        env={**unmeasured(), "PYTHONPATH": ROOT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for _ in range(workers):
        assert process.stderr.readline() == "busy\n"
    os.killpg(process.pid, signal.SIGINT)
    # Workers hold standard error too: it ends when the last of them has.
    _, messages = process.communicate(timeout=120)
    assert process.returncode == 130
    assert messages.startswith("Interrupted. Finished parts are kept")
    assert "Traceback" not in messages
    with pytest.raises(ed.NotADatasetError):
        ed.open_dataset(folder / "out")


def test_an_error_of_the_users_tokenizer_surfaces_as_it_is(folder):
    from . import tasks

    tokenizer = ed.CallableTokenizer(tasks.refuse, vocab_size=9, identity="refuses", eos_id=0)
    for workers in (1, 2):
        with pytest.raises(ZeroDivisionError, match="by the tokenizer"):
            ed.build(folder / "in.jsonl", out=folder / "o", tokenizer=tokenizer, workers=workers)
        assert not (folder / "o").exists()


def test_a_worker_killed_while_building_is_told_and_the_build_continues(folder):
    from . import tasks

    marker = folder / "killed"
    os.environ["EASYDATA_TEST_MARKER"] = str(marker)
    try:
        tokenizer = ed.CallableTokenizer(
            tasks.die_once, vocab_size=300, identity="dies once", eos_id=0
        )
        options = {"tokenizer": tokenizer, "part_size": "4kB", "workers": 2}
        with pytest.raises(ed.WorkerError, match="SIGKILL"):
            ed.build(folder / "in.jsonl", out=folder / "out", **options)
        with pytest.raises(ed.NotADatasetError):
            ed.open_dataset(folder / "out")
        assert len(ed.build(folder / "in.jsonl", out=folder / "out", **options)) == 300
    finally:
        del os.environ["EASYDATA_TEST_MARKER"]
