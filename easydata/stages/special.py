"""Which ids begin and end a document."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from easydata.errors import TokenizerError, UsageError
from easydata.stages.base import Tokenizer

__all__ = ["WELL_KNOWN_BOS", "WELL_KNOWN_EOS", "SpecialTokens", "resolve_special"]

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


@dataclass(frozen=True)
class SpecialTokens:
    """The ids that easydata puts around each document; None where it puts nothing."""

    bos_id: int | None = None
    eos_id: int | None = None


def resolve_special(
    tokenizer: Tokenizer,
    *,
    add_bos: bool,
    add_eos: bool,
    bos_token: str | int | None = None,
    eos_token: str | int | None = None,
) -> SpecialTokens:
    """The ids of BOS and EOS, where they are wanted.

    Each is the option given (a token or an id), else the one that the tokenizer declares, else
    the first well-known name in its vocabulary.

    Raises:
        UsageError: an option names no id of this tokenizer, or a token that is not to be added.
        TokenizerError: no option is given and nothing is found.
    """
    return SpecialTokens(
        bos_id=_resolve(tokenizer, "bos", bos_token, wanted=add_bos),
        eos_id=_resolve(tokenizer, "eos", eos_token, wanted=add_eos),
    )


def _resolve(
    tokenizer: Tokenizer, which: str, given: str | int | None, *, wanted: bool
) -> int | None:
    if not wanted:
        if given is not None:
            raise UsageError(
                f"{which}_token is {given!r}, but add_{which} is False. "
                f"Leave {which}_token out, or pass add_{which}=True (--add-{which})"
            )
        return None
    remedy = (
        f"Name one with {which}_token= (--{which}-token), or pass add_{which}=False "
        f"(--no-add-{which})"
    )
    if given is not None:
        return _given(tokenizer, which, given, remedy)
    declared = tokenizer.declared_eos if which == "eos" else tokenizer.declared_bos
    if isinstance(declared, int):
        return declared
    if declared is not None:
        found = tokenizer.token_id(declared)
        if found is None:
            raise TokenizerError(
                f"the tokenizer {tokenizer.name!r} declares {declared!r} as its {which.upper()} "
                f"token, which is not in its vocabulary{_close(tokenizer, declared)}. {remedy}"
            )
        return found
    names = WELL_KNOWN_EOS if which == "eos" else WELL_KNOWN_BOS
    for name in names:
        found = tokenizer.token_id(name)
        if found is not None:
            return found
    raise TokenizerError(
        f"the tokenizer {tokenizer.name!r} declares no {which.upper()} token, and its vocabulary "
        f"has none of {', '.join(names)}{_close(tokenizer, which)}. {remedy}"
    )


def _given(tokenizer: Tokenizer, which: str, given: str | int, remedy: str) -> int:
    if isinstance(given, str):
        found = tokenizer.token_id(given)
        if found is None:
            raise UsageError(
                f"{which}_token {given!r} is not in the vocabulary of the tokenizer "
                f"{tokenizer.name!r}{_close(tokenizer, given)}. {remedy}"
            )
        return found
    if isinstance(given, bool) or not 0 <= given < tokenizer.vocab_size:
        raise UsageError(
            f"{which}_token {given!r} is no id of the tokenizer {tokenizer.name!r}, which has "
            f"the ids 0 to {tokenizer.vocab_size - 1}. {remedy}"
        )
    return given


def _close(tokenizer: Tokenizer, wanted: str) -> str:
    known = (*WELL_KNOWN_EOS, *WELL_KNOWN_BOS)
    names = [*tokenizer.special_tokens, *(n for n in known if tokenizer.token_id(n) is not None)]
    names = list(dict.fromkeys(names))
    close = difflib.get_close_matches(wanted, names, n=3, cutoff=0.5)
    if close:
        return f" (close: {', '.join(close)})"
    if names:
        return f" (its special tokens: {', '.join(names[:8])})"
    return ""
