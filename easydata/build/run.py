"""From what a user passes to a job, and from a job to a dataset."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from easydata._units import format_count
from easydata.build.builder import BuildJob, Outcome, run_build
from easydata.build.command import command_of
from easydata.build.estimate import BuildEstimate, estimate
from easydata.build.existing import inspect_output
from easydata.build.options import BuildOptions, available_cores, check_options, make_recipe
from easydata.build.progress import Progress, ProgressKind, make_progress
from easydata.build.publish import finish_commit
from easydata.build.task import BuildTask
from easydata.build.work import discard_work, work_folder
from easydata.engine import ProcessEngine, SerialEngine, is_portable
from easydata.errors import OutputExistsError, UsageError
from easydata.format.directory import TOKENS
from easydata.sources import Fields, Source, find_sources, infer_types
from easydata.stages import (
    TokenizeStage,
    choose_dtype,
    load_tokenizer,
    resolve_special,
)

__all__ = ["BuildReport", "estimate_build", "run"]

_log = logging.getLogger("easydata")
_CHECKED = tuple(inspect.signature(check_options).parameters)
_WORKER_MODULES = ("easydata.build.task",)
# Starting worker processes takes about as long as tokenizing this much in one thread.
_SMALL_BYTES = 2_000_000


@dataclass(frozen=True)
class BuildReport:
    """What a call of `build` did.

    Attributes:
        outcome: what was done; None if the dataset was there already and is up to date.
        summary: the same as one line.
        seconds: how long it took.
    """

    outcome: Outcome | None
    summary: str
    seconds: float


def run(
    sources: Any, options: Mapping[str, Any], *, progress: ProgressKind, overwrite: bool
) -> BuildReport:
    """Build, and report what was done.

    Args:
        sources: as for `build`.
        options: all other arguments of `build` by name.
        progress: as for `build`.
        overwrite: as for `build`.
    """
    start = time.monotonic()
    with make_progress(progress) as shown:
        request = _check(sources, options)
        with ProcessEngine(request.workers, modules=_WORKER_MODULES) as processes:
            if request.workers > 1 and not inspect_output(request.out, overwrite=overwrite):
                processes.start()  # there is work to do: they import while this process prepares
            job = _prepare_job(request, options)
            outcome = _build(request, job, processes, shown, overwrite=overwrite)
        line = f"{job.out} is up to date; nothing to do."
        if outcome is not None:
            line = _summary(job.out, outcome, time.monotonic() - start)
        shown.say(line)
        _log.info("%s", line)
    return BuildReport(outcome, line, time.monotonic() - start)


def _is_up_to_date(job: BuildJob, *, overwrite: bool) -> bool:
    """True if the dataset is surely there already.

    Raises:
        OutputExistsError: something else is there.
    """
    existing = inspect_output(job.out, overwrite=overwrite)
    if existing is None or overwrite:
        return False
    reasons = existing.reasons_to_rebuild(job.recipe, job.sources)
    if reasons:
        raise OutputExistsError(
            f"{job.out} holds another dataset: {'; '.join(reasons)}. "
            "Pass --overwrite to replace it, or choose another folder with --out."
        )
    return existing.tells_all(job.sources)


def _build(
    request: _Request,
    job: BuildJob,
    processes: ProcessEngine,
    progress: Progress,
    *,
    overwrite: bool,
) -> Outcome | None:
    """Build unless it is done already, which gives None."""
    if _is_up_to_date(job, overwrite=overwrite):
        discard_work(job.out, job.recipe.fingerprint, lambda: finish_commit(job.out))
        return None
    with work_folder(job.out, job.recipe.fingerprint) as work:
        # Another build may have finished while this one waited for the lock.
        if _is_up_to_date(job, overwrite=overwrite):
            return None
        existing = inspect_output(job.out, overwrite=overwrite)
        only_reuse = existing is not None and not overwrite
        engine = processes if _worker_count(request, job) > 1 else SerialEngine()
        return run_build(job, work, engine, progress, existing, only_reuse=only_reuse)


def estimate_build(sources: Any, options: Mapping[str, Any]) -> BuildEstimate:
    """What `build` would make of the same arguments; nothing is written.

    Raises:
        EasyDataError: as `build` would, for what is in the sample.
    """
    if isinstance(sources, Iterator):
        raise UsageError(
            "dry_run would use up the first rows of an iterator. Pass a list, a Dataset or files."
        )
    request = _check(sources, options)
    job = _prepare_job(request, options)
    return estimate(job, _worker_count(request, job))


class _Request(NamedTuple):
    """What was asked for, checked as far as it can be without the tokenizer.

    Attributes:
        given: the sources as they were passed.
        options: the checked options.
        out: where to build.
        sources: what to read.
        workers: how many processes shall tokenize; with one, this process does.
        is_fixed: this number was passed.
    """

    given: Sequence[Any]
    options: BuildOptions
    out: Path
    sources: Sequence[Source]
    workers: int
    is_fixed: bool


def _check(sources: Any, options: Mapping[str, Any]) -> _Request:
    """Check the arguments, find the sources.

    Raises:
        EasyDataError: the first thing that is wrong.
    """
    checked = check_options(**{name: options[name] for name in _CHECKED})
    out = _local_path(options["out"])
    found = find_sources(
        sources,
        type=options["type"],
        storage_options=options["storage_options"],
        text_rows=options["text_rows"],
    )
    given = sources if isinstance(sources, list | tuple) else [sources]
    _refuse_own_output(out, given, found)
    workers = options["workers"]
    return _Request(
        given, checked, out, found, workers or _default_workers(found), workers is not None
    )


def _prepare_job(request: _Request, options: Mapping[str, Any]) -> BuildJob:
    """Load the tokenizer, agree on types.

    Raises:
        EasyDataError: the first thing that is wrong; nothing was written.
    """
    checked, found = request.options, request.sources
    tokenizer = load_tokenizer(options["tokenizer"], parse_special=options["parse_special"] or None)
    for note in tokenizer.notes:
        _log.warning("%s", note)
    special = resolve_special(
        tokenizer,
        add_bos=options["add_bos"],
        add_eos=options["add_eos"],
        bos_token=options["bos_token"],
        eos_token=options["eos_token"],
    )
    dtype = choose_dtype(tokenizer.vocab_size, options["dtype"])
    keep = infer_types(found, checked.text_field, checked.keep_fields, options["schema"])
    recipe = make_recipe(
        checked,
        keep={name: str(kind) for name, kind in keep.items()},
        tokenizer=tokenizer.fingerprint,
        bos_id=special.bos_id,
        eos_id=special.eos_id,
        dtype=dtype.name,
        reading={"type": options["type"], "text_rows": options["text_rows"]},
    )
    stage = TokenizeStage(
        tokenizer.spec(),
        dtype.name,
        bos_id=special.bos_id,
        eos_id=special.eos_id,
        min_tokens=checked.min_tokens,
        max_length=checked.max_length,
    )
    columns = {TOKENS: pa.list_(pa.from_numpy_dtype(dtype)), **keep}
    return BuildJob(
        sources=found,
        out=request.out,
        options=checked,
        recipe=recipe,
        task=BuildTask(
            Fields(checked.text_field, keep),
            stage,
            pa.schema(columns),
            tuple(checked.splits.values()) if checked.splits else (1.0,),
            checked.skip_bad,
        ),
        features=_rich_features(found, list(keep)),
        tokenizer={
            "name": tokenizer.name,
            "fingerprint": tokenizer.fingerprint,
            "vocab_size": tokenizer.vocab_size,
            "bos_id": special.bos_id,
            "eos_id": special.eos_id,
        },
        tokenizer_files=tokenizer.files(),
        command=command_of(request.given, options),
    )


def _rich_features(sources: Sequence[Source], keep: Sequence[str]) -> dict[str, Any]:
    """Features that the first source which declares any gives to kept fields."""
    if keep:
        for source in sources:
            if source.features:
                return {name: source.features[name] for name in keep if name in source.features}
    return {}


def _refuse_own_output(out: Path, given: Sequence[Any], found: Sequence[Source]) -> None:
    """A dataset must not become part of its own input when it is built again."""
    inputs = [item for item in given if isinstance(item, str | os.PathLike)]
    folder = out.resolve()
    inside = [item for item in inputs if folder.is_relative_to(Path(item).resolve())]
    inside += [s.name for s in found if s.is_file and Path(s.name).resolve().is_relative_to(folder)]
    if inside:
        raise UsageError(
            f"out is {out}, which lies in the input {inside[0]} or holds it. "
            "Choose a folder apart from the input with --out."
        )


def _local_path(out: str | os.PathLike[str]) -> Path:
    text = os.fspath(out)
    if "://" in text:
        raise UsageError(
            f"out is {text!r}; a dataset is built on a local disk. Build it there, then copy it."
        )
    return Path(text)


def _default_workers(sources: Sequence[Source]) -> int:
    sizes = [source.nbytes for source in sources]
    if None not in sizes and sum(size or 0 for size in sizes) < _SMALL_BYTES:
        return 1
    return available_cores()


def _worker_count(request: _Request, job: BuildJob) -> int:
    if request.is_fixed or request.workers == 1 or is_portable(job.task):
        return request.workers
    _log.warning(
        "The tokenizer is code of the script itself, which worker processes cannot import: "
        "it runs in this process. Move it to a module to use all cores."
    )
    return 1


def _summary(out: Path, outcome: Outcome, seconds: float) -> str:
    parts = [
        f"{out}: {format_count(outcome.rows)} rows, {format_count(outcome.tokens)} tokens "
        f"in {seconds:.1f} s"
    ]
    if outcome.reused:
        parts.append(f"{outcome.reused} of {outcome.parts} parts reused")
    if outcome.skipped:
        parts.append(f"{format_count(outcome.skipped)} broken rows left out")
    if outcome.short:
        parts.append(f"{format_count(outcome.short)} short rows left out")
    if outcome.truncated:
        parts.append(f"{format_count(outcome.truncated)} rows truncated")
    return ", ".join(parts) + "."
