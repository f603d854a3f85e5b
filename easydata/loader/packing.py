"""Documents packed into samples of one length."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.fingerprint import fingerprint_json
from easydata.loader._checks import check_numbers, check_pad_id, has_all
from easydata.loader.data_loader import TokenSource
from easydata.loader.packing_plan import PackingPlan, check_strategy, plan_packing
from easydata.loader.packing_segments import label_pieces, ranges
from easydata.loader.samples import ConcatSamples, SampleSource, tokens_identity

__all__ = ["DocumentSource", "PackedSamples", "PackingStats", "pack"]


class DocumentSource(TokenSource, Protocol):
    """A stream of tokens that knows where its documents end. `TokenDataset` is one."""

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[documents]: tokens in each document, in the order of the stream."""


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
        pad_id: int | None,
        include_segment_ids: bool = True,
        fingerprint: str | None = None,
    ) -> None:
        """
        Args:
            source: where the tokens come from.
            plan: made by `plan_packing` from the lengths of the documents of this source.
            pad_id: fills what no piece fills; None if the plan has no padding.
            include_segment_ids: give `segment_ids` and `positions`.
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
        if pad_id is not None:
            pad_id = check_pad_id(pad_id, source.dtype)
        elif plan.padding:
            raise UsageError(
                f"packing with {plan.strategy!r} leaves {plan.padding} places to be padded, but "
                "there is no pad_token_id; give one, or pack with 'concat'."
            )
        self.plan = plan
        self._source = source
        self._pad_id = pad_id
        self._include_segment_ids = include_segment_ids
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
            {
                "tokens": self._tokens_identity,
                "packing": self.plan.fingerprint,
                "pad_id": self._pad_id,
                "include_segment_ids": self._include_segment_ids,
            }
        )

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Samples by number, copied; see `SampleSource.read`. `loss_mask` is always there."""
        check_numbers(samples, self.num_samples, "sample")
        plan = self.plan
        first = plan.first_piece[samples]
        counts = plan.first_piece[samples + 1] - first
        pieces = ranges(first, counts)
        starts, lengths = plan.starts[pieces], plan.lengths[pieces].astype(np.int64)
        rows = np.repeat(np.arange(len(samples)), counts)
        # Where each piece starts in its row: all tokens before it, without those of other rows.
        columns = lengths.cumsum() - lengths
        columns -= np.repeat(columns[counts.cumsum() - counts], counts)
        found = {"input_ids": self._ids(starts, lengths, rows, columns, len(samples))}
        used = np.bincount(rows, weights=lengths, minlength=len(samples))
        if self._include_segment_ids:
            found["segment_ids"], found["positions"] = label_pieces(counts, lengths, plan.seq_len)
        found["loss_mask"] = np.arange(plan.seq_len) < used[:, None]
        return found

    def _ids(
        self,
        starts: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        columns: npt.NDArray[np.int64],
        num_rows: int,
    ) -> npt.NDArray[Any]:
        """dtype[num_rows, seq_len]: `lengths[i]` tokens from `starts[i]` at rows[i], columns[i]."""
        seq_len = self.plan.seq_len
        # Neighbours in a row that are neighbours in the stream are one run.
        follows = (starts[1:] == starts[:-1] + lengths[:-1]) & (rows[1:] == rows[:-1])
        heads = np.flatnonzero(np.append(True, ~follows)[: len(starts)])
        starts, targets = starts[heads], rows[heads] * seq_len + columns[heads]
        lengths = np.add.reduceat(lengths, heads) if len(heads) else lengths
        if num_rows and len(heads) == num_rows and (lengths == seq_len).all():
            return self._source.gather(starts, seq_len)
        ids = np.full((num_rows, seq_len), self._pad_id or 0, self._source.dtype)
        # `gather` takes runs of one length. Two runs of the largest power of two that fits, one
        # from each end, cover a run of any length, so there is one call per power of two.
        powers = np.frexp(lengths)[1] - 1
        for power in np.flatnonzero(np.bincount(powers)).tolist():
            size = 1 << power
            chosen = powers == power
            at, to, extra = starts[chosen], targets[chosen], lengths[chosen] - size
            is_longer = extra > 0
            at = np.concatenate([at, (at + extra)[is_longer]])
            to = np.concatenate([to, (to + extra)[is_longer]])
            windows = np.lib.stride_tricks.sliding_window_view(
                ids.reshape(-1), size, writeable=True
            )
            windows[to] = self._source.gather(at, size)
        return ids


def pack(
    source: DocumentSource,
    seq_len: int,
    strategy: str = "greedy",
    *,
    pad_id: int | None = None,
    num_packers: int = 4,
    include_segment_ids: bool = True,
) -> SampleSource:
    """Pack the documents of a source into samples.

    Args:
        source: the tokens and the lengths of the documents.
        seq_len: tokens in a sample.
        strategy: see `plan_packing`. "concat" needs no plan, and without a pad id it leaves out
            what fills no sample at the end; the others leave out nothing.
        pad_id: fills what no token fills.
        num_packers: open samples of "pool".
        include_segment_ids: give `segment_ids` and `positions`.

    Raises:
        UsageError: the source has no documents, an argument is out of range, there is nothing to
            pack, or padding is needed and there is no pad id.
    """
    check_strategy(strategy)
    if not has_all(source, "num_tokens", "dtype", "tokens", "gather", "lengths"):
        raise UsageError(
            f"a {type(source).__name__} is no source of documents; give a dataset as open_dataset "
            "opens it, or another stream of tokens that has `lengths`."
        )
    if strategy == "concat":
        lengths = source.lengths() if include_segment_ids else None
        return ConcatSamples(source, seq_len, pad_id=pad_id, lengths=lengths)
    plan = plan_packing(source.lengths(), seq_len, strategy, num_packers=num_packers)
    return PackedSamples(source, plan, pad_id=pad_id, include_segment_ids=include_segment_ids)
