"""Documents packed into samples of one length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.loader._checks import check_lengths, check_numbers, check_pad_token_id, has_all
from easydata.loader.located_tokens import LocatedTokens, SamplePieces, array_names
from easydata.loader.packing_plan import PackingPlan, check_strategy, plan_packing
from easydata.loader.protocols import Arrays, DocumentSource, SampleSource, TokenSource
from easydata.loader.ranges import ranges, totals
from easydata.loader.rows import fill_rows
from easydata.loader.samples import ConcatSamples, tokens_identity

__all__ = ["PackedSamples", "PackingStats", "pack"]


@dataclass(frozen=True)
class PackingStats:
    """What packing did to the documents.

    Attributes:
        num_documents: documents with at least one token.
        num_split_documents: documents that are more than one piece.
        num_pieces: pieces of documents in all samples.
        num_tokens: tokens in all samples.
        padding_tokens: places in the samples that are padding.
        utilisation: share of the places that are tokens.
    """

    num_documents: int
    num_split_documents: int
    num_pieces: int
    num_tokens: int
    padding_tokens: int
    utilisation: float


class PackedSamples:
    """Samples put together from pieces of documents as a plan says."""

    def __init__(
        self,
        source: TokenSource,
        plan: PackingPlan,
        *,
        pad_token_id: int | None,
        include_segment_ids: bool = True,
        include_document_ids: bool = False,
        fingerprint: str | None = None,
    ) -> None:
        """
        Args:
            source: where the tokens come from; with `lengths` for `document_ids`.
            plan: made by `plan_packing` from the lengths of the documents of this source.
            pad_token_id: fills what no piece fills; None if the plan has no padding.
            include_segment_ids: give `segment_ids` and `positions`.
            include_document_ids: give `document_ids`.
            fingerprint: identity of the tokens; None takes that of the source.

        Raises:
            UsageError: the plan was made for another number of tokens, or has padding and there
                is no pad id, or the pad id is no token id of this source.
        """
        if not isinstance(plan, PackingPlan):
            raise UsageError(f"the plan is a {type(plan).__name__}; make one with plan_packing.")
        if plan.num_tokens != source.num_tokens:
            raise UsageError(
                f"the packing plan is for {plan.num_tokens} tokens, but there are "
                f"{source.num_tokens}; make a new plan from the lengths of these documents."
            )
        if pad_token_id is not None:
            pad_token_id = check_pad_token_id(pad_token_id, source.dtype)
        elif plan.padding:
            raise UsageError(
                f"packing with {plan.strategy!r} leaves {plan.padding} places to be padded, but "
                "there is no pad_token_id; give one, or pack with 'concat'."
            )
        self.plan = plan
        self._source = source
        self._pad_token_id = pad_token_id
        self._names = array_names(
            segment_ids=include_segment_ids, document_ids=include_document_ids, loss_mask=True
        )
        self._tokens_identity = tokens_identity(source, fingerprint)

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return self.plan.num_samples

    @property
    def seq_len(self) -> int:
        """Tokens in a sample, padding included."""
        return self.plan.seq_len

    @property
    def stats(self) -> PackingStats:
        """What was split and padded."""
        plan = self.plan
        return PackingStats(
            num_documents=plan.num_documents,
            num_split_documents=plan.num_split_documents,
            num_pieces=plan.num_pieces,
            num_tokens=plan.num_tokens,
            padding_tokens=plan.padding,
            utilisation=plan.num_tokens / (plan.num_samples * plan.seq_len),
        )

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the tokens, the plan, the pad id and the arrays that `read` gives."""
        return fingerprint_json(
            {**self.description, "include_segment_ids": "segment_ids" in self._names}
        )

    @property
    def description(self) -> dict[str, Any]:
        """What the samples follow from, in JSON values."""
        return {
            "tokens": self._tokens_identity,
            "packing": self.plan.strategy,
            "plan": self.plan.fingerprint,
            "seq_len": self.seq_len,
            "pad_token_id": self._pad_token_id,
        }

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of `input_ids`."""
        return self._source.dtype

    @property
    def is_mapped(self) -> bool:
        """Whether reading needs no decoding."""
        return bool(getattr(self._source, "is_mapped", True))

    def read(self, samples: npt.NDArray[np.int64]) -> Arrays:
        """Samples by number; see `SampleSource.read`. `loss_mask` is always there."""
        return self.locate(samples).read(0, len(samples))

    def locate(self, samples: npt.NDArray[np.int64]) -> LocatedTokens:
        """See `LocatedSamples`."""
        check_numbers(samples, self.num_samples, "sample")
        plan = self.plan
        first = plan.first_piece[samples]
        counts = plan.first_piece[samples + 1] - first
        pieces = ranges(first, counts)
        starts, lengths = plan.starts[pieces], plan.lengths[pieces].astype(np.int64)
        used = totals(lengths, counts)
        if len(used) and used.max() > plan.seq_len:
            raise UsageError(
                f"sample {samples[used.argmax()]} of the packing plan has {used.max()} tokens, but "
                f"its seq_len is {plan.seq_len}; make the plan again with plan_packing."
            )
        rows = fill_rows(
            self._source.locate(starts, lengths),
            counts,
            num_items=plan.seq_len,
            dtype=self._source.dtype,
            pad_token_id=self._pad_token_id,
        )
        documents = None
        if "document_ids" in self._names:
            ends, numbers = self._documents
            # A piece without tokens is of no document; it may lie where the stream ends.
            documents = numbers.take(ends.searchsorted(starts, side="right"), mode="clip")
        pieces_of_samples = SamplePieces(np.append(0, counts.cumsum()), lengths, documents)
        return LocatedTokens(rows, pieces_of_samples, self._names)

    @cached_property
    def _documents(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where each document ends that has a token, and its number."""
        lengths = check_lengths(cast("DocumentSource", self._source).lengths())
        if lengths.sum() != self.plan.num_tokens:
            raise UsageError(
                f"the lengths of the documents add up to {lengths.sum()}, but there are "
                f"{self.plan.num_tokens} tokens; give the length of every document."
            )
        numbers = np.flatnonzero(lengths)
        return lengths[numbers].cumsum(), numbers


def pack(
    source: DocumentSource,
    seq_len: int,
    strategy: str = "greedy",
    *,
    pad_token_id: int | None = None,
    num_packers: int = 4,
    include_segment_ids: bool = True,
    include_document_ids: bool = False,
) -> SampleSource:
    """Pack the documents of a source into samples.

    Args:
        source: the tokens and the lengths of the documents.
        seq_len: tokens in a sample.
        strategy: see `plan_packing`. "concat" needs no plan, and without a pad id it leaves out
            what fills no sample at the end; the others leave out nothing. A plan is stored beside
            the data, if they have a `path`.
        pad_token_id: fills what no token fills. None takes that of the source's tokenizer for the
            strategies that pad.
        num_packers: open samples of "pool".
        include_segment_ids: give `segment_ids` and `positions`.
        include_document_ids: give `document_ids`, int64[n, seq_len]: the number of the document
            in the source, -1 in padding.

    Raises:
        UsageError: the source has no documents, an argument is out of range, there is nothing to
            pack, or padding is needed and there is no pad id.
    """
    check_strategy(strategy)
    wants_documents = include_segment_ids or include_document_ids
    needed = ("lengths",) if wants_documents or strategy != "concat" else ()
    if not has_all(source, "num_tokens", "dtype", "locate", *needed):
        raise UsageError(
            f"a {type(source).__name__} is no source of documents; give a dataset as open_dataset "
            "opens it, or another stream of tokens that has `lengths`."
        )
    includes: dict[str, Any] = {
        "include_segment_ids": include_segment_ids,
        "include_document_ids": include_document_ids,
    }
    if strategy == "concat":
        lengths = source.lengths() if wants_documents else None
        return ConcatSamples(
            source, seq_len, pad_token_id=pad_token_id, lengths=lengths, **includes
        )
    if pad_token_id is None:
        pad_token_id = getattr(source, "pad_token_id", None)
    plan = _plan(source, seq_len, strategy, num_packers)
    return PackedSamples(source, plan, pad_token_id=pad_token_id, **includes)


def _plan(source: DocumentSource, seq_len: int, strategy: str, num_packers: int) -> PackingPlan:
    """The plan that is stored beside the data, if they lie in a folder."""
    folder = getattr(source, "path", None)
    if isinstance(folder, Path) and source.fingerprint:
        from easydata.loader.plan_store import stored_plan

        return stored_plan(
            folder, source.fingerprint, source.lengths, seq_len, strategy, num_packers=num_packers
        )
    return plan_packing(source.lengths(), seq_len, strategy, num_packers=num_packers)
