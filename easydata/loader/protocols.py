"""What a loader reads: streams of tokens, documents, samples."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from easydata.loader.rows import Pieces

__all__ = ["Arrays", "DocumentSource", "LocatedSamples", "SampleSource", "TokenSource"]

Arrays = dict[str, npt.NDArray[Any]]


class TokenSource(Protocol):
    """A stream of tokens that can be read anywhere. `TokenDataset` and `ArrayTokens` are two."""

    @property
    def num_tokens(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def fingerprint(self) -> str:
        """Identity of the tokens: of equal ones, all tokens are the same."""

    def locate(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64] | int) -> Pieces:
        """Where runs of the stream lie in memory, checked and decoded.

        Unless the source has an `is_mapped` that is False, a loader calls it from other threads,
        too; for one iteration never from two at once.

        Args:
            starts: int64[n], index of the first token of each.
            lengths: int64[n], tokens in each, or in all.

        Raises:
            IndexError: a run does not lie within the stream.
        """


class DocumentSource(TokenSource, Protocol):
    """A stream of tokens that knows where its documents end. `TokenDataset` is one."""

    def lengths(self) -> npt.NDArray[np.int64]:
        """int64[documents]: tokens in each document, in the order of the stream."""


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

    def read(self, samples: npt.NDArray[np.int64]) -> Arrays:
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


class LocatedSamples(Protocol):
    """Samples of which it is known where they lie, so that some of them are soon read.

    A source may offer `locate(samples) -> LocatedSamples` beside `read`; a loader then calls it
    for many batches at once. Located samples whose `input_ids` are `Rows` may offer them as `ids`;
    those of many pieces may say how many, as `num_pieces`.
    """

    def read(self, start: int, stop: int) -> Arrays:
        """Those from `start` to before `stop`, as `SampleSource.read`."""
