"""LitData: chunks of tokens, cut into samples by its TokensLoader."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_programs.reading import Reader, Shape, Variant

PACKAGES = ("litdata", "torch")
_ITEM = 1 << 20  # tokens; samples lie inside items of any length here


def load(_name: str) -> None:
    import litdata
    import torch  # noqa: F401

    assert litdata.TokensLoader


def _item(start: int, file: str) -> Any:
    import torch

    tokens = np.load(file, mmap_mode="r")[start : start + _ITEM]
    return torch.from_numpy(tokens.astype(np.uint16))


def write(file: Path, folder: Path, seq_len: int) -> None:
    import litdata

    # It would use folders in that for temporary files, which all of its users share.
    os.environ["DATA_OPTIMIZER_CACHE_FOLDER"] = str(folder / "cache")
    os.environ["DATA_OPTIMIZER_DATA_CACHE_FOLDER"] = str(folder / "cache-of-data")
    count = len(np.load(file, mmap_mode="r"))
    litdata.optimize(
        partial(_item, file=str(file)),
        list(range(0, count, _ITEM)),
        str(folder / "tokens"),
        chunk_bytes="64MB",
        num_workers=1,
        item_loader=litdata.TokensLoader(block_size=seq_len),
        verbose=False,
    )


def _opened(workers: int) -> Callable[[Path, Shape], Reader]:
    def open_dataset(folder: Path, shape: Shape) -> Reader:
        import litdata

        rows = litdata.StreamingDataset(
            str(folder / "tokens"),
            item_loader=litdata.TokensLoader(block_size=shape.seq_len),
            shuffle=shape.is_shuffled,
        )
        loader = litdata.StreamingDataLoader(
            rows,
            batch_size=shape.batch_size,
            num_workers=workers,
            persistent_workers=workers > 0,
            drop_last=True,
        )
        return lambda seed: loader  # noqa: ARG005 - it shuffles each epoch in its own way

    return open_dataset


_HOW = "`TokensLoader`, chunks of 64 MB, `StreamingDataLoader`"
VARIANTS = {
    "LitData": Variant(f"{_HOW} in this process", _opened(0)),
    "LitData, 2 workers": Variant(f"{_HOW} with 2 workers", _opened(2), keeps_order=False),
}
