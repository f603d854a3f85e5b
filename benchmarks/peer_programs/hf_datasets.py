"""HuggingFace `datasets`, on the very folder that easydata reads: its rows are documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_programs.reading import Index, Reader, Shape, Tokens, Variant, order, slices

PACKAGES = ("datasets",)


def load(name: str) -> None:
    if "torch" in name:
        import torch  # noqa: F401
    import datasets

    datasets.disable_progress_bars()


def write(file: Path, folder: Path, seq_len: int) -> None:  # noqa: ARG001 - any length
    (folder / "dataset").symlink_to(file.parent / "dataset")


def _opened(kind: str) -> Callable[[Path, Shape], Reader]:
    def open_rows(folder: Path, shape: Shape) -> Reader:
        import datasets

        table = datasets.load_from_disk(str(folder / "dataset"))
        num_tokens = sum(len(chunk.flatten()) for chunk in table.data["input_ids"].chunks)
        rows = table.select_columns(["input_ids"]).with_format(kind)
        size = max(1, shape.batch_size * shape.seq_len * len(rows) // num_tokens)

        def batches(numbers: Index) -> Iterator[Any]:
            for some in slices(numbers, size):
                yield rows[some]["input_ids"] if kind != "arrow" else rows[some]

        def in_order() -> Iterator[Any]:
            for batch in rows.iter(size, drop_last_batch=True):
                yield batch["input_ids"] if kind != "arrow" else batch

        return lambda seed: (
            batches(order(len(rows), shape, seed)) if shape.is_shuffled else in_order()
        )

    return open_rows


def _of_table(batch: Any) -> Sequence[Tokens]:
    return [chunk.flatten().to_numpy() for chunk in batch["input_ids"].chunks]


def _of_documents(batch: Any) -> Sequence[Tokens]:
    return [np.asarray(document) for document in batch]


def _variant(kind: str, arrays: Callable[[Any], Sequence[Tokens]]) -> Variant:
    how = f'`with_format("{kind}")`; documents: `rows[numbers]`, in order `rows.iter`'
    return Variant(how, _opened(kind), arrays, has_documents=True)


VARIANTS = {
    "datasets, numpy": _variant("numpy", _of_documents),
    "datasets, arrow": _variant("arrow", _of_table),
    "datasets, torch": _variant("torch", _of_documents),
}
