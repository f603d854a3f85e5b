"""From what a user passes to a job, and from a job to a dataset."""

from __future__ import annotations

import inspect
import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from easydata._units import format_count
from easydata.build.builder import BuildJob, Outcome, run_build
from easydata.build.command import command_of
from easydata.build.estimate import BuildEstimate, estimate
from easydata.build.existing import inspect_output
from easydata.build.options import available_cores, check_options, make_recipe
from easydata.build.progress import Progress, ProgressKind, make_progress
from easydata.build.task import BuildTask
from easydata.build.work import discard_work, work_folder
from easydata.engine import Engine, ProcessEngine, SerialEngine, is_portable
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
        job = _prepare_job(sources, options)
        if _is_up_to_date(job, overwrite=overwrite):
            discard_work(job.out, job.recipe.fingerprint)
            outcome = None
        else:
            with work_folder(job.out, job.recipe.fingerprint) as work:
                outcome = _build(job, work, shown, options["workers"], overwrite=overwrite)
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
    job: BuildJob, work: Path, progress: Progress, workers: int | None, *, overwrite: bool
) -> Outcome | None:
    # Another build may have finished since the first look, while this one waited for the lock.
    if _is_up_to_date(job, overwrite=overwrite):
        return None
    existing = inspect_output(job.out, overwrite=overwrite)
    only_reuse = existing is not None and not overwrite
    with _make_engine(job, workers) as engine:
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
    job = _prepare_job(sources, options)
    return estimate(job, _worker_count(job, options["workers"]))


def _prepare_job(sources: Any, options: Mapping[str, Any]) -> BuildJob:
    """Check all arguments, find the sources, load the tokenizer, agree on types.

    Raises:
        EasyDataError: the first thing that is wrong; nothing was written.
    """
    checked = check_options(**{name: options[name] for name in _CHECKED})
    out = _local_path(options["out"])
    found = find_sources(
        sources,
        type=options["type"],
        storage_options=options["storage_options"],
        text_rows=options["text_rows"],
    )
    _refuse_own_output(out, sources, found)
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
        out=out,
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
        command=command_of(sources if isinstance(sources, list | tuple) else [sources], options),
    )


def _rich_features(sources: Sequence[Source], keep: Sequence[str]) -> dict[str, Any]:
    """Features that the first source which declares any gives to kept fields."""
    if keep:
        for source in sources:
            if source.features:
                return {name: source.features[name] for name in keep if name in source.features}
    return {}


def _refuse_own_output(out: Path, sources: Any, found: Sequence[Source]) -> None:
    """A dataset must not become part of its own input when it is built again."""
    given = sources if isinstance(sources, list | tuple) else [sources]
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


def _make_engine(job: BuildJob, workers: int | None) -> Engine:
    count = _worker_count(job, workers)
    return SerialEngine() if count == 1 else ProcessEngine(count)


def _worker_count(job: BuildJob, workers: int | None) -> int:
    if workers is not None:
        return workers
    if not is_portable(job.task):
        _log.warning(
            "The tokenizer is code of the script itself, which worker processes cannot import: "
            "it runs in this process. Move it to a module to use all cores."
        )
        return 1
    sizes = [source.nbytes for source in job.sources]
    if None not in sizes and sum(size or 0 for size in sizes) < _SMALL_BYTES:
        return 1
    return available_cores()


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
