"""What a build says while it runs: a live line, JSON lines, or nothing."""

from __future__ import annotations

import json
import logging
import sys
import time
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, Self

from easydata._units import format_bytes, format_count
from easydata.errors import UsageError

__all__ = ["Meter", "Progress", "ProgressKind", "Snapshot", "make_progress"]

ProgressKind = Literal["auto", "rich", "tqdm", "json", "none"]
_log = logging.getLogger("easydata")
_SECONDS_BETWEEN = 0.2
_WIDE = 120  # columns of a terminal


@dataclass(frozen=True)
class Snapshot:
    """How far a build is.

    Attributes:
        bytes_done: of the raw input, about, that have been tokenized.
        bytes_total: of the raw input, or None if unknown.
        rows: rows finished.
        tokens: tokens finished.
    """

    bytes_done: int = 0
    bytes_total: int | None = None
    rows: int = 0
    tokens: int = 0


class Progress(AbstractContextManager["Progress"], Protocol):
    """Shows how far a build is, and one line at its end (or logs it, where nothing is shown)."""

    def update(self, snapshot: Snapshot) -> None: ...

    def say(self, line: str) -> None: ...


class Meter:
    """Adds up what is done while it is done, and shows it."""

    def __init__(self, progress: Progress, bytes_total: int | None) -> None:
        self._progress = progress
        self._bytes_total = bytes_total
        self._content = self._done = self._rows = self._tokens = 0

    def add(self, content: int, rows: int, tokens: int, *, raw_share: float) -> None:
        """Count some more.

        Args:
            content: bytes of records.
            rows: what became of them.
            tokens: what became of them.
            raw_share: raw bytes of the input for each byte of records, so far.
        """
        self._content += content
        self._rows += rows
        self._tokens += tokens
        # How well the input is compressed is only known so far: never go back.
        self._done = max(self._done, round(self._content * raw_share))
        self._progress.update(Snapshot(self._done, self._bytes_total, self._rows, self._tokens))


def make_progress(kind: ProgressKind) -> Progress:
    """The reporter called `kind`; "auto" is "rich" on a terminal and "none" elsewhere.

    Raises:
        UsageError: there is no such reporter.
    """
    if kind == "auto":
        kind = "rich" if sys.stderr.isatty() else "none"
    if kind == "rich":
        return _RichProgress()
    if kind == "tqdm":
        return _TqdmProgress()
    if kind == "json":
        return _JsonProgress()
    if kind == "none":
        return _NoProgress()
    raise UsageError(f"progress is {kind!r}; choose 'auto', 'rich', 'tqdm', 'json' or 'none'.")


class _NoProgress:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass

    def update(self, snapshot: Snapshot) -> None:
        pass

    def say(self, line: str) -> None:
        _log.info("%s", line)


class _Timed(_NoProgress, ABC):
    """Passes on a few snapshots a second, with rates."""

    def __init__(self) -> None:
        self._start = self._last = time.monotonic()
        self._unshown: Snapshot | None = None

    def update(self, snapshot: Snapshot) -> None:
        self._unshown = snapshot
        if time.monotonic() - self._last >= _SECONDS_BETWEEN:
            self._show_latest()

    def say(self, line: str) -> None:
        if self._unshown is not None:
            self._show_latest()
        self._write_line(line)

    def _show_latest(self) -> None:
        self._last = time.monotonic()
        if self._unshown is not None:
            self._show(self._unshown, self._last - self._start)
        self._unshown = None

    @abstractmethod
    def _write_line(self, line: str) -> None:
        """Print one line."""

    @abstractmethod
    def _show(self, snapshot: Snapshot, seconds: float) -> None:
        """Print how far the build is, `seconds` after its start."""


class _JsonProgress(_Timed):
    """One JSON object per line on standard error."""

    def _show(self, snapshot: Snapshot, seconds: float) -> None:
        self._write({**asdict(snapshot), "seconds": round(seconds, 3)})

    def _write_line(self, line: str) -> None:
        self._write({"message": line})

    def _write(self, value: dict[str, Any]) -> None:
        print(json.dumps(value), file=sys.stderr, flush=True)


class _TqdmProgress(_Timed):
    """A plain bar on standard error, which notebooks and log files take too."""

    def __init__(self) -> None:
        super().__init__()
        from tqdm import tqdm

        self._bar = tqdm(desc="reading", unit="B", unit_scale=True, leave=False)

    def __exit__(self, *exc_info: object) -> None:
        self._bar.close()

    def _write_line(self, line: str) -> None:
        self._bar.write(line, file=sys.stderr)

    def _show(self, snapshot: Snapshot, seconds: float) -> None:
        self._bar.total = snapshot.bytes_total
        self._bar.set_postfix_str(
            f"{format_count(snapshot.tokens)} tokens, "
            f"{format_count(snapshot.tokens / seconds)} tokens/s",
            refresh=False,
        )
        self._bar.update(snapshot.bytes_done - self._bar.n)


class _RichProgress(_Timed):
    """A bar with rates and the time left, on standard error."""

    def __init__(self) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        self._is_narrow = console.width < _WIDE
        self._bar = Bar(
            BarColumn(bar_width=10 if self._is_narrow else 30),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._bar.add_task("reading", total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def _write_line(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _show(self, snapshot: Snapshot, seconds: float) -> None:
        text = f"{format_count(snapshot.tokens / seconds)} tokens/s"
        if not self._is_narrow:
            text = (
                f"{format_bytes(snapshot.bytes_done)}  {format_count(snapshot.rows)} rows  "
                f"{format_count(snapshot.tokens)} tokens  "
                f"{format_count(snapshot.rows / seconds)} rows/s  {text}"
            )
        self._bar.update(
            self._task,
            description=text,
            completed=snapshot.bytes_done,
            total=snapshot.bytes_total,
        )
