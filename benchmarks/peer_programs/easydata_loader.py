"""easydata's own loader."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.peer_programs.reading import EPOCHS, Reader, Shape, Tokens, Variant

PACKAGES = ("easydata",)
CHECKED, FIRST = "easydata, checked", "easydata, first epoch"
ONE_THREAD = "easydata, checked, one thread"


def load(_name: str) -> None:
    import easydata  # noqa: F401


def write(file: Path, folder: Path, seq_len: int) -> None:  # noqa: ARG001 - any length
    (folder / "dataset").symlink_to(file.parent / "dataset")


def _open(
    folder: Path, shape: Shape, *, epochs: int = EPOCHS, threads: int | None = None
) -> Reader:
    import pyarrow as pa

    import easydata as ed

    ds = ed.open_dataset((folder / "dataset").resolve())
    all_threads = pa.cpu_count()

    def read(seed: int) -> Iterator[dict[str, Any]]:
        loader = ed.DataLoader(
            ds, shape.batch_size, shape.seq_len, shuffle=shape.is_shuffled, seed=seed, epochs=epochs
        )
        pa.set_cpu_count(threads or all_threads)
        try:
            yield from loader
        finally:
            pa.set_cpu_count(all_threads)

    return read


def _arrays(batch: Any) -> Sequence[Tokens]:
    return [batch["input_ids"]]


VARIANTS = {
    CHECKED: Variant(
        "`DataLoader`; every block was compared with its checksum before", _open, _arrays
    ),
    ONE_THREAD: Variant(
        "the same, after `pyarrow.set_cpu_count(1)`", partial(_open, threads=1), _arrays
    ),
    FIRST: Variant(
        "`DataLoader`; opened anew, so mapping and checking are in the time",
        partial(_open, epochs=1),
        _arrays,
        is_opened_anew=True,
    ),
}
