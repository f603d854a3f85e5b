"""Rows to rows: tokenizers, and the stage that applies one.

Importing this package imports neither `tokenizers` nor `transformers`.
"""

from __future__ import annotations

from easydata.stages.base import RowTokenizeError, Tokenizer, TokenizerSpec
from easydata.stages.callable_tokenizer import CallableTokenizer
from easydata.stages.dtypes import TOKEN_DTYPES, choose_dtype
from easydata.stages.load import load_tokenizer
from easydata.stages.special import SpecialTokens, resolve_special
from easydata.stages.tokenize import Tokenized, TokenizeStage

__all__ = [
    "TOKEN_DTYPES",
    "CallableTokenizer",
    "RowTokenizeError",
    "SpecialTokens",
    "TokenizeStage",
    "Tokenized",
    "Tokenizer",
    "TokenizerSpec",
    "choose_dtype",
    "load_tokenizer",
    "resolve_special",
]
