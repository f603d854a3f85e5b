"""The stage from texts to token ids: tokenize, truncate, leave out, add BOS and EOS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.errors import TokenizerError, UsageError
from easydata.stages.base import RowTokenizeError, Tokenizer, TokenizerSpec
from easydata.stages.dtypes import choose_dtype

__all__ = ["TokenizeStage", "Tokenized"]

# The offsets of an Arrow list are int32.
MAX_LIST_VALUES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Tokenized:
    """The token ids of the rows that were kept.

    Attributes:
        ids: dtype[sum(lengths)], BOS and EOS included, one row after the other.
        lengths: int64[kept rows], BOS and EOS included.
        keep: bool[texts], False for each text with fewer than `min_tokens` tokens.
        truncated: how many of the kept rows lost tokens to `max_length`.
    """

    ids: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]
    truncated: int

    def column(self) -> pa.Array:
        """The rows as an Arrow `list<item: dtype>`, whose values are a view of `ids`.

        Raises:
            TokenizerError: more ids than the int32 offsets of one list column can count.
        """
        if len(self.ids) > MAX_LIST_VALUES:
            raise TokenizerError(
                f"{len(self.ids):,} token ids in {len(self.lengths):,} rows are more than one "
                f"column holds ({MAX_LIST_VALUES:,}). Pass fewer or shorter texts at a time"
            )
        offsets = np.zeros(len(self.lengths) + 1, dtype=np.int32)
        np.cumsum(self.lengths, out=offsets[1:])
        item = pa.from_numpy_dtype(self.ids.dtype)
        values = pa.Array.from_buffers(item, len(self.ids), [None, pa.py_buffer(self.ids)])
        return pa.ListArray.from_buffers(
            pa.list_(pa.field("item", item)),
            len(self.lengths),
            [None, pa.py_buffer(offsets)],
            children=[values],
        )


@dataclass(frozen=True)
class TokenizeStage:
    """Texts to token ids, in any process: picklable by value.

    Attributes:
        spec: what the tokenizer is made from, once per process.
        dtype: the name of the ids' type, one of `TOKEN_DTYPES`.
        bos_id: the id before each row, or None.
        eos_id: the id after each row, or None.
        min_tokens: rows with fewer tokens than this are left out. Counted before truncation,
            without BOS and EOS.
        max_length: rows are cut to this many ids, BOS and EOS included; EOS stays the last.

    Raises:
        UsageError: an unknown type, a BOS or EOS that does not fit it, a negative `min_tokens`,
            or a `max_length` without room for text.
    """

    spec: TokenizerSpec
    dtype: str
    bos_id: int | None = None
    eos_id: int | None = None
    min_tokens: int = 0
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.dtype == "auto":
            raise UsageError(
                "dtype 'auto' is not a type yet: pass choose_dtype(tokenizer.vocab_size).name"
            )
        largest = np.iinfo(choose_dtype(0, self.dtype)).max
        for name, value in (("bos_id", self.bos_id), ("eos_id", self.eos_id)):
            if value is not None and not 0 <= value <= largest:
                raise UsageError(
                    f"{name} {value} does not fit {self.dtype}, which ends at {largest}. "
                    "Choose a larger dtype (--dtype), or add no such token"
                )
        if self.min_tokens < 0:
            raise UsageError(f"min_tokens is {self.min_tokens}; it must be 0 or more")
        if self.max_length is not None and self.max_length <= self._num_added:
            raise UsageError(
                f"max_length is {self.max_length}, of which BOS and EOS take {self._num_added}: "
                f"there is no room for text. Pass {self._num_added + 1} or more"
            )

    @property
    def _num_added(self) -> int:
        return (self.bos_id is not None) + (self.eos_id is not None)

    def __call__(self, texts: Sequence[str]) -> Tokenized:
        """Tokenize; the result's arrays are the caller's own.

        Raises:
            RowTokenizeError: a text cannot be encoded, or has an id that `dtype` cannot hold.
            TokenizerError: the tokenizer fails.
        """
        with _loading:
            tokenizer = _tokenizer(self.spec)
        ids, found = tokenizer.encode(texts)
        keep = found >= self.min_tokens
        room = None if self.max_length is None else self.max_length - self._num_added
        wanted = found if room is None else np.minimum(found, room)
        wanted = np.where(keep, wanted, 0)
        if wanted.sum() != len(ids):
            ids = ids[_within(found) < np.repeat(wanted, found)]
        self._check_fit(ids, wanted)
        truncated = int(np.count_nonzero(keep & (wanted < found)))
        body = wanted[keep]
        return Tokenized(self._with_added(ids, body), body + self._num_added, keep, truncated)

    def _check_fit(self, ids: npt.NDArray[np.uint32], lengths: npt.NDArray[np.int64]) -> None:
        largest = np.iinfo(self.dtype).max
        if not len(ids) or ids.max() <= largest:
            return
        position = int(np.argmax(ids > largest))
        row = int(np.searchsorted(np.cumsum(lengths), position, side="right"))
        raise RowTokenizeError(
            row,
            f"token id {ids[position]} does not fit {self.dtype}, which ends at {largest}. "
            "Choose a larger dtype (--dtype), or 'auto'",
        )

    def _with_added(
        self, ids: npt.NDArray[np.uint32], body: npt.NDArray[np.int64]
    ) -> npt.NDArray[Any]:
        if not self._num_added:
            return ids.astype(self.dtype)
        lengths = body + self._num_added
        ends = np.cumsum(lengths)
        out = np.empty(len(ids) + len(body) * self._num_added, dtype=self.dtype)
        from_text = np.ones(len(out), dtype=np.bool_)
        for places, added in ((ends - lengths, self.bos_id), (ends - 1, self.eos_id)):
            if added is not None:
                out[places] = added
                from_text[places] = False
        out[from_text] = ids
        return out


def _within(lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For rows of these lengths, each item's position in its row: int64[sum(lengths)]."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(starts, lengths)


_loading = Lock()  # or each thread would load one of its own


@lru_cache(maxsize=4)
def _tokenizer(spec: TokenizerSpec) -> Tokenizer:
    return spec.load()
