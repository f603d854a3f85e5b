"""Which ids begin and end a document."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from easydata.errors import TokenizerError, UsageError
from easydata.stages.base import Tokenizer

__all__ = [
    "WELL_KNOWN_BOS",
    "WELL_KNOWN_EOS",
    "WELL_KNOWN_PAD",
    "SpecialTokens",
    "resolve_special",
]

# In order: the first that a vocabulary has is taken.
WELL_KNOWN_EOS = (
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|eos|>",
    "[EOS]",
    "<EOS>",
    "<｜end▁of▁sentence｜>",
)
WELL_KNOWN_BOS = (
    "<|begin_of_text|>",
    "<|startoftext|>",
    "<s>",
    "<bos>",
    "<|bos|>",
    "[BOS]",
    "<BOS>",
    "<｜begin▁of▁sentence｜>",
)
WELL_KNOWN_PAD = (
    "<pad>",
    "[PAD]",
    "<|pad|>",
    "<|padding|>",
    "<|finetune_right_pad_id|>",
    "<PAD>",
    "<|PAD_TOKEN|>",
    "<｜▁pad▁｜>",
)


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that easydata puts around each document; None where it puts nothing."""

    bos_id: int | None = None
    eos_id: int | None = None
    pad_id: int | None = None


@dataclass(frozen=True)
class _Kind:
    """One kind of special token: where it is looked for, and how messages call its options."""

    name: str
    known: Sequence[str]
    give: str
    is_off: str
    turn_on: str
    turn_off: str


def _added(name: str, known: Sequence[str]) -> _Kind:
    return _Kind(
        name,
        known,
        give=f"{name}_token= (--{name}-token)",
        is_off=f"add_{name} is False",
        turn_on=f"add_{name}=True (--add-{name})",
        turn_off=f"add_{name}=False (--no-add-{name})",
    )


_BOS = _added("bos", WELL_KNOWN_BOS)
_EOS = _added("eos", WELL_KNOWN_EOS)
_PAD = _Kind(
    "pad",
    WELL_KNOWN_PAD,
    give="pad_token=",
    is_off="padding is off",
    turn_on="padding='longest' or 'max_length'",
    turn_off="no padding",
)


def resolve_special(
    tokenizer: Tokenizer,
    *,
    add_bos: bool,
    add_eos: bool,
    add_pad: bool = False,
    bos_token: str | int | None = None,
    eos_token: str | int | None = None,
    pad_token: str | int | None = None,
) -> SpecialTokens:
    """The ids of BOS, EOS and the token that fills up rows, where they are wanted.

    Each is the option given (a token or an id), else the one that the tokenizer declares, else
    the first well-known name in its vocabulary.

    Args:
        tokenizer: whose ids they are.
        add_bos: whether documents begin with a token.
        add_eos: whether documents end with a token.
        add_pad: whether rows are filled up with a token.
        bos_token: the option, for a token that is added.
        eos_token: likewise.
        pad_token: likewise.

    Raises:
        UsageError: an option names no id of this tokenizer, or a token that is not to be added.
        TokenizerError: no option is given and nothing is found.
    """
    return SpecialTokens(
        bos_id=_resolve(tokenizer, _BOS, bos_token, tokenizer.declared_bos, wanted=add_bos),
        eos_id=_resolve(tokenizer, _EOS, eos_token, tokenizer.declared_eos, wanted=add_eos),
        pad_id=_resolve(tokenizer, _PAD, pad_token, tokenizer.declared_pad, wanted=add_pad),
    )


def _resolve(
    tokenizer: Tokenizer,
    kind: _Kind,
    given: str | int | None,
    declared: str | int | None,
    *,
    wanted: bool,
) -> int | None:
    option = f"{kind.name}_token"
    if not wanted:
        if given is not None:
            raise UsageError(
                f"{option} is {given!r}, but {kind.is_off}. "
                f"Leave {option} out, or pass {kind.turn_on}"
            )
        return None
    remedy = f"Name one with {kind.give}, or pass {kind.turn_off}"
    if given is not None:
        return _given(tokenizer, option, given, remedy)
    if isinstance(declared, int):
        return declared
    which = kind.name.upper()
    if declared is not None:
        found = tokenizer.token_id(declared)
        if found is None:
            raise TokenizerError(
                f"the tokenizer {tokenizer.name!r} declares {declared!r} as its {which} "
                f"token, which is not in its vocabulary{_close(tokenizer, declared)}. {remedy}"
            )
        return found
    for name in kind.known:
        found = tokenizer.token_id(name)
        if found is not None:
            return found
    raise TokenizerError(
        f"the tokenizer {tokenizer.name!r} declares no {which} token, and its vocabulary "
        f"has none of {', '.join(kind.known)}{_close(tokenizer, kind.name)}. {remedy}"
    )


def _given(tokenizer: Tokenizer, option: str, given: str | int, remedy: str) -> int:
    if isinstance(given, str):
        found = tokenizer.token_id(given)
        if found is None:
            raise UsageError(
                f"{option} {given!r} is not in the vocabulary of the tokenizer "
                f"{tokenizer.name!r}{_close(tokenizer, given)}. {remedy}"
            )
        return found
    if isinstance(given, bool) or not 0 <= given < tokenizer.vocab_size:
        raise UsageError(
            f"{option} {given!r} is no id of the tokenizer {tokenizer.name!r}, which has "
            f"the ids 0 to {tokenizer.vocab_size - 1}. {remedy}"
        )
    return given


def _close(tokenizer: Tokenizer, wanted: str) -> str:
    known = (*WELL_KNOWN_EOS, *WELL_KNOWN_BOS, *WELL_KNOWN_PAD)
    names = [*tokenizer.special_tokens, *(n for n in known if tokenizer.token_id(n) is not None)]
    names = list(dict.fromkeys(names))
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    if close:
        return f" (close: {', '.join(close)})"
    if names:
        return f" (its special tokens: {', '.join(names[:8])})"
    return ""
