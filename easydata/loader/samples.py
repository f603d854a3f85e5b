"""Where fixed-length samples come from."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from easydata._lazy import cached_property
from easydata.errors import UsageError
from easydata.fingerprint import Hasher, fingerprint_json
from easydata.loader._checks import (
    check_count,
    check_lengths,
    check_numbers,
    check_pad_token_id,
)
from easydata.loader.block_order import default_blocks
from easydata.loader.located_tokens import LocatedTokens, SamplePieces, array_names
from easydata.loader.protocols import Arrays, SampleSource, TokenSource
from easydata.loader.ranges import ranges
from easydata.loader.rows import fill_rows

__all__ = ["ConcatSamples", "description", "tokens_identity"]


class ConcatSamples:
    """Sample i is tokens [i·seq_len, (i+1)·seq_len) of the stream: documents one after another.

    What is left at the end and fills no sample is a last, padded sample if there is a pad id;
    else it is left out and counted in `tokens_left_out`.
    """

    def __init__(
        self,
        source: TokenSource,
        seq_len: int,
        *,
        pad_token_id: int | None = None,
        lengths: npt.ArrayLike | None = None,
        include_segment_ids: bool = True,
        include_document_ids: bool = False,
        fingerprint: str | None = None,
    ) -> None:
        """
        Args:
            source: where the tokens come from.
            seq_len: tokens in a sample.
            pad_token_id: fills the last sample; with it, `read` gives `loss_mask`.
            lengths: int64[documents], tokens in each document of the stream; None if nothing is
                to be said about documents.
            include_segment_ids: with lengths, give `segment_ids` and `positions`.
            include_document_ids: with lengths, give `document_ids`.
            fingerprint: identity of the tokens; None takes that of the source.

        Raises:
            UsageError: an argument is out of range, the lengths do not add up to the tokens, or
                there is no whole sample and no pad id.
        """
        seq_len = check_count(seq_len, "seq_len")
        self._source = source
        self._pad_token_id = (
            None if pad_token_id is None else check_pad_token_id(pad_token_id, source.dtype)
        )
        self._seq_len = seq_len
        self._num_tokens = operator.index(source.num_tokens)
        whole, rest = divmod(self._num_tokens, seq_len)
        self._num_samples = whole + (rest > 0 and pad_token_id is not None)
        if not self._num_samples:
            raise UsageError(
                f"seq_len is {seq_len}, but there are only {self._num_tokens} tokens; "
                "choose a shorter seq_len or more data, or give pad_token_id."
            )
        self._document_ends: npt.NDArray[np.int64] | None = None
        if lengths is not None:
            checked = check_lengths(lengths)
            if checked.sum() != self._num_tokens:
                raise UsageError(
                    f"the lengths of the documents add up to {checked.sum()}, but there are "
                    f"{self._num_tokens} tokens; give the length of every document."
                )
            self._document_ends = checked[checked > 0].cumsum()
            self._document_rows = np.flatnonzero(checked)
        self._names = array_names(
            segment_ids=lengths is not None and include_segment_ids,
            document_ids=lengths is not None and include_document_ids,
            loss_mask=pad_token_id is not None,
        )
        self._tokens_identity = tokens_identity(source, fingerprint)

    @property
    def num_samples(self) -> int:
        """How many samples there are, a padded one included."""
        return self._num_samples

    @property
    def seq_len(self) -> int:
        """Tokens in a sample, padding included."""
        return self._seq_len

    @property
    def tokens_left_out(self) -> int:
        """Tokens at the end of the stream that are in no sample."""
        return max(self._num_tokens - self._num_samples * self._seq_len, 0)

    @cached_property
    def fingerprint(self) -> str:
        """Identity of the tokens, `seq_len`, the pad id and the ends of the documents."""
        ends = self._document_ends
        return fingerprint_json(
            {
                **self.description,
                "document_ends": ends if ends is None else Hasher(ends.data).hexdigest(),
            }
        )

    @property
    def description(self) -> dict[str, Any]:
        """What the samples follow from, in JSON values."""
        return {
            "tokens": self._tokens_identity,
            "packing": "concat",
            "seq_len": self._seq_len,
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

    def borders(self) -> npt.NDArray[np.int64]:
        """int64[n + 1]: the first sample that begins in each run of the stream that is decoded or
        fetched as one, and the number of all samples.
        """
        cuts = getattr(self._source, "first_tokens", None)
        if cuts is None:
            return default_blocks(self._num_samples)
        found: npt.NDArray[np.int64] = np.minimum(-(-cuts // self._seq_len), self._num_samples)
        found[-1] = self._num_samples
        return found

    def warm(self, samples: npt.NDArray[np.int64]) -> None:
        """Decode ahead what these runs of samples lie in.

        Args:
            samples: int64[n, 2], from the first to before the second.
        """
        warm = getattr(self._source, "warm", None)
        if warm is not None:
            warm(np.minimum(samples * self._seq_len, self._num_tokens))

    def read(self, samples: npt.NDArray[np.int64]) -> Arrays:
        """Samples by number; see `SampleSource.read`.

        `input_ids` is a read-only view of the source where the samples follow one another in
        memory, else a copy.
        """
        return self.locate(samples).read(0, len(samples))

    def locate(self, samples: npt.NDArray[np.int64]) -> LocatedTokens:
        """See `LocatedSamples`."""
        check_numbers(samples, self._num_samples, "sample")
        starts = samples * self._seq_len
        # Only a last, padded sample may be shorter.
        lengths = (
            self._seq_len
            if self._pad_token_id is None
            else np.minimum(self._num_tokens - starts, self._seq_len)
        )
        rows = fill_rows(
            self._source.locate(starts, lengths),
            None,
            num_items=self._seq_len,
            dtype=self._source.dtype,
            pad_token_id=self._pad_token_id,
        )
        pieces = self._pieces(samples) if len(self._names) > 1 else None
        return LocatedTokens(rows, pieces, self._names)

    def _pieces(self, samples: npt.NDArray[np.int64]) -> SamplePieces:
        starts = samples * self._seq_len
        stops = np.minimum(starts + self._seq_len, self._num_tokens)
        ends = self._document_ends
        if ends is None:
            return SamplePieces(np.arange(len(samples) + 1), stops - starts, None)
        first = ends.searchsorted(starts, side="right")
        counts = ends.searchsorted(stops) - first + 1
        documents = ranges(first, counts)
        # Every piece runs from where the one before it ended to the end of its document or of
        # the sample.
        piece_ends = np.minimum(ends[documents], np.repeat(stops, counts))
        first_piece = np.append(0, counts.cumsum())
        piece_starts = np.empty_like(piece_ends)
        piece_starts[1:] = piece_ends[:-1]
        piece_starts[first_piece[:-1]] = starts
        rows = self._document_rows[documents] if "document_ids" in self._names else None
        return SamplePieces(first_piece, piece_ends - piece_starts, rows)


def description(samples: SampleSource) -> dict[str, Any]:
    """What samples follow from, in JSON values."""
    found = getattr(samples, "description", None)
    return {"samples": samples.fingerprint} if found is None else dict(found)


def tokens_identity(source: TokenSource, fingerprint: str | None) -> str:
    """Identity of a stream of tokens.

    It follows from `fingerprint`, or if this is None from `source.fingerprint`. A source that
    has none is told apart by the number and type of its tokens alone.
    """
    if fingerprint is None:
        fingerprint = str(getattr(source, "fingerprint", ""))
    return fingerprint_json([fingerprint, operator.index(source.num_tokens), source.dtype.name])
