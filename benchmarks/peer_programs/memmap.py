"""A memory map of one array: the limit of NumPy's own indexing, and rows stacked one by one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_programs.reading import (
    Index,
    Reader,
    Shape,
    Variant,
    epochs,
    order,
    samples,
    slices,
)

PACKAGES = ("numpy",)
LIMIT = "NumPy, memmap[index]"


def load(name: str) -> None:
    if "torch" in name:
        import torch  # noqa: F401


def write(file: Path, folder: Path, seq_len: int) -> None:  # noqa: ARG001 - any length
    (folder / "tokens.npy").symlink_to(file)


def _indexed(folder: Path, shape: Shape) -> Reader:
    rows = samples(folder / "tokens.npy", shape.seq_len)

    def batches(orders: list[Index]) -> Iterator[Any]:
        for numbers in orders:
            for some in slices(numbers, shape.batch_size):
                yield rows[some] if shape.is_shuffled else rows[some[0] : some[-1] + 1]

    return lambda seed: batches(epochs(len(rows), shape, seed))


def _stacked(folder: Path, shape: Shape) -> Reader:
    """As nanoGPT does: a slice of the flat map for each row, and their stack."""
    flat = samples(folder / "tokens.npy", shape.seq_len).reshape(-1)
    count = len(flat) // shape.seq_len

    def batches(numbers: Index) -> Iterator[Any]:
        for some in slices(numbers * shape.seq_len, shape.batch_size):
            yield np.stack([flat[i : i + shape.seq_len] for i in some])

    return lambda seed: batches(order(count, shape, seed))


def _stacked_tensors(folder: Path, shape: Shape) -> Reader:
    import torch

    flat = samples(folder / "tokens.npy", shape.seq_len).reshape(-1)
    count = len(flat) // shape.seq_len

    def batches(numbers: Index) -> Iterator[Any]:
        for some in slices(numbers * shape.seq_len, shape.batch_size):
            yield torch.stack(
                [torch.from_numpy(flat[i : i + shape.seq_len].astype(np.int64)) for i in some]
            )

    return lambda seed: batches(order(count, shape, seed))


VARIANTS = {
    LIMIT: Variant("rows of a memory map in an order made before; in order, its slices", _indexed),
    "np.stack of memmap slices": Variant("as nanoGPT, a slice for each row", _stacked),
    "torch.stack of memmap slices": Variant(
        "as nanoGPT, a slice for each row, widened to int64", _stacked_tensors
    ),
}
