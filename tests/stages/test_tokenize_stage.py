from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from easydata.errors import TokenizerError, UsageError
from easydata.stages import (
    CallableTokenizer,
    RowTokenizeError,
    Tokenized,
    TokenizeStage,
    load_tokenizer,
)
from easydata.stages import tokenize as module

from .conftest import TEXTS

BYTES = load_tokenizer("bytes").spec()


def naive(
    texts: list[str], bos: int | None, eos: int | None, min_tokens: int, max_length: int | None
) -> tuple[list[list[int]], list[bool], int]:
    rows, keep, truncated = [], [], 0
    for text in texts:
        body = list(text.encode())
        keep.append(len(body) >= min_tokens)
        if not keep[-1]:
            continue
        row = ([] if bos is None else [bos]) + body
        if max_length is not None and len(row) + (eos is not None) > max_length:
            row = row[: max_length - (eos is not None)]
            truncated += 1
        rows.append(row + ([] if eos is None else [eos]))
    return rows, keep, truncated


@given(
    texts=st.lists(st.text(max_size=12), max_size=8),
    added=st.tuples(st.sampled_from([None, 257, 65]), st.sampled_from([None, 256, 65])),
    min_tokens=st.integers(0, 6),
    max_length=st.none() | st.integers(3, 9),
    dtype=st.sampled_from(["uint16", "uint32", "int32", "int64"]),
)
def test_against_a_naive_loop(
    texts: list[str],
    added: tuple[int | None, int | None],
    min_tokens: int,
    max_length: int | None,
    dtype: str,
) -> None:
    bos, eos = added
    rows, keep, truncated = naive(texts, bos, eos, min_tokens, max_length)
    found = TokenizeStage(BYTES, dtype, bos, eos, min_tokens, max_length)(texts)
    assert found.ids.tolist() == [i for row in rows for i in row]
    assert found.lengths.tolist() == [len(row) for row in rows]
    assert found.keep.tolist() == keep
    assert found.truncated == truncated
    assert (found.ids.dtype.name, found.lengths.dtype.name) == (dtype, "int64")
    column = found.column()
    assert column.type == pa.list_(pa.field("item", getattr(pa, dtype)()))
    assert column.to_pylist() == rows
    column.validate(full=True)


def test_a_row_of_exactly_max_length_is_not_truncated() -> None:
    stage = TokenizeStage(BYTES, "uint16", 257, 256, max_length=5)
    assert stage(["abc"]).truncated == 0
    found = stage(["abcd"])
    assert found.ids.tolist() == [257, 97, 98, 99, 256]
    assert found.truncated == 1


def test_the_column_is_a_view() -> None:
    found = TokenizeStage(BYTES, "uint16", None, 256)(["ab", "c"])
    values = found.column().values
    assert values.buffers()[1].address == found.ids.ctypes.data


def test_a_column_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LIST_VALUES", 3)
    stage = TokenizeStage(BYTES, "uint16")
    assert len(stage(["abc"]).column()) == 1
    with pytest.raises(TokenizerError, match=r"4 token ids in 2 rows .*holds \(3\)"):
        stage(["ab", "cd"]).column()


def test_an_id_that_does_not_fit_names_its_row() -> None:
    rows = {"a": [1, 2], "b": [], "c": [3, 65_535, 70_000], "d": [80_000]}
    tokenizer = CallableTokenizer(
        lambda texts: [rows[t] for t in texts], vocab_size=100_000, identity="test"
    )
    stage = TokenizeStage(tokenizer.spec(), "uint16", min_tokens=1)
    assert stage(["a", "b"]).ids.tolist() == [1, 2]
    with pytest.raises(RowTokenizeError, match=r"token id 70000 does not fit uint16") as caught:
        stage(["a", "b", "b", "c", "d"])
    assert caught.value.row == 3
    assert "65535" in caught.value.reason
    assert "--dtype" in caught.value.reason
    for texts, row in ((["d"], 0), (["a", "d"], 1), (["a", "b", "d", "a"], 2)):
        with pytest.raises(RowTokenizeError, match=r"token id 80000") as caught:
            stage(texts)
        assert caught.value.row == row
    with pytest.raises(RowTokenizeError, match=r"token id 65535 does not fit uint8"):
        TokenizeStage(tokenizer.spec(), "uint8")(["a", "c"])
    # What is cut off need not fit.
    assert TokenizeStage(tokenizer.spec(), "uint16", max_length=2)(["c"]).ids.tolist() == [
        3,
        65_535,
    ]


def test_the_largest_id_of_a_type_fits() -> None:
    tokenizer = CallableTokenizer(
        lambda texts: [[65_535] for _ in texts], vocab_size=70_000, identity="test"
    )
    assert TokenizeStage(tokenizer.spec(), "uint16")([""]).ids.tolist() == [65_535]


def test_the_row_error_travels_between_processes() -> None:
    error = pickle.loads(pickle.dumps(RowTokenizeError(3, "why")))
    assert (error.row, error.reason, str(error)) == (3, "why", "text 3: why")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "auto"}, "pass choose_dtype"),
        ({"dtype": "float16"}, "no type for token ids"),
        ({"dtype": "uint8", "eos_id": 256}, "eos_id 256 does not fit uint8, which ends at 255"),
        ({"bos_id": 65_536}, "bos_id 65536 does not fit uint16"),
        ({"bos_id": -1}, "bos_id -1 does not fit"),
        ({"min_tokens": -1}, "min_tokens is -1"),
        ({"max_length": 0}, "max_length is 0, of which BOS and EOS take 0.*Pass 1 or more"),
        ({"max_length": 2, "bos_id": 1, "eos_id": 2}, "BOS and EOS take 2.*Pass 3 or more"),
    ],
)
def test_wrong_options(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TokenizeStage(**{"spec": BYTES, "dtype": "uint16"} | options)  # type: ignore[arg-type]


def test_bytes_fit_uint8_without_added_tokens() -> None:
    assert TokenizeStage(BYTES, "uint8")(["é"]).ids.tolist() == [195, 169]


def test_the_tokenizer_is_made_once_in_a_process(
    bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = load_tokenizer(bpe).spec()
    made = []
    load = type(spec).load

    def counted(self: object) -> object:
        made.append(self)
        return load(self)  # type: ignore[arg-type]

    monkeypatch.setattr(type(spec), "load", counted)
    module._tokenizer.cache_clear()
    stage = TokenizeStage(spec, "uint16")
    for _ in range(3):
        stage(["a"])
        pickle.loads(pickle.dumps(stage))(["b"])
    assert len(made) == 1


def test_in_another_process(
    bpe: Tokenizer, tmp_path: Path, fresh_python: Callable[..., str]
) -> None:
    stage = TokenizeStage(load_tokenizer(bpe).spec(), "uint16", eos_id=0, max_length=9)
    path = tmp_path / "stage"
    path.write_bytes(pickle.dumps((stage, TEXTS)))
    program = (
        "import sys, pickle; stage, texts = pickle.loads(open(sys.argv[1], 'rb').read());"
        "found = stage(texts); print(found.column().to_pylist(), found.truncated)"
    )
    here = stage(TEXTS)
    expected = f"{here.column().to_pylist()} {here.truncated}\n"
    assert fresh_python(program, str(path), hash_seed=5) == expected


def test_no_texts() -> None:
    found = TokenizeStage(BYTES, "uint16", eos_id=256)([])
    assert (len(found.ids), len(found.lengths), len(found.keep)) == (0, 0, 0)
    assert len(found.column()) == 0


def test_tokenized_arrays_can_be_written() -> None:
    found = TokenizeStage(BYTES, "uint16")(["ab"])
    assert isinstance(found, Tokenized)
    found.ids[0] = 7
    assert found.ids.tolist() == [7, 98]
    assert np.shares_memory(found.ids, found.column().values.to_numpy())
