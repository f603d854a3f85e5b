"""The flow of a build: sources → parts → tasks → finished parts → shards → a dataset."""

from __future__ import annotations

import logging
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from easydata.build.assemble import ShardAssembler
from easydata.build.existing import Existing
from easydata.build.job import BuildJob, Outcome
from easydata.build.making import PartMaker
from easydata.build.parts import Part, block_bytes_for, cut_parts
from easydata.build.progress import Meter, Progress
from easydata.build.publish import commit, prepare
from easydata.build.reading import SourceStream
from easydata.build.store import PartStore, StoredPart, StoredSpan
from easydata.build.task import NamedBlock
from easydata.engine import Engine
from easydata.errors import OutputExistsError, SourceError
from easydata.fingerprint import fingerprint_strings
from easydata.format.arrays import count_values
from easydata.format.features import HUGGINGFACE_KEY, huggingface_metadata
from easydata.format.ledger import METADATA_KEY, SpanEntry
from easydata.metadata import CacheMetadata

__all__ = ["other_rows", "run_build"]

_log = logging.getLogger("easydata")
_BAD_ROWS_SHOWN = 10


@dataclass
class _Pending:
    """A part that is not handed on yet: found, or being made."""

    part: Part
    stored: list[StoredPart] | None
    maker: PartMaker
    tasks_left: int = 0
    is_complete: bool = False


def run_build(
    job: BuildJob,
    work: Path,
    engine: Engine,
    progress: Progress,
    existing: Existing | None,
    *,
    reuse: Sequence[Existing],
    request: str | None,
    only_reuse: bool,
) -> Outcome:
    """Build and publish.

    Args:
        job: what to build.
        work: where finished parts and shards lie until the dataset is published.
        engine: where to tokenize.
        progress: told how far it is.
        existing: a complete dataset at the same place.
        reuse: datasets whose parts may be taken over.
        request: identity of the call, for the ledger.
        only_reuse: refuse when a part is not in `existing`.

    Raises:
        OutputExistsError: `only_reuse`, and the sources give other parts than before.
        SourceError: there is not one row.
    """
    build = _Build(job, work, progress, existing, reuse=reuse, only_reuse=only_reuse)
    outcome = build.run(engine)
    if only_reuse and existing is not None and build.keys != existing.part_keys:
        raise OutputExistsError(other_rows(job))
    if not outcome.rows:
        shutil.rmtree(work)  # there is nothing to continue from
        raise SourceError(_no_rows(job, outcome))
    prepared = [
        prepare(
            job.out / split if split is not None else job.out,
            build.assemblers[split],
            schema=job.task.schema,
            split=split,
            sources=build.stream.entries(),
            metadata={
                "token_column": job.task.schema.names[0],
                "shard_format": job.options.shard_format,
                "compression": str(job.options.codec),
                "recipe": dict(job.recipe.values),
                "command": job.command,
                "split": split,
                "tokenizer": dict(job.tokenizer),
                "transform": job.transform and job.transform.to_json(),
                "request": request,
                "versions": job.versions,
                **({"within_samples": True} if job.is_within_samples else {}),
            },
            cache=CacheMetadata(
                source_hash=fingerprint_strings(build.keys),
                tokenizer_hash=job.tokenizer["fingerprint"],
                transform_hash=job.transform_hash,
                config_hash=job.recipe.fingerprint,
            ),
            tokenizer_files=job.tokenizer_files,
        )
        for split in job.options.split_names
    ]
    old = list(existing.folders.values()) if existing else []
    commit(job.out, prepared, old, has_documents=False)
    return outcome


class _Build:
    """The state of one run."""

    def __init__(
        self,
        job: BuildJob,
        work: Path,
        progress: Progress,
        existing: Existing | None,
        *,
        reuse: Sequence[Existing],
        only_reuse: bool,
    ) -> None:
        options = job.options
        self._job = job
        self._only_reuse = only_reuse
        self._known_keys = set(existing.part_keys) if existing else set()
        self._pending: deque[_Pending] = deque()
        self._task_bytes: deque[int] = deque()
        self._outcome = Outcome()
        self._bad_shown = 0
        self.keys: list[str] = []
        self.stream = SourceStream(
            job.sources,
            job.task.fields.names,
            block_bytes_for(options.window),
            options.limit,
        )
        self._meter = Meter(progress, self.stream.bytes_total)
        is_parquet = options.shard_format == "parquet"
        self._stores = {
            split: PartStore(work / (split or "."), options.part_codec, keep_loose=is_parquet)
            for split in options.split_names
        }
        for other in reuse:
            # Encoded batches cannot be taken out of a Parquet file.
            if (
                other.folders.keys() == self._stores.keys()
                and other.metadata["shard_format"] == "ipc"
            ):
                for split, store in self._stores.items():
                    store.index_dataset(other.folders[split], other.ledgers[split])
        self.assemblers = {
            split: ShardAssembler(
                store,
                job.task.schema,
                self._header,
                shard_format=options.shard_format,
                codec=options.codec,
                shard_size=options.shard_bytes,
            )
            for split, store in self._stores.items()
        }

    def run(self, engine: Engine) -> Outcome:
        """Read, tokenize what is not there yet, and write all shards."""
        for result in engine.map(self._job.task, self._tasks()):
            pending = next(p for p in self._pending if p.stored is None and p.tasks_left)
            pending.maker.results.append(result)
            pending.tasks_left -= 1
            self._meter.add(
                self._task_bytes.popleft(),
                sum(batch.num_rows for batch in result.batches),
                sum(count_values(batch.column(0)) for batch in result.batches),
                raw_share=self.stream.raw_share,
            )
            self._show_bad(result.bad)
            self._drain()
        self._drain()
        for assembler in self.assemblers.values():
            assembler.finish()
        if self._bad_shown:
            _log.warning("%d broken rows were left out.", self._outcome.skipped)
        return self._outcome

    def _tasks(self) -> Iterator[list[NamedBlock]]:
        """The tasks of every part that is not finished yet; all parts go to `_pending`."""
        part_recipe = self._job.recipe.part_fingerprint
        names = [source.name for source in self._job.sources]
        for part in cut_parts(self.stream, self._job.options.window, part_recipe):
            stored = self._find(part.key)
            pending = _Pending(part, stored, PartMaker(part, {} if stored else self._reused(part)))
            self._pending.append(pending)
            if stored is None:
                # A part that is known may still have to be made again, as those of Parquet.
                if self._only_reuse and part.key not in self._known_keys:
                    raise OutputExistsError(other_rows(self._job))
                for task in pending.maker.tasks(names):
                    pending.tasks_left += 1
                    self._task_bytes.append(sum(item.block.nbytes for item in task))
                    yield task
            self._show_reused(pending)
            pending.is_complete = True
            self._drain()

    def _reused(self, part: Part) -> dict[int, list[StoredSpan]]:
        """The spans of a part whose rows were made before, as small files beside a changed one."""
        if self._job.options.padding == "longest":
            return {}  # a row's padding depends on its neighbours
        schema = self._job.task.schema
        found = {}
        for number, span in enumerate(part.spans):
            stored = [store.find_span(span.key, schema) for store in self._stores.values()]
            spans = [item for item in stored if item is not None and self._is_good(item.entry)]
            if len(spans) == len(stored):
                found[number] = spans
        return found

    def _is_good(self, span: SpanEntry) -> bool:
        # What was made with on_error="skip" raises when it is made again.
        return self._job.options.skip_bad or not span.skipped

    def _show_reused(self, pending: _Pending) -> None:
        """Count what need not be tokenized as done."""
        part, reused = pending.part, pending.maker.reused
        if pending.stored is not None:
            content = sum(span.block.nbytes for span in part.spans)
            rows = sum(found.rows for found in pending.stored)
            tokens = sum(found.tokens for found in pending.stored)
        elif reused:
            content = sum(part.spans[number].block.nbytes for number in reused)
            rows = pending.maker.rows_reused
            tokens = sum(span.tokens for spans in reused.values() for span in spans)
        else:
            return
        self._meter.add(content, rows, tokens, raw_share=self.stream.raw_share)

    def _find(self, key: str) -> list[StoredPart] | None:
        found = [store.find(key) for store in self._stores.values()]
        parts = [part for part in found if part is not None]
        if not all(self._is_good(span) for part in parts for span in part.entry.spans):
            return None
        return parts if len(parts) == len(found) else None

    def _drain(self) -> None:
        """Hand on the parts at the front that have all their results."""
        while self._pending:
            pending = self._pending[0]
            if not pending.is_complete or pending.tasks_left:
                return
            stored = pending.stored or self._store(pending.maker)
            self._outcome.reused += pending.stored is not None
            self._outcome.rows_reused += pending.maker.rows_reused
            self._pending.popleft()
            self._hand_on(pending.part, stored)

    def _hand_on(self, part: Part, stored: Sequence[StoredPart]) -> None:
        self.keys.append(part.key)
        outcome = self._outcome
        outcome.parts += 1
        for span in stored[0].entry.spans:  # counts are of all splits
            outcome.skipped += span.skipped
            outcome.short += span.short
            outcome.truncated += span.truncated
        if self._job.task.fields.transform is not None:
            spans = stored[0].entry.spans
            good = sum(span.records - span.skipped - span.short for span in spans)
            outcome.dropped += good - sum(found.rows for found in stored)
        for assembler, found in zip(self.assemblers.values(), stored, strict=True):
            assembler.add(found.at([(span.source, span.block.first_record) for span in part.spans]))
            outcome.rows += found.rows
            outcome.tokens += found.tokens

    def _store(self, maker: PartMaker) -> list[StoredPart]:
        """Write the part of each split."""
        stored = []
        for split, store in enumerate(self._stores.values()):
            entry = maker.entry(split)
            row_bytes = maker.row_bytes(entry)
            batches = maker.batches(split)
            stored.append(store.add(entry, self._job.task.schema, batches, row_bytes))
        return stored

    def _header(self, keys: Sequence[str], rows: int) -> dict[bytes, bytes]:
        """Schema metadata of a shard: only what follows from its content."""
        source_hash = fingerprint_strings(keys)
        cache = CacheMetadata(
            source_hash=source_hash,
            tokenizer_hash=self._job.tokenizer["fingerprint"],
            transform_hash=self._job.transform_hash,
            config_hash=self._job.recipe.fingerprint,
            num_examples=rows,
        )
        features = huggingface_metadata(self._job.task.schema, source_hash[:16], self._job.features)
        return {
            HUGGINGFACE_KEY: features,
            METADATA_KEY: cache.to_json(content_only=True).encode(),
        }

    def _show_bad(self, messages: Sequence[str]) -> None:
        for message in messages:
            if self._bad_shown < _BAD_ROWS_SHOWN:
                _log.warning("Left out: %s", message)
            self._bad_shown += 1


def other_rows(job: BuildJob) -> str:
    """Why a dataset is not replaced that was made from sources without an identity."""
    return (
        f"{job.out} holds a dataset of other rows. Pass --overwrite to replace it, or choose "
        "another folder with --out."
    )


def _no_rows(job: BuildJob, outcome: Outcome) -> str:
    names = ", ".join(source.name for source in job.sources[:3])
    why = "the input is empty"
    if outcome.skipped or outcome.short or outcome.dropped:
        why = f"{outcome.skipped} records are broken and {outcome.short} rows are too short"
        if outcome.dropped:
            why = f"the transform left out {outcome.dropped} rows, {why}"
    return f"{names} gives not one row: {why}. There is nothing to build."
