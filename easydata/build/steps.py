"""The steps of a call of `build`: documents, and samples of them where those are wanted.

A step looks at what is there, and makes what is not, under a lock.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from easydata.build.builder import other_rows, run_build
from easydata.build.existing import Existing, find_documents, inspect_output
from easydata.build.job import BuildJob, Outcome
from easydata.build.progress import Progress
from easydata.build.publish import finish_commit
from easydata.build.reasons import reasons_to_rebuild
from easydata.build.sample_options import DOCUMENTS
from easydata.build.samples import make_samples
from easydata.build.work import discard_work, work_folder
from easydata.dataset import open_dataset
from easydata.engine import Engine
from easydata.errors import OutputExistsError

__all__ = ["Call", "Replace", "Step", "build_step"]

Replace: TypeAlias = Literal["never", "changed", "always", "renew"]
"""What to do with a dataset that is there: refuse to replace one that was made from something
else; replace it; build again even if nothing changed, which mends damage; or do so and take over
none of its parts."""


@dataclass(frozen=True)
class Step:
    """One dataset to build.

    Attributes:
        job: what to build.
        identity: of the call that builds it, for the ledger.
        documents: the step before it, where it makes samples.
    """

    job: BuildJob
    identity: str | None
    documents: Step | None = None


@dataclass(frozen=True)
class Call:
    """What the steps of a call have in common.

    Attributes:
        replace: what to do with a dataset that is there.
        progress: told how far they are.
        engine: gives where to tokenize.
        reuse: other datasets whose parts may be taken over.
    """

    replace: Replace
    progress: Progress
    engine: Callable[[], Engine]
    reuse: Sequence[Existing]


def build_step(step: Step, call: Call) -> tuple[Outcome | None, Sequence[str]]:
    """Build unless it is done already, which gives None; and why what was there was no hit.

    Raises:
        OutputExistsError: something else is there, which must not be replaced.
    """
    job = step.job
    reasons = _look(job, call.replace)
    if reasons is None:
        discard_work(job.out, job.recipe.fingerprint, lambda: finish_commit(job.out))
        return None, ()
    with work_folder(job.out, job.recipe.fingerprint) as work:
        # Another build may have finished while this one waited for the lock.
        reasons = _look(job, call.replace)
        if reasons is None:
            return None, ()
        existing = inspect_output(job.out, overwrite=call.replace != "never")
        if existing is None and call.reuse:
            reasons = reasons_to_rebuild(call.reuse[0], job)
        if step.documents is None:
            return _make_documents(step, call, work, existing), reasons
        return _make_samples(step, step.documents, call, work, existing), reasons


def _look(job: BuildJob, replace: Replace) -> Sequence[str] | None:
    """None if the dataset is surely there already; else what makes another one of it, if known.

    Raises:
        OutputExistsError: something else is there, which must not be replaced.
    """
    existing = inspect_output(job.out, overwrite=replace != "never")
    if existing is None:
        return ()
    reasons = reasons_to_rebuild(existing, job)
    if replace in ("always", "renew"):
        return reasons
    if reasons and replace == "never":
        raise OutputExistsError(
            f"{job.out} holds another dataset: {'; '.join(reasons)}. "
            "Pass --overwrite to replace it, or choose another folder with --out."
        )
    return None if not reasons and existing.tells_all(job.sources) else reasons


def _make_documents(step: Step, call: Call, work: Path, existing: Existing | None) -> Outcome:
    job = step.job
    known = [existing, existing and existing.documents] if call.replace != "renew" else []
    if existing is not None and existing.metadata.get("within_samples"):
        job = dataclasses.replace(job, is_within_samples=True)  # as `easydata` repairs them
    return run_build(
        job,
        work,
        call.engine(),
        call.progress,
        existing,
        reuse=[*call.reuse, *(item for item in known if item is not None)],
        request=step.identity,
        only_reuse=existing is not None and call.replace == "never",
    )


def _make_samples(
    step: Step, before: Step, call: Call, work: Path, existing: Existing | None
) -> Outcome | None:
    job = step.job
    _refuse_other_documents(job.out, existing)
    if existing is not None and not existing.holds_samples and call.replace != "renew":
        call = dataclasses.replace(call, reuse=[*call.reuse, existing])
    outcome, _ = build_step(before, call)
    found = inspect_output(before.job.out, overwrite=False)
    assert found is not None
    if existing is not None and call.replace in ("never", "changed"):
        if existing.is_made_of(found) and not reasons_to_rebuild(existing, job):
            return None
        if call.replace == "never":
            raise OutputExistsError(other_rows(job))
    documents = {split: open_dataset(folder) for split, folder in found.folders.items()}
    outcome = outcome or Outcome(
        rows=sum(map(len, documents.values())),
        tokens=sum(dataset.num_tokens for dataset in documents.values()),
    )
    outcome.samples = make_samples(
        job, documents, work, call.progress, existing, request=step.identity
    )
    return outcome


def _refuse_other_documents(out: Path, existing: Existing | None) -> None:
    """A dataset that has nothing to do with this build must not go with `overwrite`."""
    if (existing is not None and existing.holds_samples) or find_documents(out) is not None:
        return
    found = inspect_output(out / DOCUMENTS, overwrite=True)
    if found is not None:
        raise OutputExistsError(
            f"{found.out} holds a dataset of its own, where the documents of these samples go. "
            "Choose another folder with --out."
        )
