"""Where fixed-length samples come from."""

from __future__ import annotations

import operator
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.fingerprint import Hasher, fingerprint_json
from easydata.loader._checks import (
    check_count,
    check_lengths,
    check_numbers,
    check_pad_id,
)
from easydata.loader.packing_segments import label_pieces, ranges

if TYPE_CHECKING:
    from easydata.loader.data_loader import TokenSource

__all__ = ["ConcatSamples", "SampleSource", "tokens_identity"]


class SampleSource(Protocol):
    """Numbered samples of one length. `ConcatSamples` and `PackedSamples` are two."""

    @property
    def num_samples(self) -> int: ...

    @property
    def seq_len(self) -> int:
        """Tokens in a sample, padding included."""

    @property
    def fingerprint(self) -> str:
        """Identity of the tokens and of the way they are packed: of equal ones, sample i is
        the same.
        """

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """The samples with these numbers, in this order; a number may come more than once.

        Args:
            samples: int64[n], each 0 ≤ sample < num_samples.

        Returns:
            input_ids: dtype[n, seq_len], and where the packing gives them
            segment_ids: int32[n, seq_len], 1 for the first document piece of a sample, 2 for
                the second and so on; 0 is padding,
            positions: int32[n, seq_len], from 0 in every segment; 0 in padding,
            loss_mask: bool[n, seq_len], False on padding.
            The keys are the same at every call.

        Raises:
            IndexError: there is no such sample.
        """


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
        pad_id: int | None = None,
        lengths: npt.ArrayLike | None = None,
        fingerprint: str | None = None,
    ) -> None:
        """
        Args:
            source: where the tokens come from.
            seq_len: tokens in a sample.
            pad_id: fills the last sample; with it, `read` gives `loss_mask`.
            lengths: int64[documents], tokens in each document of the stream; with them, `read`
                gives `segment_ids` and `positions`.
            fingerprint: identity of the tokens; None takes that of the source.

        Raises:
            UsageError: an argument is out of range, the lengths do not add up to the tokens, or
                there is no whole sample and no pad id.
        """
        seq_len = check_count(seq_len, "seq_len")
        self._source = source
        self._pad_id = None if pad_id is None else check_pad_id(pad_id, source.dtype)
        self._seq_len = seq_len
        self._num_tokens = operator.index(source.num_tokens)
        whole, rest = divmod(self._num_tokens, seq_len)
        self._num_samples = whole + (rest > 0 and pad_id is not None)
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
                "tokens": self._tokens_identity,
                "packing": "concat",
                "seq_len": self._seq_len,
                "pad_id": self._pad_id,
                "document_ends": None if ends is None else Hasher(ends.data).hexdigest(),
            }
        )

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        """Samples by number; see `SampleSource.read`.

        `input_ids` is a read-only view of the source where the numbers follow one another, none
        is the padded one, and the source gives a view of that run; else it is a copy.
        """
        check_numbers(samples, self._num_samples, "sample")
        found = {"input_ids": self._ids(samples)}
        if self._document_ends is not None:
            found["segment_ids"], found["positions"] = self._segments(samples)
        if self._pad_id is not None:
            used = np.minimum(self._num_tokens - samples * self._seq_len, self._seq_len)
            found["loss_mask"] = np.arange(self._seq_len) < used[:, None]
        return found

    def _ids(self, samples: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        seq_len = self._seq_len
        starts = samples * seq_len
        whole = starts <= self._num_tokens - seq_len
        if not whole.all():
            ids = np.full((len(samples), seq_len), self._pad_id, self._source.dtype)
            rest = self._num_tokens % seq_len
            ids[~whole, :rest] = self._source.tokens(self._num_tokens - rest, self._num_tokens)
            if whole.any():
                ids[whole] = self._source.gather(starts[whole], seq_len)
            return ids
        if (np.diff(samples) == 1).all():
            start = int(starts[0]) if len(samples) else 0
            run = self._source.tokens(start, start + len(samples) * seq_len)
            return run.reshape(len(samples), seq_len)
        return self._source.gather(starts, seq_len)

    def _segments(
        self, samples: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        ends = self._document_ends
        assert ends is not None
        starts = samples * self._seq_len
        stops = np.minimum(starts + self._seq_len, self._num_tokens)
        first = ends.searchsorted(starts, side="right")
        counts = ends.searchsorted(stops) - first + 1
        documents = ranges(first, counts)
        # Every piece runs from where the one before it ended to the end of its document or of
        # the sample.
        piece_ends = np.minimum(ends[documents], np.repeat(stops, counts))
        piece_starts = np.empty_like(piece_ends)
        piece_starts[1:] = piece_ends[:-1]
        piece_starts[counts.cumsum() - counts] = starts
        return label_pieces(counts, piece_ends - piece_starts, self._seq_len)


def tokens_identity(source: TokenSource, fingerprint: str | None) -> str:
    """Identity of a stream of tokens.

    It follows from `fingerprint`, or if this is None from `source.fingerprint`. A source that
    has none is told apart by the number and type of its tokens alone.
    """
    if fingerprint is None:
        fingerprint = str(getattr(source, "fingerprint", ""))
    return fingerprint_json([fingerprint, operator.index(source.num_tokens), source.dtype.name])
