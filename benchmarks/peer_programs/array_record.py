"""ArrayRecord files, read by Grain and by their own batch reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_programs.reading import Index, Reader, Shape, Variant, order, samples, slices

PACKAGES = ("grain", "array-record")


def load(_name: str) -> None:
    import array_record.python.array_record_module  # noqa: F401
    import grain.sources  # noqa: F401


def write(file: Path, folder: Path, seq_len: int) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    # A record must be a group of its own to be read alone; Grain asks for it.
    writer = ArrayRecordWriter(str(folder / "tokens.array_record"), "group_size:1,uncompressed")
    for row in samples(file, seq_len):
        writer.write(row.tobytes())
    writer.close()


def _source(folder: Path) -> Any:
    import grain

    return grain.sources.ArrayRecordDataSource(str(folder / "tokens.array_record"))


def _tokens(record: bytes) -> Any:
    return np.frombuffer(record, np.uint16)


def _by_grain(folder: Path, shape: Shape) -> Reader:
    import grain

    source = _source(folder)
    # Its documentation: no threads if the data are in memory, which the page cache is.
    options = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)

    def batches(seed: int) -> Any:
        rows = grain.MapDataset.source(source)
        if shape.is_shuffled:
            rows = rows.shuffle(seed)
        batched = rows.map(_tokens).batch(shape.batch_size, drop_remainder=True)
        return batched.to_iter_dataset(options)

    return batches


def _by_batch_reads(folder: Path, shape: Shape) -> Reader:
    source = _source(folder)

    def batches(numbers: Index) -> Iterator[Any]:
        for some in slices(numbers, shape.batch_size):
            records = source.__getitems__(some.tolist())
            yield _tokens(b"".join(records)).reshape(-1, shape.seq_len)

    return lambda seed: batches(order(len(source), shape, seed))


VARIANTS = {
    "Grain + ArrayRecord": Variant(
        "`MapDataset.source(…).shuffle().map().batch()`, no threads", _by_grain
    ),
    "ArrayRecord, batch reads": Variant("`__getitems__`, the bytes joined", _by_batch_reads),
}
