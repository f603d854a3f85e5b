"""Packing documents that come in windows: what a window leaves unfilled goes into the next."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata.errors import UsageError
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.packing import PackedSamples, pack
from easydata.loader.packing_plan import PackingPlan, plan_packing
from easydata.loader.ranges import ranges
from easydata.loader.rows import Pieces

__all__ = ["Documents", "SampleBlock", "WindowPacker", "cut_windows"]

SampleBlock: TypeAlias = dict[str, npt.NDArray[Any]]
"""Some samples, as `SampleSource.read` gives them: arrays [samples, seq_len] by name."""


@dataclass(frozen=True, eq=False)
class Documents:
    """Documents in memory, a `DocumentSource`.

    Attributes:
        ids: dtype[tokens], of one document after another.
        sizes: int64[documents], tokens in each.
    """

    ids: npt.NDArray[Any]
    sizes: npt.NDArray[np.int64]

    @property
    def num_tokens(self) -> int:
        return len(self.ids)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.ids.dtype

    @property
    def fingerprint(self) -> str:
        return self._array.fingerprint

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        return self._array.locate(starts, lengths)

    @cached_property
    def _array(self) -> ArrayTokens:
        return ArrayTokens(self.ids, self.sizes)

    def lengths(self) -> npt.NDArray[np.int64]:
        return self.sizes

    def cut(self, at: int) -> tuple[Documents, Documents]:
        """What comes before token `at`, and the rest; a document may be cut in two."""
        inside = int(self.sizes.cumsum().searchsorted(at, side="right"))
        head, tail = self.sizes[:inside], self.sizes[inside:].copy()
        missing = at - int(head.sum())
        if missing:
            head = np.append(head, missing)
            tail[0] -= missing
        return Documents(self.ids[:at], head), Documents(self.ids[at:], tail)

    @staticmethod
    def join(pieces: Iterable[Documents], dtype: np.dtype[Any]) -> Documents:
        """The documents of all pieces, copied."""
        held = list(pieces)
        return Documents(
            np.concatenate([np.empty(0, dtype), *(piece.ids for piece in held)]),
            np.concatenate([np.empty(0, np.int64), *(piece.sizes for piece in held)]),
        )


@dataclass(frozen=True)
class WindowPacker:
    """How the documents of a window become samples, and which of them wait for the next one.

    With "concat" and "greedy" the samples are those of all documents packed at once. With the
    others the samples with most room, up to half a window of them, are packed anew with the next
    window: only the last one is padded up.

    Attributes:
        seq_len: tokens in a sample.
        strategy: as for `pack`.
        pad_token_id: fills what no token fills.
        num_packers: open samples of "pool".
        include_segment_ids: give `segment_ids` and `positions`.
        window: samples whose tokens make a window.
    """

    seq_len: int
    strategy: str
    pad_token_id: int | None
    num_packers: int
    include_segment_ids: bool
    window: int

    @property
    def window_tokens(self) -> int:
        """A window is closed by the document with which it has as many."""
        return self.window * self.seq_len

    def pack(
        self, documents: Documents, *, is_last: bool
    ) -> tuple[SampleBlock | None, Documents | None]:
        """The samples of a window, and the documents that are left.

        Args:
            documents: at least `window_tokens` tokens, or the last ones.
            is_last: nothing comes after them: what is left is left out, which happens only with
                "concat" and no pad id.

        Raises:
            UsageError: padding is needed, and there is no pad id.
        """
        if not documents.num_tokens:
            return None, None
        if self.strategy == "concat":
            return self._cut(documents, is_last=is_last)
        plan = plan_packing(
            documents.sizes, self.seq_len, self.strategy, num_packers=self.num_packers
        )
        room = self.seq_len - np.add.reduceat(plan.lengths, plan.first_piece[:-1])
        held = np.empty(0, np.int64) if is_last else self._held(room)
        ready = np.delete(np.arange(plan.num_samples), held)
        if self.pad_token_id is None and room[ready].any():
            raise UsageError(
                f"packing with {self.strategy!r} leaves places to be padded, but there is no "
                "pad_token_id; give one, or pack with 'concat'."
            )
        samples = PackedSamples(
            documents,
            plan,
            pad_token_id=self.pad_token_id or 0,
            include_segment_ids=self.include_segment_ids,
        )
        return samples.read(ready), _pieces(documents, plan, held)

    def _cut(
        self, documents: Documents, *, is_last: bool
    ) -> tuple[SampleBlock | None, Documents | None]:
        stop = documents.num_tokens
        if not is_last or self.pad_token_id is None:
            stop -= stop % self.seq_len
        ready, rest = documents.cut(stop)
        if not stop:
            return None, rest
        samples = pack(
            ready,
            self.seq_len,
            "concat",
            pad_token_id=self.pad_token_id,
            include_segment_ids=self.include_segment_ids,
        )
        return samples.read(np.arange(samples.num_samples)), rest

    def _held(self, room: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The samples that wait for more documents, in order."""
        if self.strategy == "greedy":
            return np.flatnonzero(room[-1:]) + len(room) - 1
        # Not all samples of a window have room, as it has tokens for all: some always go on. Of
        # equals, the later ones wait.
        emptiest = np.lexsort((-np.arange(len(room)), -room))[: max(self.window // 2, 1)]
        return np.sort(emptiest[room[emptiest] > 0])


def cut_windows(
    pieces: Iterable[Documents], packer: WindowPacker
) -> Generator[SampleBlock, None, int]:
    """The samples of one window of documents after another.

    Where a window ends follows from the documents alone, not from the pieces they come in.

    Args:
        pieces: the documents.
        packer: packs each window.

    Returns:
        How many tokens at the end are in no sample.
    """
    window: list[Documents] = []
    held = 0
    dtype = np.dtype(np.uint32)
    for piece in pieces:
        rest, dtype = piece, piece.dtype
        while held + rest.num_tokens >= packer.window_tokens:
            ends = rest.sizes.cumsum()
            head, rest = rest.cut(int(ends[ends.searchsorted(packer.window_tokens - held)]))
            block, left = packer.pack(Documents.join([*window, head], dtype), is_last=False)
            window = [] if left is None else [left]
            held = 0 if left is None else left.num_tokens
            if block is not None:
                yield block
        window.append(rest)
        held += rest.num_tokens
    block, left = packer.pack(Documents.join(window, dtype), is_last=True)
    if block is not None:
        yield block
    return 0 if left is None else left.num_tokens


def _pieces(documents: Documents, plan: PackingPlan, samples: npt.NDArray[np.int64]) -> Documents:
    """The pieces of some samples as documents of their own."""
    first = plan.first_piece[samples]
    pieces = ranges(first, plan.first_piece[samples + 1] - first)
    sizes = plan.lengths[pieces].astype(np.int64)
    return Documents(documents.ids[ranges(plan.starts[pieces], sizes)], sizes)
