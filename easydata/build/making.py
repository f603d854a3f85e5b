"""A part while it is made: rows of its tasks, and rows of spans that were made before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.build.parts import Part, Span
from easydata.build.store import StoredSpan
from easydata.build.task import Counts, NamedBlock, TaskResult
from easydata.format.ledger import PartEntry, SpanEntry

__all__ = ["PartMaker", "split_tasks"]

_TASK_BYTES = 512 << 10


@dataclass
class PartMaker:
    """What is known of a part that is being made.

    Attributes:
        part: its records.
        reused: spans whose rows were made before: by their number, those of each split.
        results: what its tasks have given so far, in order.
    """

    part: Part
    reused: Mapping[int, Sequence[StoredSpan]] = field(default_factory=dict)
    results: list[TaskResult] = field(default_factory=list)
    _spans_of_blocks: list[int] = field(default_factory=list)

    @property
    def rows_reused(self) -> int:
        """Rows of all splits that were made before."""
        return sum(span.entry.rows for spans in self.reused.values() for span in spans)

    def tasks(self, names: Sequence[str]) -> Iterator[list[NamedBlock]]:
        """The other spans' records in pieces of about _TASK_BYTES, the unit of parallel work.

        Args:
            names: of all sources, for messages.
        """
        new = [
            (number, span)
            for number, span in enumerate(self.part.spans)
            if number not in self.reused
        ]
        for task in split_tasks(new, names):
            self._spans_of_blocks += [number for number, _ in task]
            yield [block for _, block in task]

    def entry(self, split: int) -> PartEntry:
        """The part of one split as the ledger records it; the number of batches is missing."""
        splits: list[list[npt.NDArray[np.uint8]]] = [[] for _ in self.part.spans]
        counts: list[list[Counts]] = [[] for _ in self.part.spans]
        for number, (of_records, of_block) in zip(
            self._spans_of_blocks, self._blocks(), strict=True
        ):
            splits[number].append(of_records)
            counts[number].append(of_block)
        return PartEntry(
            self.part.key,
            0,
            [
                replace(self.reused[number][split].entry, source=0, first_record=0)
                if number in self.reused
                else _span_entry(span, np.concatenate(splits[number]) == split, counts[number])
                for number, span in enumerate(self.part.spans)
            ],
        )

    def batches(self, split: int) -> list[pa.RecordBatch]:
        """The rows of one split, in order."""
        if not self.reused:
            return [result.batches[split] for result in self.results]
        found: list[list[pa.RecordBatch]] = [[] for _ in self.part.spans]
        for number, spans in self.reused.items():
            found[number] = spans[split].batches
        numbers = iter(self._spans_of_blocks)
        for result in self.results:
            start = 0
            for of_records in result.splits:
                rows = int(np.count_nonzero(of_records == split))
                found[next(numbers)].append(result.batches[split].slice(start, rows))
                start += rows
        return [batch for batches in found for batch in batches]

    def row_bytes(self, entry: PartEntry) -> npt.NDArray[np.int64]:
        """int64[rows]: bytes of the record that each row of a split was made from."""
        sizes = []
        for span, made in zip(self.part.spans, entry.spans, strict=True):
            of_records = np.diff(span.block.ends, prepend=0)
            if made.kept is not None:
                bits = np.unpackbits(np.frombuffer(made.kept, np.uint8), count=made.records)
                of_records = of_records[bits.astype(np.bool_)]
            sizes.append(of_records)
        return np.concatenate(sizes)

    def _blocks(self) -> Iterator[tuple[npt.NDArray[np.uint8], Counts]]:
        for result in self.results:
            yield from zip(result.splits, result.counts, strict=True)


def split_tasks(
    spans: Sequence[tuple[int, Span]], names: Sequence[str]
) -> Iterator[list[tuple[int, NamedBlock]]]:
    """The records of numbered spans in pieces of about _TASK_BYTES."""
    task: list[tuple[int, NamedBlock]] = []
    size = 0
    for number, span in spans:
        rest = span.block
        while rest.num_records:
            stop = max(1, int(np.searchsorted(rest.ends, _TASK_BYTES - size, side="right")))
            block, rest = rest.slice(0, stop), rest.slice(stop, rest.num_records)
            task.append((number, NamedBlock(names[span.source], block)))
            size += block.nbytes
            if size >= _TASK_BYTES or rest.num_records:
                yield task
                task, size = [], 0
    if task:
        yield task


def _span_entry(span: Span, kept: npt.NDArray[np.bool_], counts: Sequence[Counts]) -> SpanEntry:
    rows = int(kept.sum())
    bits = None if rows == len(kept) else np.packbits(kept).tobytes()
    skipped, short, truncated = (sum(column) for column in zip(*counts, strict=True))
    return SpanEntry(
        0,
        0,
        len(kept),
        rows,
        bits,
        key=span.key,
        skipped=skipped,
        short=short,
        truncated=truncated,
    )
