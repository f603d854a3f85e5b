"""MosaicML Streaming: MDS shards with an array for each sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_programs.reading import (
    Index,
    Reader,
    Shape,
    Tokens,
    Variant,
    order,
    samples,
    slices,
)

PACKAGES = ("mosaicml-streaming", "torch")


def load(_name: str) -> None:
    import torch

    # It imports torchvision, whose wheel brings these operators only where there is CUDA, and
    # which cannot be imported without them.
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
    import streaming  # noqa: F401


def write(file: Path, folder: Path, seq_len: int) -> None:
    load("")
    import streaming

    rows = samples(file, seq_len)
    columns = {"input_ids": f"ndarray:{rows.dtype.name}:{seq_len}"}
    with streaming.MDSWriter(out=str(folder / "tokens"), columns=columns) as writer:
        for row in rows:
            writer.write({"input_ids": np.array(row)})


def _opened(workers: int) -> Callable[[Path, Shape], Reader]:
    def open_dataset(folder: Path, shape: Shape) -> Reader:
        import streaming

        rows = streaming.StreamingDataset(
            local=str(folder / "tokens"),
            shuffle=shape.is_shuffled,
            batch_size=shape.batch_size,
            num_canonical_nodes=1,
        )
        loader = streaming.StreamingDataLoader(
            rows,
            batch_size=shape.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=True,
        )
        return lambda seed: loader  # noqa: ARG005 - it shuffles each epoch in its own way

    return open_dataset


def _by_number(folder: Path, shape: Shape) -> Reader:
    import streaming

    rows = streaming.StreamingDataset(local=str(folder / "tokens"), batch_size=shape.batch_size)

    def batches(numbers: Index) -> Iterator[Any]:
        for some in slices(numbers, shape.batch_size):
            yield np.stack([rows[i]["input_ids"] for i in some.tolist()])

    return lambda seed: batches(order(len(rows), shape, seed))


def _arrays(batch: Any) -> list[Tokens]:
    return [batch["input_ids"].numpy()]


_HOW = "MDS with an `ndarray` column, `StreamingDataLoader`"
VARIANTS = {
    "MosaicML Streaming": Variant(f"{_HOW} in this process", _opened(0), _arrays),
    "MosaicML Streaming, 2 workers": Variant(f"{_HOW} with 2 workers", _opened(2), _arrays),
    "MosaicML Streaming, by number": Variant(
        "MDS with an `ndarray` column, `dataset[number]`, stacked", _by_number
    ),
}
