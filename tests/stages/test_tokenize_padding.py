"""Batches, padding and masks of the stage, against a loop in plain Python."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from easydata.errors import UsageError
from easydata.stages import (
    CallableTokenizer,
    RowTokenizeError,
    TokenizeStage,
    load_tokenizer,
    resolve_special,
)
from easydata.stages.special import WELL_KNOWN_PAD
from tests.bpe import train_bpe

from .conftest import TEXTS, word_level

BYTES = load_tokenizer("bytes").spec()


def naive(
    texts: list[str],
    bos: int | None,
    eos: int | None,
    min_tokens: int,
    max_length: int | None,
    batch_size: int,
    padding: str | None,
) -> tuple[list[list[int]], list[list[int]]]:
    rows: list[list[int]] = []
    masks = []
    for start in range(0, len(texts), batch_size):
        batch = []
        for text in texts[start : start + batch_size]:
            body = list(text.encode())
            if len(body) < min_tokens:
                continue
            row = ([] if bos is None else [bos]) + body
            if max_length is not None:
                row = row[: max_length - (eos is not None)]
            batch.append(row + ([] if eos is None else [eos]))
        target = 0
        if padding == "longest":
            target = max(map(len, batch), default=0)
        elif padding == "max_length":
            target = max_length or 0
        for row in batch:
            pads = max(target - len(row), 0)
            rows.append(row + [9] * pads)
            masks.append([1] * len(row) + [0] * pads)
    return rows, masks


@given(
    texts=st.lists(st.text(max_size=9), max_size=11),
    added=st.tuples(st.sampled_from([None, 257, 9]), st.sampled_from([None, 256, 9])),
    min_tokens=st.integers(0, 5),
    max_length=st.none() | st.integers(3, 9),
    batch_size=st.integers(1, 5),
    padding=st.sampled_from([None, "longest", "max_length"]),
    dtype=st.sampled_from(["uint16", "int64"]),
)
def test_against_a_naive_loop(
    texts: list[str],
    added: tuple[int | None, int | None],
    min_tokens: int,
    max_length: int | None,
    batch_size: int,
    padding: Any,
    dtype: str,
) -> None:
    if padding == "max_length" and max_length is None:
        max_length = 8
    stage = TokenizeStage(
        BYTES,
        dtype,
        *added,
        min_tokens,
        max_length,
        batch_size=batch_size,
        padding=padding,
        pad_id=None if padding is None else 9,
        attention_mask=True,
    )
    rows, masks = naive(texts, *added, min_tokens, max_length, batch_size, padding)
    found = stage(texts)
    assert found.column().to_pylist() == rows
    assert found.lengths.tolist() == [len(row) for row in rows]
    assert found.ids.dtype.name == dtype
    assert found.keep.tolist() == [len(text.encode()) >= min_tokens for text in texts]
    bodies = [n for n in (len(text.encode()) for text in texts) if n >= min_tokens]
    room = 99 if max_length is None else max_length - sum(i is not None for i in added)
    assert found.truncated == sum(n > room for n in bodies)
    if padding is None:
        assert found.mask is None
    else:
        assert found.mask is not None
        assert found.mask.dtype == np.uint8
        column = found.mask_column()
        assert column.type == pa.list_(pa.field("item", pa.uint8()))
        assert column.to_pylist() == masks
        column.validate(full=True)


def test_a_golden_batch() -> None:
    stage = TokenizeStage(
        BYTES, "uint16", 257, 256, batch_size=2, padding="longest", pad_id=0, attention_mask=True
    )
    found = stage(["abc", "d", "", "ef", "g"])
    assert found.column().to_pylist() == [
        [257, 97, 98, 99, 256],
        [257, 100, 256, 0, 0],
        [257, 256, 0, 0],
        [257, 101, 102, 256],
        [257, 103, 256],
    ]
    assert found.mask_column().to_pylist()[:2] == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]


def test_no_mask_unless_asked_for() -> None:
    stage = TokenizeStage(BYTES, "uint16", max_length=4, padding="max_length", pad_id=0)
    assert stage(["abc"]).ids.tolist() == [97, 98, 99, 0]
    assert stage(["abc"]).mask is None


def test_padding_is_that_of_the_library(bpe: Tokenizer) -> None:
    tokenizer = load_tokenizer(bpe)
    bpe.encode_special_tokens = True
    bpe.enable_padding(pad_id=7)
    stage = TokenizeStage(
        tokenizer.spec(), "uint16", batch_size=3, padding="longest", pad_id=7, attention_mask=True
    )
    encodings = [e for i in (0, 3) for e in bpe.encode_batch(TEXTS[i : i + 3])]
    found = stage(TEXTS)
    assert found.column().to_pylist() == [e.ids for e in encodings]
    assert found.mask_column().to_pylist() == [e.attention_mask for e in encodings]


@pytest.mark.parametrize("batch_size", [None, 1, 2, 3, 100])
def test_the_tokenizer_is_given_batches(batch_size: int | None) -> None:
    calls: list[int] = []

    def function(texts: list[str]) -> list[list[int]]:
        calls.append(len(texts))
        return [[len(text)] for text in texts]

    spec = CallableTokenizer(function, vocab_size=99, identity=f"lengths {batch_size}").spec()
    found = TokenizeStage(spec, "uint16", batch_size=batch_size)(list("abcde"))
    assert found.ids.tolist() == [1] * 5
    expected = {None: [5], 1: [1] * 5, 2: [2, 2, 1], 3: [3, 2], 100: [5]}
    assert calls == expected[batch_size]


@pytest.mark.parametrize("bad", [0, 2, 3, 6])
def test_a_bad_text_of_any_batch_is_named(bad: int) -> None:
    texts = ["ok"] * 7
    texts[bad] = "\ud800"
    with pytest.raises(RowTokenizeError, match=rf"^text {bad}: character 0") as caught:
        TokenizeStage(BYTES, "uint16", batch_size=3)(texts)
    assert caught.value.row == bad


def test_the_stage_is_still_a_value() -> None:
    stage = TokenizeStage(BYTES, "uint16", batch_size=2, padding="longest", pad_id=0)
    again = pickle.loads(pickle.dumps(stage))
    assert again == stage
    assert again(["abc", ""]).ids.tolist() == [97, 98, 99, 0, 0, 0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"padding": "longest", "pad_id": 0}, "padding='longest' needs batch_size, which is None"),
        ({"padding": "longest", "batch_size": 2}, "needs pad_id, which is None"),
        ({"padding": "max_length", "pad_id": 0}, "padding='max_length' needs max_length"),
        ({"padding": True, "pad_id": 0}, "padding is True; it must be 'longest', 'max_length'"),
        ({"pad_id": 0}, "pad_id is 0, but nothing is padded"),
        ({"padding": "max_length", "max_length": 9, "pad_id": 65_536}, "pad_id 65536 does not fit"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TokenizeStage(BYTES, "uint16", **options)


def pad_of(tokenizer: Any, given: str | int | None = None) -> int | None:
    return resolve_special(
        load_tokenizer(tokenizer), add_bos=False, add_eos=False, add_pad=True, pad_token=given
    ).pad_id


def test_the_option_then_the_declared_pad_then_a_known_name() -> None:
    from transformers import PreTrainedTokenizerFast

    core = train_bpe(special=("<|endoftext|>", "<fill>", "<pad>"))
    declares = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<fill>")
    assert [pad_of(declares, given) for given in ("<|endoftext|>", 7, 0, None)] == [0, 7, 0, 1]
    assert pad_of(core) == 2
    function = CallableTokenizer(lambda t: [[0] for _ in t], vocab_size=9, identity="x", pad_id=8)
    assert load_tokenizer(function.spec()).declared_pad == pad_of(function) == 8


def test_a_declared_pad_is_stored(tmp_path: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    core = train_bpe(special=("<|endoftext|>", "<fill>"))
    tokenizer = load_tokenizer(PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<fill>"))
    for name, data in tokenizer.files().items():
        (tmp_path / name).write_bytes(data)
    assert load_tokenizer(tmp_path).declared_pad == "<fill>"
    assert load_tokenizer(tmp_path).spec() == tokenizer.spec()


@pytest.mark.parametrize("name", WELL_KNOWN_PAD)
def test_each_well_known_pad(name: str) -> None:
    assert pad_of(word_level(f"x {name}", unk="x")) == 1


def test_no_pad() -> None:
    with pytest.raises(
        Exception, match=r"declares no PAD token.*none of <pad>, .*Name one with pad_token=, or"
    ):
        pad_of("bytes")
    with pytest.raises(UsageError, match=r"pad_token 258 is no id of the tokenizer 'bytes'"):
        pad_of("bytes", 258)
    with pytest.raises(UsageError, match=r"pad_token is 3, but padding is off.*padding='longest'"):
        resolve_special(load_tokenizer("bytes"), add_bos=False, add_eos=False, pad_token=3)
