from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from easydata.errors import TokenizerError, UsageError
from easydata.stages import RowTokenizeError, load_tokenizer

BYTES = load_tokenizer("bytes")


@given(st.lists(st.text()))
def test_round_trip(texts: list[str]) -> None:
    ids, lengths = BYTES.encode(texts)
    assert ids.dtype == np.uint32
    assert lengths.tolist() == [len(text.encode()) for text in texts]
    assert ids.tolist() == list("".join(texts).encode())
    for text, row in zip(texts, np.split(ids, np.cumsum(lengths)[:-1]), strict=False):
        assert BYTES.decode(row) == text
        assert BYTES.decode([257, *row.tolist(), 256]) == text


def test_attributes() -> None:
    assert (BYTES.name, BYTES.vocab_size) == ("bytes", 258)
    assert (BYTES.declared_eos, BYTES.declared_bos) == (256, 257)
    assert BYTES.fingerprint == "a4c92854308088fb614b603f5fc5e1fe"
    assert BYTES.notes == BYTES.special_tokens == ()


def test_decode_replaces_what_is_not_utf8() -> None:
    assert BYTES.decode([0x61, 0xC3]) == "a\ufffd"
    with pytest.raises(TokenizerError, match=r"cannot decode id 258: the tokenizer 'bytes' has"):
        BYTES.decode([258])


def test_token_id() -> None:
    assert BYTES.token_id("a") == 97
    assert BYTES.token_id("é") is None
    assert BYTES.token_id("</s>") is None


def test_a_lone_surrogate_is_named() -> None:
    with pytest.raises(RowTokenizeError, match=r"half of a surrogate pair") as caught:
        BYTES.encode(["fine", "\udfff"])
    assert caught.value.row == 1


def test_special_tokens_cannot_be_parsed() -> None:
    with pytest.raises(UsageError, match=r"parse_special=True .*'bytes'.*no special tokens"):
        load_tokenizer("bytes", parse_special=True)
    assert load_tokenizer("bytes", parse_special=False).name == "bytes"
