"""Streams of documents whose tokens tell where they are from, and how packing is done by hand."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from easydata.pipeline.config import PackStageConfig
from easydata.pipeline.stream_samples import StreamedSamples


def batch_of(documents: Sequence[Sequence[int]], dtype: Any = np.uint32) -> pa.RecordBatch:
    """A record batch of rows of token ids."""
    kind = pa.list_(pa.from_numpy_dtype(np.dtype(dtype)))
    return pa.record_batch([pa.array(documents, kind)], ["input_ids"])


def numbered(lengths: Sequence[int], first: int = 1) -> list[list[int]]:
    """Documents of these lengths whose tokens count on from `first`."""
    ends = list(itertools.accumulate(lengths, initial=first))
    return [list(range(*pair)) for pair in itertools.pairwise(ends)]


class Rows:
    """Documents as a stream of record batches of `batch_rows` rows.

    Attributes:
        opened: iterations that began.
        running: iterations that began and did not end.
        taken: batches of all iterations.
    """

    def __init__(
        self, documents: Sequence[Sequence[int]], batch_rows: int = 10, dtype: Any = np.uint32
    ) -> None:
        self.documents = documents
        self.batch_rows = batch_rows
        self.dtype = np.dtype(dtype)
        self.opened = self.running = self.taken = 0

    def batches(self) -> Iterator[pa.RecordBatch]:
        self.opened += 1
        self.running += 1
        try:
            for batch in self.all():
                self.taken += 1
                yield batch
        finally:
            self.running -= 1

    def all(self) -> Iterator[pa.RecordBatch]:
        # One slice of a longer batch after another: their offsets do not begin at 0.
        whole = batch_of(self.documents, self.dtype)
        for start in range(0, len(self.documents), self.batch_rows):
            yield whole.slice(start, self.batch_rows)


def samples_of(
    rows: Rows,
    *,
    is_packed: bool = True,
    pad_token_id: int | None = 0,
    shuffle_buffer_size: int | None = None,
    **config: Any,
) -> StreamedSamples:
    """Small windows that are not shuffled, unless the configuration says otherwise."""
    config = {
        "seq_length": 8,
        "num_packers": 2,
        "shuffle_buffer_factor": 2,
        "shuffle_packed": False,
        **config,
    }
    return StreamedSamples(
        rows,
        PackStageConfig(**config),
        is_packed=is_packed,
        pad_token_id=pad_token_id,
        shuffle_buffer_size=shuffle_buffer_size,
    )


def joined(blocks: Any) -> dict[str, list[list[Any]]]:
    """All samples of some blocks, as lists by name."""
    found: dict[str, list[list[Any]]] = {}
    for block in blocks:
        for name, array in block.items():
            found.setdefault(name, []).extend(array.tolist())
    return found


def by_hand(samples: Sequence[Sequence[Sequence[int]]], seq_len: int) -> dict[str, list[Any]]:
    """The arrays of samples that are given as pieces of documents; 0 is padding."""
    found: dict[str, list[Any]] = {
        name: [] for name in ("input_ids", "segment_ids", "positions", "loss_mask")
    }
    for pieces in samples:
        used = sum(map(len, pieces))
        pad = [0] * (seq_len - used)
        found["input_ids"].append([*itertools.chain(*pieces), *pad])
        segments = [[number] * len(piece) for number, piece in enumerate(pieces, 1)]
        found["segment_ids"].append([*itertools.chain(*segments), *pad])
        found["positions"].append([*itertools.chain(*(range(len(p)) for p in pieces)), *pad])
        found["loss_mask"].append([True] * used + [False] * len(pad))
    return found


def concat_by_hand(documents: Sequence[Sequence[int]], seq_len: int) -> list[list[list[int]]]:
    """The pieces of each sample when documents are cut wherever a sample ends."""
    samples: list[list[list[int]]] = [[]]
    for document in documents:
        rest = list(document)
        while rest:
            room = seq_len - sum(map(len, samples[-1]))
            if room:
                samples[-1].append(rest[:room])
                rest = rest[room:]
            else:
                samples.append([])
    return [sample for sample in samples if sample]


def greedy_by_hand(documents: Sequence[Sequence[int]], seq_len: int) -> list[list[list[int]]]:
    """The pieces of each sample when one that does not fit opens the next sample."""
    samples: list[list[list[int]]] = [[]]
    for document in documents:
        for start in range(0, len(document), seq_len):
            piece = list(document[start : start + seq_len])
            if sum(map(len, samples[-1])) + len(piece) > seq_len:
                samples.append([])
            samples[-1].append(piece)
    return [sample for sample in samples if sample]
