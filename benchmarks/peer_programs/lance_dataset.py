"""Lance: a column of fixed-size lists."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.peer_programs.reading import Index, Reader, Shape, Variant, order, samples, slices

PACKAGES = ("pylance",)


def load(_name: str) -> None:
    import lance  # noqa: F401


def write(file: Path, folder: Path, seq_len: int) -> None:
    import lance
    import pyarrow as pa

    tokens = pa.array(samples(file, seq_len).reshape(-1))
    rows = pa.FixedSizeListArray.from_arrays(tokens, seq_len)
    lance.write_dataset(pa.table({"input_ids": rows}), str(folder / "tokens.lance"))


def _open(folder: Path, shape: Shape) -> Reader:
    import lance

    ds = lance.dataset(str(folder / "tokens.lance"))
    count = ds.count_rows()

    def array(batch: Any) -> Any:
        return batch["input_ids"].combine_chunks().flatten().to_numpy().reshape(-1, shape.seq_len)

    def taken(numbers: Index) -> Iterator[Any]:
        for some in slices(numbers, shape.batch_size):
            yield array(ds.take(some, columns=["input_ids"]))

    def scanned() -> Iterator[Any]:
        for batch in ds.to_batches(columns=["input_ids"], batch_size=shape.batch_size):
            tokens = batch["input_ids"].flatten().to_numpy().reshape(-1, shape.seq_len)
            if len(tokens) == shape.batch_size:
                yield tokens
            del batch, tokens

    return lambda seed: taken(order(count, shape, seed)) if shape.is_shuffled else scanned()


VARIANTS = {
    "Lance": Variant("a column of fixed-size lists: `take(numbers)`, in order `to_batches`", _open)
}
