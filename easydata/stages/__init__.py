"""Rows to rows: tokenizers, and the stage that applies one.

Importing this package imports neither `tokenizers` nor `transformers`.
"""

from __future__ import annotations

from easydata.stages.base import RowTokenizeError, Tokenizer, TokenizerSpec
from easydata.stages.callable_tokenizer import CallableTokenizer
from easydata.stages.chat import ChatTemplate, ConversationError, chat_template_of
from easydata.stages.compare import tokenizer_differences
from easydata.stages.dtypes import TOKEN_DTYPES, choose_dtype
from easydata.stages.load import load_tokenizer
from easydata.stages.source_hash import tokenizer_source_hash
from easydata.stages.special import SpecialTokens, resolve_special
from easydata.stages.tokenize import Tokenized, TokenizeStage

__all__ = [
    "TOKEN_DTYPES",
    "CallableTokenizer",
    "ChatTemplate",
    "ConversationError",
    "RowTokenizeError",
    "SpecialTokens",
    "TokenizeStage",
    "Tokenized",
    "Tokenizer",
    "TokenizerSpec",
    "chat_template_of",
    "choose_dtype",
    "load_tokenizer",
    "resolve_special",
    "tokenizer_differences",
    "tokenizer_source_hash",
]
