"""A build that writes nothing: the rows of a job as record batches, made while they are read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, closing

import pyarrow as pa

from easydata.build.job import BuildJob
from easydata.build.making import split_tasks
from easydata.build.parts import block_bytes_for, cut_parts
from easydata.build.prepare import Request
from easydata.build.reading import SourceStream
from easydata.build.run import WORKER_MODULES, worker_count
from easydata.build.task import NamedBlock
from easydata.engine import Engine, ProcessEngine, SerialEngine
from easydata.errors import SourceError, UsageError

__all__ = ["local_engine", "stream_batches"]

_log = logging.getLogger("easydata")
# Less than a build puts in a task: the first rows should come soon.
_TASK_BYTES = 128 << 10
_BAD_ROWS_SHOWN = 10


def stream_batches(
    job: BuildJob, engine: Callable[[], AbstractContextManager[Engine]]
) -> Generator[pa.RecordBatch, None, None]:
    """The rows that a build of the same job would store, in the same order.

    Closing the iterator, or dropping it, ends the engine and closes the files. A bounded number
    of blocks is held at any time.

    Args:
        job: what to make; where it would be written does not matter.
        engine: gives the engine of one iteration.

    Yields:
        Batches of `job.task.schema` with at least one row, of any length.

    Raises:
        UsageError: the job has splits.
        EasyDataError: as `build`, when the row is reached; also if there is not one row.
    """
    if job.options.splits:
        raise UsageError(
            f"splits is {dict(job.options.splits)}, but a stream has one split; leave it out, or "
            "build a dataset."
        )
    return _batches(job, engine)


def local_engine(job: BuildJob, request: Request) -> Callable[[], AbstractContextManager[Engine]]:
    """Gives what `build` would run the job on, on this machine, where nothing else is asked for."""
    workers = worker_count(request, job)
    if workers == 1:
        return SerialEngine
    return lambda: ProcessEngine(workers, modules=WORKER_MODULES)


def _batches(
    job: BuildJob, engine: Callable[[], AbstractContextManager[Engine]]
) -> Generator[pa.RecordBatch, None, None]:
    is_empty, skipped = True, 0
    with closing(_tasks(job)) as tasks, engine() as running:
        for result in running.map(job.task, tasks):
            for message in result.bad[: max(_BAD_ROWS_SHOWN - skipped, 0)]:
                _log.warning("Left out: %s", message)
            skipped += len(result.bad)
            (batch,) = result.batches
            if batch.num_rows:
                is_empty = False
                yield batch
    if skipped:
        _log.warning("%d broken rows were left out.", skipped)
    if is_empty:
        names = ", ".join(source.name for source in job.sources[:3])
        raise SourceError(
            f"{names} gives not one row: the input is empty, or all of its rows are left out."
        )


def _tasks(job: BuildJob) -> Generator[list[NamedBlock], None, None]:
    names = [source.name for source in job.sources]
    options = job.options
    by_parts = options.padding == "longest"
    block_bytes = block_bytes_for(options.window) if by_parts else _TASK_BYTES
    stream = SourceStream(job.sources, job.task.fields.names, block_bytes, options.limit)
    if by_parts:
        # How long a row becomes depends on those that share its task, which parts decide.
        for part in cut_parts(stream, options.window, job.recipe.part_fingerprint):
            for numbered in split_tasks(list(enumerate(part.spans)), names):
                yield [block for _, block in numbered]
        return
    task: list[NamedBlock] = []  # small files share one
    for name, source in zip(names, stream, strict=False):  # a limit may leave some out
        for block in source.blocks:
            if block.num_records:
                task.append(NamedBlock(name, block))
            if sum(item.block.nbytes for item in task) >= _TASK_BYTES // 2:
                yield task
                task = []
    if task:
        yield task
