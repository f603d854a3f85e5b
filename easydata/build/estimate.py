"""What a build would make and take, judged by a sample."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from easydata.build.job import BuildJob
from easydata.build.task import NamedBlock
from easydata.format.alignment import ALIGNMENT
from easydata.format.arrays import count_values
from easydata.format.codecs import Codec
from easydata.format.stream import encode_batch
from easydata.sources import Block, Source

__all__ = ["BuildEstimate", "estimate"]

_MAX_SOURCES = 16
_BLOCK_BYTES = 64 << 10
_SAMPLE_BYTES = 256 << 10  # tokenized, of each source
_RATIO_BYTES = 4 << 20  # read, of each source, to see how well it is compressed
_PEEKED_ROWS = 1000
_SEGMENT_BYTES = 8  # of a token in the columns that tell documents apart


@dataclass(frozen=True)
class BuildEstimate:
    """What a build would make.

    Attributes:
        sources: files or objects.
        input_bytes: raw bytes of all of them, None where one does not know.
        rows: about how many rows; None without `input_bytes`.
        tokens: about how many tokens; None without `input_bytes`.
        samples: about how many samples, with little padding; None without `input_bytes`, or where
            documents are kept as they are.
        output_bytes: about how large the shards are, of samples and of the documents that they
            are made of; None without `input_bytes`.
        seconds: about how long it takes with `workers` workers; None without `input_bytes`.
        workers: worker processes.
        sampled_rows: how many rows the estimate rests on.
    """

    sources: int
    input_bytes: int | None
    rows: int | None
    tokens: int | None
    samples: int | None
    output_bytes: int | None
    seconds: float | None
    workers: int
    sampled_rows: int


def estimate(job: BuildJob, workers: int) -> BuildEstimate:
    """Tokenize the head of some sources and scale by size; nothing is written.

    Raises:
        EasyDataError: as the build would, for what is in the sample.
    """
    samples = job.options.samples
    rows = tokens = encoded = 0
    raw_bytes = seconds = 0.0
    # Parquet pages are about as large as IPC bodies of the same kind.
    codec = Codec("zstd") if job.options.codec.name == "gzip" else job.options.codec
    for source in _spread(job.sources):
        for block, raw in _head(source, job.task.fields.names):
            begin = time.perf_counter()
            result = job.task([NamedBlock(source.name, block)])
            seconds += time.perf_counter() - begin
            raw_bytes += raw
            for batch in result.batches:
                rows += batch.num_rows
                tokens += count_values(batch.column(0))
                encoded += sum(map(len, encode_batch(batch, codec))) - ALIGNMENT
                if samples is not None:
                    encoded += batch.nbytes
                    if samples.segment_ids and codec.is_zero_copy:
                        encoded += count_values(batch.column(0)) * _SEGMENT_BYTES
    sizes = [source.nbytes for source in job.sources]
    known = [size for size in sizes if size is not None]
    total = sum(known) if len(known) == len(sizes) else None
    if total is None or not raw_bytes:
        return BuildEstimate(len(sizes), total, None, None, None, None, None, workers, rows)
    scale = total / raw_bytes
    if job.options.limit is not None and rows:
        scale = min(scale, job.options.limit / rows)
    return BuildEstimate(
        sources=len(sizes),
        input_bytes=total,
        rows=round(rows * scale),
        tokens=round(tokens * scale),
        samples=None if samples is None else round(tokens * scale / samples.seq_len),
        output_bytes=round(encoded * scale),
        seconds=seconds * scale / workers,
        workers=workers,
        sampled_rows=rows,
    )


def _spread(sources: Sequence[Source]) -> Sequence[Source]:
    """At most _MAX_SOURCES of them, evenly spaced."""
    step = -(-len(sources) // _MAX_SOURCES)
    return sources[::step]


def _head(source: Source, field_names: Sequence[str] | None) -> Iterator[tuple[Block, float]]:
    """The first blocks of a source, and about how many of its raw bytes each stands for."""
    if not source.is_file:
        # Opening an iterator would use it up; peeking does not.
        for block in source.peek(field_names, _PEEKED_ROWS):
            yield block, float(block.nbytes)
        return
    sample: list[Block] = []
    read = 0
    with source.open(field_names, _BLOCK_BYTES) as reader:
        for block in reader:
            if read < _SAMPLE_BYTES:
                sample.append(block)
            read += block.nbytes
            if read >= _RATIO_BYTES:
                raw = reader.bytes_read
                break
        else:
            raw = source.nbytes or read
    # A reader is some buffers ahead of its blocks: what is not compressed is not expanded either.
    ratio = min(1.0, raw / read) if read else 1.0
    for block in sample:
        yield block, block.nbytes * ratio
