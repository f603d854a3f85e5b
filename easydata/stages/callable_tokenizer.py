"""Any function from texts to lists of ids, with the identity that only its author knows."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from easydata.errors import TokenizerError, UsageError
from easydata.fingerprint import fingerprint_json
from easydata.stages._checks import flatten_checked, id_list
from easydata.stages.base import Encoded, Ids, TokenizerSpec

__all__ = ["CallableSpec", "CallableTokenizer"]


@dataclass(frozen=True)
class CallableSpec(TokenizerSpec):
    """The arguments of a `CallableTokenizer`. Pickling it refers to its functions by name."""

    function: Callable[[list[str]], list[list[int]]]
    vocab_size: int
    identity: str
    eos_id: int | None
    bos_id: int | None
    pad_id: int | None
    decode: Callable[[list[int]], str] | None

    def load(self) -> CallableTokenizer:
        return CallableTokenizer(
            self.function,
            vocab_size=self.vocab_size,
            identity=self.identity,
            eos_id=self.eos_id,
            bos_id=self.bos_id,
            pad_id=self.pad_id,
            decode=self.decode,
        )

    def __getstate__(self) -> dict[str, Any]:
        for function in (self.function, self.decode):
            # pickle's own message speaks of "local objects" and names no remedy.
            if inspect.isfunction(function) and "<" in function.__qualname__:
                raise TokenizerError(
                    f"the tokenizer {self.identity!r} uses {function.__qualname__} of module "
                    f"{function.__module__}, which worker processes cannot find by name. Define "
                    "it with 'def' at the top level of a module, or use one worker"
                )
        return self.__dict__


class CallableTokenizer:
    """A function `list[str] -> list[list[int]]` as a tokenizer.

    Args:
        function: one list of ids for each text, without BOS and EOS. It must be a pure function:
            the same text always gives the same ids.
        vocab_size: the largest id + 1, `eos_id`, `bos_id` and `pad_id` included.
        identity: names what the function computes, for example "my-tokenizer 3". Data that was
            tokenized under one identity is reused: change it whenever the ids change.
        eos_id: the id to end documents with, if there is one.
        bos_id: the id to begin documents with, if there is one.
        pad_id: the id to fill up rows with, if there is one.
        decode: a function `list[int] -> str`, if there is one.

    Raises:
        UsageError: the identity is empty, or a number is out of its range.

    >>> letters = CallableTokenizer(
    ...     lambda texts: [[ord(c) for c in t] for t in texts], vocab_size=128, identity="ascii 1"
    ... )
    >>> letters.encode(["ab", "c"])[0].tolist()
    [97, 98, 99]
    """

    chat_template = None
    notes: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()

    def __init__(
        self,
        function: Callable[[list[str]], list[list[int]]],
        *,
        vocab_size: int,
        identity: str,
        eos_id: int | None = None,
        bos_id: int | None = None,
        pad_id: int | None = None,
        decode: Callable[[list[int]], str] | None = None,
    ) -> None:
        if not callable(function):
            raise UsageError(f"function is {function!r}, which cannot be called")
        if not isinstance(identity, str) or not identity.strip():
            raise UsageError(
                f"identity is {identity!r}; pass a string that names what the function computes, "
                "and change it whenever its ids change"
            )
        if not 0 < vocab_size <= 2**32:
            raise UsageError(f"vocab_size is {vocab_size}; it must be from 1 to 2**32")
        for what, value in (("eos_id", eos_id), ("bos_id", bos_id), ("pad_id", pad_id)):
            if value is not None and not 0 <= value < vocab_size:
                raise UsageError(
                    f"{what} is {value}, but vocab_size is {vocab_size}, so ids go from 0 to "
                    f"{vocab_size - 1}. Count BOS and EOS, and a pad, in vocab_size"
                )
        self._spec = CallableSpec(function, vocab_size, identity, eos_id, bos_id, pad_id, decode)
        self.fingerprint = fingerprint_json(["callable", identity, vocab_size])

    @property
    def name(self) -> str:
        return self._spec.identity

    @property
    def vocab_size(self) -> int:
        return self._spec.vocab_size

    @property
    def declared_eos(self) -> int | None:
        return self._spec.eos_id

    @property
    def declared_bos(self) -> int | None:
        return self._spec.bos_id

    @property
    def declared_pad(self) -> int | None:
        return self._spec.pad_id

    def encode(self, texts: Sequence[str]) -> Encoded:
        """As `Tokenizer.encode`. What the function itself raises passes through unchanged."""
        result = self._spec.function(list(texts))
        return flatten_checked(result, len(texts), self.vocab_size, f"tokenizer {self.name!r}")

    def decode(self, ids: Ids) -> str:
        """As `Tokenizer.decode`, with `eos_id`, `bos_id` and `pad_id` left out."""
        if self._spec.decode is None:
            raise TokenizerError(
                f"the tokenizer {self.name!r} cannot decode: pass decode= to CallableTokenizer"
            )
        added = {self._spec.eos_id, self._spec.bos_id, self._spec.pad_id}
        found = id_list(ids, self.vocab_size, f"the tokenizer {self.name!r}")
        return self._spec.decode([i for i in found if i not in added])

    def token_id(self, token: str) -> int | None:
        """None: a function has no names for its ids."""
        del token
        return None

    def files(self) -> dict[str, bytes]:
        """Empty: code is not stored beside data."""
        return {}

    def spec(self) -> CallableSpec:
        return self._spec
