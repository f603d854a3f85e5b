"""What a build is given, resolved, and what it reports."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from easydata.build.options import BuildOptions, Recipe
from easydata.build.task import BuildTask
from easydata.fingerprint import FunctionIdentity, fingerprint_json
from easydata.sources import Source

__all__ = ["BuildJob", "Outcome", "SampleCounts"]


@dataclass(frozen=True)
class BuildJob:
    """Everything a build needs, resolved.

    Attributes:
        sources: what to read.
        out: the dataset directory, or that of all splits.
        options: the checked options.
        recipe: everything that shapes the result besides the sources' content.
        task: what is done to each block.
        features: HuggingFace features of kept fields that are richer than their types.
        tokenizer: what the ledger records about the tokenizer.
        tokenizer_files: what to store to load it again.
        transform: identity of the function that rows go through, if there is one.
        command: arguments of `easydata` that repeat the build, if it has such.
        is_within_samples: the documents are those that a dataset of samples is made of.
    """

    sources: Sequence[Source]
    out: Path
    options: BuildOptions
    recipe: Recipe
    task: BuildTask
    features: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    tokenizer_files: Mapping[str, bytes]
    transform: FunctionIdentity | None
    command: Sequence[str] | None
    is_within_samples: bool = False

    @property
    def transform_hash(self) -> str | None:
        """Identity of everything that is done to a row before its text is tokenized."""
        values = self.recipe.values
        done = [values[name] for name in ("transform", "rename_fields", "chat_template")]
        return fingerprint_json(done) if any(done) else None

    @property
    def versions(self) -> dict[str, str]:
        """Of what makes the dataset."""
        packages = ("easydata", "pyarrow", "tokenizers")
        return {"python": platform.python_version(), **{name: version(name) for name in packages}}


@dataclass
class Outcome:
    """What a build did.

    Attributes:
        parts: how many parts the result has.
        reused: how many of them were finished before.
        rows_reused: rows in the other parts that were made before.
        rows: rows in all splits.
        tokens: tokens in all splits.
        skipped: records left out because they are broken.
        dropped: rows left out by the transform.
        short: rows left out because they have too few tokens.
        truncated: rows cut to the maximal length.
        samples: what was made of the rows; None where the rows are documents.
    """

    parts: int = 0
    reused: int = 0
    rows_reused: int = 0
    rows: int = 0
    tokens: int = 0
    skipped: int = 0
    dropped: int = 0
    short: int = 0
    truncated: int = 0
    samples: SampleCounts | None = None


@dataclass(frozen=True)
class SampleCounts:
    """What packing did to documents.

    Attributes:
        num_samples: samples.
        num_documents: documents with at least one token.
        split_documents: documents that are in several pieces.
        padding_tokens: places in the samples that are padding.
        left_out_tokens: tokens at the end that fill no sample.
    """

    num_samples: int
    num_documents: int
    split_documents: int
    padding_tokens: int
    left_out_tokens: int

    def __add__(self, other: SampleCounts) -> SampleCounts:
        mine, others = vars(self), vars(other)
        return SampleCounts(**{name: mine[name] + others[name] for name in mine})
