"""The stage from texts to token ids: tokenize, truncate, leave out, add BOS, EOS and pads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.errors import TokenizerError, UsageError
from easydata.stages.base import Encoded, RowTokenizeError, Tokenizer, TokenizerSpec
from easydata.stages.dtypes import choose_dtype

__all__ = ["TokenizeStage", "Tokenized"]

# The offsets of an Arrow list are int32.
MAX_LIST_VALUES = 2**31 - 1


@dataclass(frozen=True, eq=False)
class Tokenized:
    """The token ids of the rows that were kept.

    Attributes:
        ids: dtype[sum(lengths)], BOS, EOS and pads included, one row after the other.
        lengths: int64[kept rows], BOS, EOS and pads included.
        keep: bool[texts], False for each text with fewer than `min_tokens` tokens.
        cut: bool[texts], True for each kept text that lost tokens to `max_length`.
        mask: uint8[sum(lengths)], 0 for each pad, 1 for every other id; None where none was
            asked for or nothing is padded.
    """

    ids: npt.NDArray[Any]
    lengths: npt.NDArray[np.int64]
    keep: npt.NDArray[np.bool_]
    cut: npt.NDArray[np.bool_]
    mask: npt.NDArray[np.uint8] | None = None

    @property
    def truncated(self) -> int:
        """How many of the kept rows lost tokens to `max_length`."""
        return int(np.count_nonzero(self.cut))

    def column(self) -> pa.Array:
        """The rows as an Arrow `list<item: dtype>`, whose values are a view of `ids`.

        Raises:
            TokenizerError: more ids than the int32 offsets of one list column can count.
        """
        return self._column(self.ids)

    def mask_column(self) -> pa.Array:
        """The rows of `mask`, which must not be None, as `column` does it."""
        return self._column(self.mask)

    def _column(self, flat: Any) -> pa.Array:
        if len(flat) > MAX_LIST_VALUES:
            raise TokenizerError(
                f"{len(flat):,} token ids in {len(self.lengths):,} rows are more than one "
                f"column holds ({MAX_LIST_VALUES:,}). Pass fewer or shorter texts at a time"
            )
        offsets = np.zeros(len(self.lengths) + 1, dtype=np.int32)
        np.cumsum(self.lengths, out=offsets[1:])
        item = pa.from_numpy_dtype(flat.dtype)
        values = pa.Array.from_buffers(item, len(flat), [None, pa.py_buffer(flat)])
        return pa.ListArray.from_buffers(
            pa.list_(pa.field("item", item)),
            len(self.lengths),
            [None, pa.py_buffer(offsets)],
            children=[values],
        )


@dataclass(frozen=True)
class TokenizeStage:
    """Texts to token ids, in any process: picklable by value.

    With padding "longest" the ids of a text depend on the texts it is passed with: call by call,
    each `batch_size` of them are padded to the longest of their kept rows. A caller that wants
    the same result again must pass the same texts together.

    Attributes:
        spec: what the tokenizer is made from, once per process.
        dtype: the name of the ids' type, one of `TOKEN_DTYPES`.
        bos_id: the id before each row, or None.
        eos_id: the id after each row, or None.
        min_tokens: rows with fewer tokens than this are left out. Counted before truncation,
            without BOS and EOS.
        max_length: rows are cut to this many ids, BOS and EOS included; EOS stays the last.
        batch_size: at most so many texts are passed to the tokenizer at a time; None: all.
        padding: fill up rows behind their EOS, to the "longest" of each `batch_size` texts, or
            to "max_length".
        pad_id: the id to fill up with; needed where there is padding.
        attention_mask: make `Tokenized.mask` where there is padding.

    Raises:
        UsageError: an unknown type or padding, a BOS, EOS or pad that does not fit the type, a
            number below its bound, a `max_length` without room for text, or padding without
            what it needs.
    """

    spec: TokenizerSpec
    dtype: str
    bos_id: int | None = None
    eos_id: int | None = None
    min_tokens: int = 0
    max_length: int | None = None
    batch_size: int | None = None
    padding: Literal["longest", "max_length"] | None = None
    pad_id: int | None = None
    attention_mask: bool = False

    def __post_init__(self) -> None:
        if self.dtype == "auto":
            raise UsageError(
                "dtype 'auto' is not a type yet: pass choose_dtype(tokenizer.vocab_size).name"
            )
        largest = np.iinfo(choose_dtype(0, self.dtype)).max
        for name in ("bos_id", "eos_id", "pad_id"):
            value = getattr(self, name)
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
        if self.batch_size is not None and self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}; it must be 1 or more")
        self._check_padding()

    def _check_padding(self) -> None:
        if self.padding is None:
            if self.pad_id is not None:
                raise UsageError(
                    f"pad_id is {self.pad_id}, but nothing is padded. Leave it out, or pass "
                    "padding='longest' or padding='max_length'"
                )
            return
        needed = {"longest": "batch_size", "max_length": "max_length"}
        if self.padding not in needed:
            raise UsageError(
                f"padding is {self.padding!r}; it must be 'longest', 'max_length' or None"
            )
        for name in (needed[self.padding], "pad_id"):
            if getattr(self, name) is None:
                raise UsageError(f"padding={self.padding!r} needs {name}, which is None. Pass one")

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
        ids, found = self._encode(tokenizer, texts)
        keep = found >= self.min_tokens
        room = None if self.max_length is None else self.max_length - self._num_added
        wanted = found if room is None else np.minimum(found, room)
        wanted = np.where(keep, wanted, 0)
        if wanted.sum() != len(ids):
            ids = ids[_within(found) < np.repeat(wanted, found)]
        self._check_fit(ids, wanted)
        cut = keep & (wanted < found)
        filled = wanted[keep] + self._num_added
        lengths = self._padded(filled, keep)
        is_filled = None
        if self.padding is not None:
            is_filled = _within(lengths) < np.repeat(filled, lengths)
        mask = is_filled.astype(np.uint8) if is_filled is not None and self.attention_mask else None
        laid_out = self._lay_out(ids, filled, lengths, is_filled)
        return Tokenized(laid_out, lengths, keep, cut, mask)

    def _encode(self, tokenizer: Tokenizer, texts: Sequence[str]) -> Encoded:
        if self.batch_size is None or len(texts) <= self.batch_size:
            return tokenizer.encode(texts)
        parts = []
        for start in range(0, len(texts), self.batch_size):
            try:
                parts.append(tokenizer.encode(texts[start : start + self.batch_size]))
            except RowTokenizeError as error:
                raise RowTokenizeError(start + error.row, error.reason) from error
        ids, lengths = zip(*parts, strict=True)
        return np.concatenate(ids), np.concatenate(lengths)

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

    def _padded(
        self, filled: npt.NDArray[np.int64], keep: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int64]:
        """The lengths of the kept rows with their pads."""
        if self.padding is None or not len(filled):
            return filled
        if self.padding == "max_length":
            return np.full_like(filled, self.max_length)
        batches = np.flatnonzero(keep) // (self.batch_size or 1)
        starts = np.flatnonzero(np.diff(batches, prepend=-1))
        longest = np.maximum.reduceat(filled, starts)
        return np.repeat(longest, np.diff(starts, append=len(batches)))

    def _lay_out(
        self,
        ids: npt.NDArray[np.uint32],
        filled: npt.NDArray[np.int64],
        lengths: npt.NDArray[np.int64],
        is_filled: npt.NDArray[np.bool_] | None,
    ) -> npt.NDArray[Any]:
        """The ids with BOS, EOS and pads in their places.

        Args:
            ids: of the text of the kept rows.
            filled: their lengths with BOS and EOS.
            lengths: their lengths with pads too.
            is_filled: for each place whether it is no pad; None if there are no pads.
        """
        if not self._num_added and is_filled is None:
            return ids.astype(self.dtype)
        starts = np.cumsum(lengths) - lengths
        total = int(lengths.sum())
        out = np.full(total, self.pad_id or 0, dtype=self.dtype)
        from_text = np.ones(total, dtype=np.bool_) if is_filled is None else is_filled
        for places, added in ((starts, self.bos_id), (starts + filled - 1, self.eos_id)):
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
