"""The demo and the notebooks, run as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Small modules, an empty one, one that is not UTF-8, and files that are none of the corpus."""
    folder = tmp_path / "corpus"
    (folder / "inner").mkdir(parents=True)
    (folder / "site-packages").mkdir()
    for number in range(40):
        lines = [f"def function_{number}_{i}(x):\n    return x * {i * number}\n" for i in range(60)]
        (folder / "inner" / f"module_{number}.py").write_text("# é 語\n" + "".join(lines), "utf-8")
    (folder / "empty.py").touch()
    (folder / "latin.py").write_bytes(b"# \xe9\n")
    (folder / "readme.txt").write_text("not Python")
    (folder / "site-packages" / "other.py").write_text("x = 1")
    return folder


def run_demo(corpus: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--corpus", str(corpus)]
    return subprocess.run(
        [*command, "--vocab-size", "600", *more],
        cwd=corpus.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_demo_runs_twice_and_notices_changes_and_damage(corpus: Path) -> None:
    first = run_demo(corpus)
    assert first.returncode == 0, first.stdout + first.stderr
    assert not first.stderr
    assert re.findall(r"^(\d)\. ", first.stdout, re.MULTILINE) == list("1234567")
    assert "Corpus: 42 files" in first.stdout
    assert "40 rows" in first.stdout
    assert "left out: 1 files that are not UTF-8, 1 that are empty" in first.stdout
    assert "600 tokens, in .demo/tokenizer.json" in first.stdout
    assert "reused" not in first.stdout
    counts = re.findall(r"^   (\w+) +([\d,]+) rows +([\d,]+) tokens", first.stdout, re.MULTILINE)
    assert [name for name, *_ in counts] == ["datasets", "pandas", "Polars", "DuckDB", "pyarrow"]
    total = re.search(r"40 rows, ([\d,]+) tokens as uint16", first.stdout)
    assert total
    assert {(rows, tokens) for _, rows, tokens in counts} == {("40", total[1])}

    state = (corpus.parent / ".demo" / "dataset" / "state.json").read_bytes()
    second = run_demo(corpus)
    assert second.returncode == 0, second.stdout + second.stderr
    assert second.stdout.count("reused") == 2
    assert (corpus.parent / ".demo" / "dataset" / "state.json").read_bytes() == state

    (corpus / "inner" / "module_7.py").write_text("changed = 'yes'\n")
    changed = run_demo(corpus)
    assert changed.returncode == 0, changed.stdout + changed.stderr
    assert "have changed since the last run: replacing" in changed.stdout

    (shard,) = (corpus.parent / ".demo" / "dataset").glob("data-*.arrow")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    damaged = run_demo(corpus)
    assert damaged.returncode == 1
    assert shard.name in damaged.stderr
    assert "Traceback" not in damaged.stderr
    assert "5. " not in damaged.stdout


def test_notebooks_are_kept_without_outputs() -> None:
    paths = list(NOTEBOOKS.glob("*.ipynb"))
    assert NOTEBOOKS / "quickstart.ipynb" in paths
    for path in paths:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert cell.outputs == [], path
                assert cell.execution_count is None, path


def write_notebook(path: Path, *sources: str) -> Path:
    cells = [
        {
            "cell_type": "code",
            "execution_count": None,
            "id": f"cell-{i}",
            "metadata": {},
            "outputs": [],
            "source": source,
        }
        for i, source in enumerate(sources)
    ]
    notebook = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(notebook))
    return path


def test_the_runner_of_notebooks_fails_where_a_cell_does(tmp_path: Path) -> None:
    good = write_notebook(
        tmp_path / "good.ipynb", "from pathlib import Path", "Path('made-here').touch()"
    )
    bad = write_notebook(tmp_path / "bad.ipynb", "value = 1", "assert value == 2")
    command = [sys.executable, str(NOTEBOOKS / "run.py"), str(bad), str(good)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bad.ipynb" in done.stderr
    assert "AssertionError" in done.stderr
    assert re.fullmatch(r"good\.ipynb: 2 cells ran in [\d.]+ s\n", done.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.ipynb", "good.ipynb"]
