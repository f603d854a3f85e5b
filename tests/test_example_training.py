"""The example that trains, run as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number in range(20):
        functions = [
            f"def function_{number}_{i}(x):\n    return x * {i * number}\n" for i in range(20)
        ]
        (folder / f"module_{number}.py").write_text("\n\n".join(functions))
    (folder / "readme.txt").write_text("not Python")
    return folder


def test_training_goes_on_as_if_it_had_not_stopped(corpus: Path, tmp_path: Path) -> None:
    script = ROOT / "examples" / "train_jax.py"
    done = subprocess.run(
        [sys.executable, str(script), "--quick", "--torch", "--corpus", str(corpus)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    assert "Corpus: 400 paragraphs" in done.stdout
    assert re.findall(r"trained (\d+) steps, up to (\d+)", done.stdout) == [
        ("6", "6"),
        ("3", "3"),
        ("3", "6"),
    ]
    rows = re.findall(r"^ +(\d+)  ([\d.]+) +([\d.]+)", done.stdout, re.MULTILINE)
    assert [step for step, *_ in rows] == ["1", "3", "4", "6"]
    assert all(whole == halves for _, whole, halves in rows)
    assert len({whole for _, whole, _ in rows}) == 4
    assert re.findall("✓ (.*)", done.stdout) == [
        "the losses of all steps are equal to the last bit",
        "the loss falls",
        "PyTorch has the same 6 batches",
    ]

    out = tmp_path / ".demo" / "training"
    checkpoints = sorted((out / "halves").iterdir())
    assert [path.name for path in checkpoints] == ["step-000003", "step-000006"]
    states = [json.loads((path / "loader.json").read_text()) for path in checkpoints]
    assert [state["samples"] for state in states] == [12, 24]
    # Parameters and optimizer, too, are what they are without a stop.
    with (
        np.load(out / "whole" / "step-000006" / "state.npz") as whole,
        np.load(checkpoints[1] / "state.npz") as halves,
    ):
        assert whole.files == halves.files
        assert all(whole[name].tobytes() == halves[name].tobytes() for name in whole.files)
