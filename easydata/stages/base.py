"""What every tokenizer offers, whichever library it comes from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from easydata.errors import TokenizerError

if TYPE_CHECKING:
    from easydata.stages.chat import ChatTemplate

__all__ = ["Encoded", "Ids", "RowTokenizeError", "Tokenizer", "TokenizerSpec"]

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.integer[Any]]
"""Token ids as a caller has them: a list of ints, or an integer array of any dtype."""

Encoded: TypeAlias = tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]
"""(ids: uint32[sum(lengths)], lengths: int64[rows]): the rows' ids, one after the other."""


class RowTokenizeError(TokenizerError):
    """One text cannot be tokenized; the others can.

    Attributes:
        row: index of the text in the sequence that was passed.
        reason: what is wrong with it, and what to do. A caller puts file and line before it.
    """

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(row, reason)
        self.row = row
        self.reason = reason

    def __str__(self) -> str:
        return f"text {self.row}: {self.reason}"


class TokenizerSpec(ABC):
    """All that is needed to make a tokenizer again, in this process or in another.

    Implementations are frozen dataclasses: hashable, comparable, and picklable by value, except
    for functions and classes of the user's own, which pickle refers to by name.

    Attributes:
        releases_gil: threads that encode with one such tokenizer run at the same time.
    """

    releases_gil: ClassVar[bool] = False

    @abstractmethod
    def load(self) -> Tokenizer:
        """A new tokenizer, equal to the one that gave this spec.

        Raises:
            TokenizerError: it cannot be made in this process.
        """


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back: a pure function of its arguments, whatever was called before.

    Attributes:
        name: for people: a path, a hub name, a class.
        vocab_size: the largest id + 1, added tokens included.
        fingerprint: 32 hexadecimal digits; equal fingerprints give equal ids for every text.
        declared_eos: the end-of-sequence token its files declare (a token or an id), or None.
        declared_bos: likewise the beginning-of-sequence token.
        declared_pad: likewise the token that fills up rows.
        chat_template: what turns conversations into text, or None. Not part of `fingerprint`.
        notes: remarks for people, one line each, on what it saved but is not applied here.
        special_tokens: the added tokens that have names, for suggestions in messages.
    """

    @property
    def name(self) -> str: ...

    @property
    def vocab_size(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def declared_eos(self) -> str | int | None: ...

    @property
    def declared_bos(self) -> str | int | None: ...

    @property
    def declared_pad(self) -> str | int | None: ...

    @property
    def chat_template(self) -> ChatTemplate | None: ...

    @property
    def notes(self) -> tuple[str, ...]: ...

    @property
    def special_tokens(self) -> tuple[str, ...]: ...

    def encode(self, texts: Sequence[str]) -> Encoded:
        """Token ids of each text, without BOS, EOS or anything else that is not in the text.

        Returns:
            ids: uint32[sum(lengths)], one text after the other; an array of the caller's own.
            lengths: int64[len(texts)].

        Raises:
            RowTokenizeError: one text has no ids (a lone surrogate, a word without an id).
            TokenizerError: the tokenizer itself fails.
        """

    def decode(self, ids: Ids) -> str:
        """The text of one row: what `encode` was given, as far as its ids hold it.

        Special tokens, such as the BOS, EOS and pads that easydata adds, have no text and are left
        out, unless this tokenizer parses them from text. The unknown token is always shown.

        Raises:
            TokenizerError: an id outside the vocabulary, or a tokenizer that only encodes.
        """

    def token_id(self, token: str) -> int | None:
        """The id of exactly this token, or None where the vocabulary lacks it."""

    def files(self) -> dict[str, bytes]:
        """File names and contents; `load_tokenizer` of a folder that holds them is equal to self.

        Empty where the tokenizer is code that cannot be stored.
        """

    def spec(self) -> TokenizerSpec:
        """What makes an equal tokenizer elsewhere. Cheap: it is kept, not computed."""
