"""The work done in worker processes: raw records in, columns of token ids out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from easydata.errors import BadRowError
from easydata.format.arrays import number_array
from easydata.sources import Block, Fields, Rows, parse_rows
from easydata.stages import RowTokenizeError, Tokenized, TokenizeStage

__all__ = ["MASK", "NOT_KEPT", "BuildTask", "Counts", "NamedBlock", "TaskResult"]

_REMEDY = "Repair the row, or leave such rows out with on_error='skip' (--on-error skip)."
MASK = "attention_mask"
NOT_KEPT = 255  # in TaskResult.splits: the record is a row of no split


class NamedBlock(NamedTuple):
    """Records, and the name of their source for messages."""

    source: str
    block: Block


class Counts(NamedTuple):
    """What became of records that are no rows as they were."""

    skipped: int
    short: int
    truncated: int


class TaskResult(NamedTuple):
    """What one task makes.

    Attributes:
        batches: for each split its rows, in order.
        splits: for each block uint8[records]: the split of each record, or NOT_KEPT.
        counts: for each block how many records were skipped because they are broken, how many
            rows left out because they have too few tokens, and how many cut to the maximal length.
        bad: messages about the broken records.
    """

    batches: list[pa.RecordBatch]
    splits: list[npt.NDArray[np.uint8]]
    counts: list[Counts]
    bad: list[str]


@dataclass(frozen=True)
class BuildTask:
    """Parses and tokenizes blocks. A pure function of its fields and its argument.

    Attributes:
        fields: which fields of a row are wanted.
        stage: the tokenizer and its options.
        schema: of the result: the token column, its mask if there is one, the kept fields.
        split_shares: shares of the splits; a row's split follows from its text alone.
        skip_bad: report broken records instead of raising.
    """

    fields: Fields
    stage: TokenizeStage
    schema: pa.Schema
    split_shares: tuple[float, ...]
    skip_bad: bool

    @property
    def releases_gil(self) -> bool:
        """Several calls may share a process; see `Engine.map`."""
        return self.stage.spec.releases_gil

    def __call__(self, blocks: Sequence[NamedBlock]) -> TaskResult:
        """Work on these blocks.

        Raises:
            BadRowError: a record is broken; names its source and line.
            TokenizerError: the tokenizer failed.
        """
        parsed = [parse_rows(block, self.fields) for _, block in blocks]
        found = [
            (f"{_where(name, block, item.record)}: {item.reason}", item.cause)
            for (name, block), rows in zip(blocks, parsed, strict=True)
            for item in rows.bad
        ]
        if found and not self.skip_bad:
            message, cause = found[0]
            raise BadRowError(f"{message}. {_REMEDY}") from cause
        bad = [message for message, _ in found]
        texts = [text for rows in parsed for text in rows.texts]
        tokenized, unfit = self._tokenize(texts)
        for row, reason in unfit.items():
            name, block, record = _find_row(blocks, parsed, row)
            bad.append(f"{_where(name, block, record)}: {reason}")
        if unfit and not self.skip_bad:
            raise BadRowError(f"{bad[0]}. {_REMEDY}")

        split_of_row = self._choose_splits(texts)
        split_of_row[~tokenized.keep] = NOT_KEPT
        columns = [tokenized.column()]
        if tokenized.mask is not None:
            columns.append(tokenized.mask_column())
        kept_columns = [
            pa.concat_arrays([rows.kept[name] for rows in parsed]).filter(
                number_array(tokenized.keep)
            )
            for name in self.fields.keep
        ]
        whole = pa.record_batch([*columns, *kept_columns], schema=self.schema)
        batches = [whole]
        if len(self.split_shares) > 1:
            splits = split_of_row[tokenized.keep]
            batches = [
                whole.filter(number_array(splits == index))
                for index in range(len(self.split_shares))
            ]

        by_block = []
        counts = []
        start = 0
        is_unfit = np.zeros(len(texts), np.bool_)
        is_unfit[list(unfit)] = True
        for (_, block), rows in zip(blocks, parsed, strict=True):
            splits_of_records = np.full(block.num_records, NOT_KEPT, np.uint8)
            here = slice(start, start + len(rows.texts))
            splits_of_records[rows.records] = split_of_row[here]
            by_block.append(splits_of_records)
            skipped = int(is_unfit[here].sum())
            short = len(rows.texts) - skipped - int(tokenized.keep[here].sum())
            cut = int(tokenized.cut[here].sum())
            counts.append(Counts(len(rows.bad) + skipped, short, cut))
            start = here.stop
        return TaskResult(batches, by_block, counts, bad)

    def _tokenize(self, texts: Sequence[str]) -> tuple[Tokenized, dict[int, str]]:
        """The tokens of all texts, and why some have none; these are not kept."""
        unfit: dict[int, str] = {}
        wanted = list(range(len(texts)))
        while True:
            try:
                tokenized = self.stage([texts[row] for row in wanted])
            except RowTokenizeError as error:
                unfit[wanted.pop(error.row)] = error.reason
                if not self.skip_bad:
                    wanted = []
            else:
                break
        if unfit:
            keep, cut = np.zeros((2, len(texts)), np.bool_)
            keep[wanted], cut[wanted] = tokenized.keep, tokenized.cut
            tokenized = replace(tokenized, keep=keep, cut=cut)
        return tokenized, unfit

    def _choose_splits(self, texts: Sequence[str]) -> npt.NDArray[np.uint8]:
        if len(self.split_shares) == 1:
            return np.zeros(len(texts), np.uint8)
        hashes = np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], np.uint64)
        total = sum(self.split_shares)
        borders = [int(share / total * 2**64) for share in accumulate(self.split_shares)][:-1]
        return np.searchsorted(np.array(borders, np.uint64), hashes, side="right").astype(np.uint8)


def _where(source: str, block: Block, record: int) -> str:
    place = block.locate(record)
    return f"{source}, {place}" if place else source


def _find_row(
    blocks: Sequence[NamedBlock], parsed: Sequence[Rows], row: int
) -> tuple[str, Block, int]:
    """The source, the block and the record in it that text `row` of the task came from."""
    for (name, block), rows in zip(blocks, parsed, strict=True):
        if row < len(rows.texts):
            return name, block, int(rows.records[row])
        row -= len(rows.texts)
    raise IndexError(row)
