"""What a call of `build` does: look at what is there, and build what is not."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from easydata._units import format_count
from easydata.build.estimate import BuildEstimate, estimate
from easydata.build.existing import Existing, find_documents, inspect_output
from easydata.build.job import BuildJob, Outcome, SampleCounts
from easydata.build.prepare import (
    Request,
    check_request,
    document_options,
    documents_job,
    prepare_job,
)
from easydata.build.progress import Progress, ProgressKind, make_progress
from easydata.build.request import request_fingerprint
from easydata.build.steps import Call, Replace, Step, build_step
from easydata.engine import Engine, ProcessEngine, SerialEngine, is_portable
from easydata.errors import UsageError

__all__ = ["WORKER_MODULES", "BuildReport", "Replace", "estimate_build", "run", "worker_count"]

_log = logging.getLogger("easydata")
WORKER_MODULES = ("easydata.build.task",)
"""What a worker process imports while this one prepares."""


@dataclass(frozen=True)
class BuildReport:
    """What a call of `build` did.

    Attributes:
        outcome: what was done; None if the dataset was there already and is up to date.
        summary: the same as one line.
        seconds: how long it took.
        reasons: why the dataset that was there had to be replaced; empty if there was none.
    """

    outcome: Outcome | None
    summary: str
    seconds: float
    reasons: Sequence[str] = field(default=())


def run(
    sources: Any,
    options: Mapping[str, Any],
    *,
    progress: ProgressKind,
    replace: Replace,
    engine: Engine | None = None,
    reuse: Sequence[Existing] = (),
) -> BuildReport:
    """Build, and report what was done.

    Args:
        sources: as for `build`.
        options: the other arguments of `build` that say what to make, by name.
        progress: as for `build`.
        replace: what to do with a dataset that is there.
        engine: where to tokenize; by default worker processes of this machine.
        reuse: other datasets whose parts may be taken over.
    """
    start = time.monotonic()
    with make_progress(progress) as shown:
        request = check_request(sources, options)
        identity = request_fingerprint(request, options)
        reasons: Sequence[str] = ()
        if replace in ("never", "changed") and _is_known(request, identity):
            outcome = None
        else:
            outcome, reasons = _prepare_and_build(
                request, options, identity, shown, replace=replace, engine=engine, reuse=reuse
            )
        line = f"{request.out} is up to date; nothing to do."
        if outcome is not None:
            line = _summary(request, outcome, time.monotonic() - start)
        shown.say(line)
    return BuildReport(outcome, line, time.monotonic() - start, reasons)


def estimate_build(sources: Any, options: Mapping[str, Any]) -> BuildEstimate:
    """What `build` would make of the same arguments; nothing is written.

    Raises:
        EasyDataError: as `build` would, for what is in the sample.
    """
    if isinstance(sources, Iterator):
        raise UsageError(
            "dry_run would use up the first rows of an iterator. Pass a list, a Dataset or files."
        )
    request = check_request(sources, options)
    job = prepare_job(request, options)
    return estimate(job, worker_count(request, job))


def _is_known(request: Request, identity: str | None) -> bool:
    """True if the very same call made what is there, of sources that have not changed since.

    Nothing has to be loaded to find that out. False says nothing.
    """
    if identity is None or not request.out.is_dir():
        return False
    existing = inspect_output(request.out, overwrite=True)
    return (
        existing is not None
        and existing.metadata.get("request") == identity
        and not existing.has_unfinished_work
        and existing.tells_all(request.sources)
        and not existing.changed_sources(request.sources, request.options.hash_fn)
    )


def _prepare_and_build(
    request: Request,
    options: Mapping[str, Any],
    identity: str | None,
    progress: Progress,
    *,
    replace: Replace,
    engine: Engine | None,
    reuse: Sequence[Existing],
) -> tuple[Outcome | None, Sequence[str]]:
    """As `build_step`."""
    out = request.out
    with ProcessEngine(request.workers, modules=WORKER_MODULES) as processes:
        is_free = inspect_output(out, overwrite=replace != "never") is None
        if engine is None and request.workers > 1 and is_free and find_documents(out) is None:
            processes.start()  # there is work to do: they import while this process prepares
        job = prepare_job(request, options)
        if request_fingerprint(request, options) != identity:
            identity = None  # the tokenizer's file changed: nobody knows which one was loaded
        step = Step(job, identity)
        if job.options.samples is not None:
            inner = document_options(options)
            inner_identity = identity and request_fingerprint(request, inner)
            documents = documents_job(job, request.given, inner)
            step = Step(job, identity, Step(documents, inner_identity))
        call = Call(
            replace, progress, lambda: engine or _local_engine(request, job, processes), reuse
        )
        return build_step(step, call)


def _local_engine(request: Request, job: BuildJob, processes: ProcessEngine) -> Engine:
    return processes if worker_count(request, job) > 1 else SerialEngine()


def worker_count(request: Request, job: BuildJob) -> int:
    """How many workers the job shall have on this machine; one is this process itself."""
    if request.is_fixed or request.workers == 1 or is_portable(job.task):
        return request.workers
    _log.warning(
        "The tokenizer or the transform is code of the script itself, which worker processes "
        "cannot import: it runs in this process. Move it to a module to use all cores."
    )
    return 1


def _summary(request: Request, outcome: Outcome, seconds: float) -> str:
    rows = f"{format_count(outcome.rows)} rows, {format_count(outcome.tokens)} tokens"
    if outcome.samples is not None:
        rows = f"{_of_samples(request, outcome.samples)} of {rows}"
    parts = [f"{request.out}: {rows} in {seconds:.1f} s"]
    if outcome.reused:
        parts.append(f"{outcome.reused} of {outcome.parts} parts reused")
    if outcome.rows_reused:
        parts.append(f"{format_count(outcome.rows_reused)} rows taken over")
    if outcome.skipped:
        parts.append(f"{format_count(outcome.skipped)} broken rows left out")
    if outcome.dropped:
        parts.append(f"{format_count(outcome.dropped)} rows left out by the transform")
    if outcome.short:
        parts.append(f"{format_count(outcome.short)} short rows left out")
    if outcome.truncated:
        parts.append(f"{format_count(outcome.truncated)} rows truncated")
    if outcome.samples is not None and outcome.samples.left_out_tokens:
        parts.append(f"{format_count(outcome.samples.left_out_tokens)} tokens left out at the end")
    return ", ".join(parts) + "."


def _of_samples(request: Request, made: SampleCounts) -> str:
    options = request.options.samples
    assert options is not None
    share = 1 - made.padding_tokens / (made.num_samples * options.seq_len)
    return (
        f"{format_count(made.num_samples)} samples of {options.seq_len:,} tokens "
        f"({options.pack}, {share:.1%} full)"
    )
