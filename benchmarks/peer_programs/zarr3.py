"""TensorStore's zarr3 driver, in the layout in which Levanter keeps its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_programs.reading import Index, Reader, Shape, Variant, order, slices

PACKAGES = ("tensorstore",)
# Levanter's: tokens in a chunk, chunks in a shard, and bytes of decoded chunks kept.
_CHUNK, _CHUNKS_IN_SHARD, _CACHE_BYTES = 256 * 1024, 512, 1_000_000_000


def load(_name: str) -> None:
    import tensorstore  # noqa: F401


def _spec(folder: Path) -> dict[str, Any]:
    return {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder}/tokens.zarr3/"}}


def write(file: Path, folder: Path, seq_len: int) -> None:  # noqa: ARG001 - any length
    import tensorstore as ts

    tokens = np.load(file, mmap_mode="r")
    inner = {"chunk_shape": [_CHUNK], "codecs": [{"name": "blosc"}]}
    metadata = {
        "shape": [len(tokens)],
        "data_type": tokens.dtype.name,
        "chunk_grid": {
            "name": "regular",
            "configuration": {"chunk_shape": [_CHUNK * _CHUNKS_IN_SHARD]},
        },
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
    }
    store = ts.open({**_spec(folder), "metadata": metadata}, create=True).result()
    store.write(tokens).result()


def _opened(cache_bytes: int) -> Callable[[Path, Shape], Reader]:
    def open_store(folder: Path, shape: Shape) -> Reader:
        import tensorstore as ts

        context = ts.Context({"cache_pool": {"total_bytes_limit": cache_bytes}})
        store = ts.open(_spec(folder), open=True, context=context, recheck_cached=False).result()
        count = store.shape[0] // shape.seq_len

        def in_samples(numbers: Index) -> Iterator[Any]:
            for some in slices(numbers * shape.seq_len, shape.batch_size):
                with ts.Batch():
                    reads = [store[i : i + shape.seq_len].read() for i in some.tolist()]
                yield np.stack([read.result() for read in reads])

        def in_runs() -> Iterator[Any]:
            size = shape.batch_size * shape.seq_len
            for start in range(0, count * shape.seq_len - size + 1, size):
                yield store[start : start + size].read().result().reshape(-1, shape.seq_len)

        return lambda seed: (
            in_samples(order(count, shape, seed)) if shape.is_shuffled else in_runs()
        )

    return open_store


_HOW = "sharded, blosc chunks of 262,144 tokens, a batch in one `ts.Batch`"
VARIANTS = {
    "TensorStore zarr3": Variant(f"{_HOW}, no cache", _opened(0)),
    "TensorStore zarr3, cached": Variant(
        f"{_HOW}, 1 GB of decoded chunks kept, as Levanter", _opened(_CACHE_BYTES)
    ),
}
