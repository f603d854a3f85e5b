"""What the loader's benchmark would say of loaders that read something else, and its page."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.common import Bar, Report, Spread
from benchmarks.loader_page import write_chart, write_page
from benchmarks.loader_sides import LIMIT, SHAPES, Figures
from benchmarks.peer_programs import measure, memmap
from benchmarks.peer_programs.reading import EPOCHS, Shape, Variant
from benchmarks.peers import OWN, PeerError, call, python_of

_SHUFFLED, _IN_ORDER = Shape(4, 8, is_shuffled=True), Shape(4, 8, is_shuffled=False)
_ROWS = np.arange(40 * 8, dtype=np.uint16).reshape(-1, 8)


def _variant(rows: Any, **more: Any) -> tuple[Variant, Any]:
    def batches(_seed: int) -> Iterator[Any]:
        return (rows[start : start + 4] for start in range(0, len(rows), 4))

    return Variant("", lambda _folder, _shape: batches, **more), batches


@pytest.mark.parametrize(
    ("rows", "shape", "more"),
    [
        (_ROWS + 1, _SHUFFLED, {}),
        (_ROWS.astype(np.int32) + 70_000, _SHUFFLED, {}),
        (_ROWS[::-1], _IN_ORDER, {}),
        (_ROWS[:0], _SHUFFLED, {}),
        (_ROWS[:3], _SHUFFLED, {}),
        (_ROWS + 1, _IN_ORDER, {"keeps_order": False}),
        (_ROWS + 1, _IN_ORDER, {"has_documents": True}),
    ],
)
def test_other_tokens_are_no_result(rows: Any, shape: Shape, more: dict[str, bool]) -> None:
    with pytest.raises(RuntimeError, match="side gave"):
        measure._check("side", *_variant(rows, **more), shape, _ROWS)


@pytest.mark.parametrize(
    ("rows", "shape", "more"),
    [
        (_ROWS[::-1], _SHUFFLED, {}),
        (_ROWS.astype(np.int64), _IN_ORDER, {}),
        (_ROWS[::-1], _IN_ORDER, {"keeps_order": False}),
    ],
)
def test_the_same_tokens_are_read(rows: Any, shape: Shape, more: dict[str, bool]) -> None:
    measure._check("side", *_variant(rows, **more), shape, _ROWS)


def test_all_tokens_of_a_round_count(monkeypatch: pytest.MonkeyPatch) -> None:
    variant, batches = _variant(_ROWS)
    ticks = iter([10.0, *[11.0] * 10, 12.0] * 2)
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    for shape in (_SHUFFLED, _IN_ORDER):
        assert measure._speed(variant, batches, Path(), shape, 0, 5.0) == _ROWS.size / 2
    # The time is up after the first batch.
    ticks = iter([10.0, 11.0, 12.0] * 2)
    for shape in (_SHUFFLED, _IN_ORDER):
        assert measure._speed(variant, batches, Path(), shape, 0, 0.5) == 4 * 8 / 2


def test_what_is_opened_anew_is_closed_after_the_time_is_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    events: list[str] = []
    variant, batches = _variant(_ROWS)

    class Opened:
        def __call__(self, seed: int) -> Any:
            return iter([*batches(seed)])

        def __del__(self) -> None:
            events.append("closed")

    def clock() -> float:
        events.append("clock")
        return float(len(events))

    monkeypatch.setattr(measure.time, "perf_counter", clock)
    anew = variant._replace(open=lambda *_: Opened(), is_opened_anew=True)
    measure._speed(anew, None, Path(), _SHUFFLED, 0, 1e9)
    assert events[-1] == "closed"
    assert events.count("closed") == 1


def test_the_limit_copies_shuffled_rows_and_slices_others(tmp_path: Path) -> None:
    np.save(tmp_path / "tokens.npy", np.append(_ROWS.reshape(-1), [1, 2, 3]).astype(np.uint16))
    limit = memmap.VARIANTS[LIMIT]
    in_order = list(limit.open(tmp_path, _IN_ORDER)(0))
    assert np.array_equal(np.concatenate(in_order), np.tile(_ROWS, (EPOCHS, 1)))
    assert in_order[1].ctypes.data == in_order[0].ctypes.data + in_order[0].nbytes
    shuffled = np.concatenate(list(limit.open(tmp_path, _SHUFFLED)(0)))
    first, second = shuffled.reshape(EPOCHS, -1, 8)[:2]
    assert not np.array_equal(first, _ROWS)
    assert not np.array_equal(first, second)
    assert np.array_equal(np.sort(first[:, 0]), _ROWS[:, 0])


def test_anonymous_memory_of_processes_below_counts() -> None:
    before = measure.anonymous_bytes()
    code = "b = b'1' * (64 << 20); print(1, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout
        child.stdout.readline()
        grown = measure.anonymous_bytes() - before
        child.communicate(b"\n")
    assert 64 << 20 < grown < 100 << 20


def test_a_process_that_fails_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    python = python_of(OWN)
    assert python is not None
    with pytest.raises(PeerError, match=r"peer_programs\.nothing"):
        call(python, measure.write, "nothing", "", "", [])
    assert "Traceback" in capsys.readouterr().err
    assert python_of("nothing") is None


def _figures() -> list[Figures]:
    def side(name: str, rate: float) -> Figures:
        rates = {shape: Spread.of([rate]) for shape in SHAPES}
        return Figures(name, "in its way", rates, dict.fromkeys(SHAPES, rate / 2e9))

    return [side(LIMIT, 2e9), side("easydata, checked", 1.9e9), Figures("Lance", "not installed")]


def test_the_chart_is_the_same_for_the_same_figures(tmp_path: Path) -> None:
    for name in ("one.svg", "two.svg"):
        write_chart(tmp_path / name, _figures())
    drawn = (tmp_path / "one.svg").read_text()
    assert drawn == (tmp_path / "two.svg").read_text()
    assert ">easydata, checked<" in drawn
    assert ">1.9<" in drawn
    assert "Lance" not in drawn


def test_the_page_says_what_was_not_measured(tmp_path: Path) -> None:
    row = {"batches": "zstd", "what": "easydata", "G tokens/s": 1.5, "ratio": 0.75}
    bar = Bar("a share", 0.5, 0.6, True, "somebody")
    sides = _figures()
    conditions = ["warm", *(f"{side.name}: {side.how}" for side in sides)]
    write_page(tmp_path / "page.md", Report("how fast?", conditions, [row], [bar]), sides)
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert "* Warm." in lines
    assert "| Lance | not installed |" in lines
    assert sum(line.startswith("| Lance") for line in lines) == 1
    assert "| easydata, checked |" + " 0.95 |" * len(SHAPES) + " – | – |" in lines
    assert "| zstd | easydata | 1.5 | 0.75 |" in lines
    assert "| a share | ≥ 0.6 | 0.5 | missed |" in lines
