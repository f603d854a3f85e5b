"""The arrays of a batch against an oracle that looks at one token after another."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import EasyDataError, UsageError
from easydata.loader import columns as columns_module
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.columns import Columns
from easydata.loader.data_loader import DataLoader

from .sequences import PAD, STRATEGIES
from .sources import Numbers

EVERYTHING = ["input_ids", "segment_ids", "positions", "loss_mask", "labels", "document_ids"]
IGNORED = -100


def sample_oracle(ids: list[int], lengths: list[int]) -> dict[str, list[Any]]:
    """All arrays of a sample of a stream of which token i is i, from its ids alone."""
    document_of = [document for document, length in enumerate(lengths) for _ in range(length)]
    documents = [document_of[token] if token != PAD else -1 for token in ids]
    found: dict[str, list[Any]] = {name: [] for name in EVERYTHING}
    segment = position = 0
    for place, (token, document) in enumerate(zip(ids, documents, strict=True)):
        if document < 0:
            for name, value in zip(EVERYTHING, (PAD, 0, 0, False, IGNORED, -1), strict=True):
                found[name].append(value)
            continue
        if not place or documents[place - 1] != document:
            segment, position = segment + 1, 0
        follows = place + 1 < len(ids) and documents[place + 1] == document
        values = (token, segment, position, True, token + 1 if follows else IGNORED, document)
        for name, value in zip(EVERYTHING, values, strict=True):
            found[name].append(value)
        position += 1
    return found


TYPES = {"loss_mask": "bool", "document_ids": "int64"}


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(0, 30), min_size=1, max_size=25).filter(any),
    seq_len=st.integers(1, 20),
    batch_size=st.integers(1, 7),
    dtype=st.sampled_from(["uint16", "uint32", "int64"]),
    shuffle=st.sampled_from([True, False, "block"]),
    prefetch=st.sampled_from([0, 0, 2]),
    cached_items=st.sampled_from([1, 40, 1 << 17]),
)
def test_every_array_of_every_packing(
    strategy: str,
    lengths: list[int],
    seq_len: int,
    batch_size: int,
    dtype: str,
    shuffle: Any,
    prefetch: int,
    cached_items: int,
) -> None:
    total = sum(lengths)
    data = ArrayTokens(np.arange(total).astype(dtype), lengths)
    loader = DataLoader(
        data,
        batch_size,
        seq_len,
        pack=strategy,
        pad_token_id=PAD,
        columns=EVERYTHING,
        shuffle=shuffle,
        epochs=2,
        drop_last=False,
        prefetch=prefetch,
    )
    seen: list[int] = []
    with mock.patch.object(columns_module, "_CACHED_ITEMS", cached_items):
        batches = list(loader)
    for batch in batches:
        assert list(batch) == EVERYTHING
        rows = batch["input_ids"].tolist()
        seen += [token for row in rows for token in row if token != PAD]
        expected = [sample_oracle(row, lengths) for row in rows]
        for name, array in batch.items():
            assert array.tolist() == [row[name] for row in expected], name
            known = "int64" if dtype == "int64" else "int32"
            kind = dtype if name == "input_ids" else known if name == "labels" else "int32"
            assert array.dtype.name == TYPES.get(name, kind)
    half = len(seen) // 2
    assert sorted(seen[:half]) == sorted(seen[half:])
    if strategy != "pad":
        assert sorted(seen[:half]) == list(range(total))


def test_some_columns_are_as_all_of_them() -> None:
    lengths = [5, 0, 9, 3, 3, 1, 12, 7]
    data = ArrayTokens(np.arange(40), lengths)

    def batches(columns: list[str] | None, strategy: str, pad: int | None) -> list[dict[str, Any]]:
        loader = DataLoader(
            data, 2, 8, pack=strategy, columns=columns, pad_token_id=pad, epochs=1, drop_last=False
        )
        return list(loader)

    for strategy in STRATEGIES:
        everything = batches(EVERYTHING, strategy, PAD)
        for names in (["segment_ids"], ["positions", "labels"], ["document_ids"], ["loss_mask"]):
            for batch, whole in zip(batches(names, strategy, PAD), everything, strict=True):
                assert list(batch) == ["input_ids", *names]
                assert all(np.array_equal(batch[name], whole[name]) for name in batch)
        given = batches(None, strategy, PAD)
        names = ["segment_ids", "positions"] if strategy != "concat" else []
        assert {*given[0]} == {"input_ids", "loss_mask", *names}
    for batch in batches(["loss_mask"], "concat", None):
        assert batch["loss_mask"].all()
        assert batch["loss_mask"].dtype == np.bool_
    assert [list(batch) for batch in batches(None, "concat", None)] == [["input_ids"]] * 3


@pytest.mark.parametrize("pad", [None, PAD])
def test_labels_where_documents_are_not_told_apart(pad: int | None) -> None:
    data = ArrayTokens(np.arange(44), [5] * 8 + [4])
    loader = DataLoader(
        data, 3, 8, columns=["labels"], pad_token_id=pad, shuffle=False, epochs=1, drop_last=False
    )
    found = np.concatenate([batch["labels"] for batch in loader]).tolist()
    whole = [[*range(first + 1, first + 8), IGNORED] for first in range(0, 40, 8)]
    assert found == whole + [[41, 42, 43, *[IGNORED] * 5]] * (pad is not None)


class Given(Numbers):
    """Samples that say where padding is by their segments alone, or by their mask alone."""

    def __init__(self, name: str) -> None:
        super().__init__(6, seq_len=4)
        self.name = name

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        n = len(samples)
        found = {"input_ids": np.tile(np.array([5, 6, 9, 9], np.uint16), (n, 1))}
        if self.name == "segment_ids":
            found["segment_ids"] = np.tile(np.array([1, 1, 0, 0], np.int32), (n, 1))
        else:
            found["loss_mask"] = np.tile(np.array([True, True, False, False]), (n, 1))
        return found


def test_what_a_mask_leaves_out_has_no_labels_within_a_segment_either() -> None:
    class Masked(Given):
        def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
            found = super().read(samples)
            return found | {"loss_mask": np.tile([True, False, True, True], (len(samples), 1))}

    batch = next(iter(DataLoader(Masked("segment_ids"), 2, columns=["labels"])))
    assert batch["labels"].tolist() == [[IGNORED] * 4] * 2


@pytest.mark.parametrize("name", ["segment_ids", "loss_mask"])
def test_padding_has_no_labels(name: str) -> None:
    batch = next(iter(DataLoader(Given(name), 2, columns=["labels", "loss_mask"])))
    assert batch["labels"].tolist() == [[6, IGNORED, IGNORED, IGNORED]] * 2
    assert batch["loss_mask"].tolist() == [[True, True, False, False]] * 2


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("dtype", ["int32", "int64", "uint16", np.uint32, np.dtype("i8"), int])
def test_the_type_that_is_asked_for(dtype: Any, *, shuffle: bool) -> None:
    data = ArrayTokens(np.arange(64_000, dtype=np.uint16))
    options: dict[str, Any] = {"shuffle": shuffle, "epochs": 1}
    plain = DataLoader(data, 8, 100, **options)
    loader = DataLoader(data, 8, 100, dtype=dtype, columns=["labels"], **options)
    for batch, expected in zip(loader, plain, strict=True):
        assert batch["input_ids"].dtype == np.dtype(dtype)
        assert np.array_equal(batch["input_ids"], expected["input_ids"])


@pytest.mark.parametrize(("dtype", "tokens"), [("uint8", 300), ("int8", 200), ("int16", 40_000)])
def test_a_type_that_holds_not_all_tokens(dtype: str, tokens: int) -> None:
    # Other ids than those that were stored must never be handed out.
    data = ArrayTokens(np.arange(tokens, dtype=np.uint16))
    with pytest.raises(EasyDataError, match=f"{dtype}"):
        list(DataLoader(data, 2, 50, dtype=dtype, shuffle=False, epochs=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": ["label"]}, "no column 'label'; did you mean 'labels'"),
        ({"columns": ["xyz"]}, "no column 'xyz'; choose from input_ids, segment_ids"),
        ({"columns": [3]}, "no column 3"),
        ({"columns": "labels"}, "columns is 'labels'; give a list of names"),
        ({"columns": 5}, "columns is 5"),
        ({"dtype": "float32"}, "dtype is float32; token ids are whole numbers"),
        ({"dtype": "bool"}, "dtype is bool"),
        ({"dtype": ">i4"}, "dtype is >i4, in another byte order"),
        ({"dtype": "nothing"}, "dtype is 'nothing'; give a NumPy type"),
    ],
)
def test_wrong_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DataLoader(ArrayTokens(np.arange(20)), 2, 5, **options)


@pytest.mark.parametrize("name", ["segment_ids", "document_ids"])
def test_arrays_that_samples_do_not_have(name: str) -> None:
    message = f"samples have no {name}, only input_ids; .* or leave it out of columns"
    loader = DataLoader(Numbers(9), 2, columns=[name])
    with pytest.raises(UsageError, match=message):
        next(iter(loader))


@pytest.mark.parametrize("shuffle", [True, False, "block"])
@pytest.mark.parametrize(("batch_size", "seq_len"), [(3, 5), (1, 7), (4, 32), (2, 1000)])
def test_several_small_batches_that_are_read_at_once(
    shuffle: Any, batch_size: int, seq_len: int
) -> None:
    ids = np.arange(30_000, dtype=np.uint16)
    data = ArrayTokens(ids)
    loader = DataLoader(data, batch_size, seq_len, shuffle=shuffle, seed=5, columns=["labels"])
    kept = list(islice(loader, 60))
    for batch in kept:
        rows = batch["input_ids"]
        firsts = rows[:, 0].astype(np.int64)
        assert not (firsts % seq_len).any()
        assert np.array_equal(rows, firsts[:, None] + np.arange(seq_len))
        assert np.array_equal(batch["labels"][:, :-1], rows[:, 1:])
        if rows.flags.writeable:
            assert rows.ctypes.data % 64 == 0
        else:
            assert np.shares_memory(rows, ids)
    # What a consumer does to a batch is his own business.
    expected = [batch["input_ids"].copy() for batch in kept]
    for number, batch in enumerate(kept):
        for array in batch.values():
            if array.flags.writeable:
                array[...] = number
        for later, rows in zip(kept[number + 1 :][:3], expected[number + 1 :], strict=False):
            assert np.array_equal(later["input_ids"], rows)
    assert ids.tolist() == list(range(30_000))


def test_stats() -> None:
    data = {"a": ArrayTokens(np.arange(400)), "b": ArrayTokens(np.arange(200))}
    loader = DataLoader(data, 4, 5, weights={"a": 0.75, "b": 0.25})
    for _ in islice(loader, 10):
        pass
    stats = loader.stats
    assert (stats.batches, stats.samples, stats.tokens, stats.views) == (10, 40, 200, 0)
    assert stats.samples_by_source == {"a": 30, "b": 10}
    views = DataLoader(data["a"], 4, 5, shuffle=False, epochs=1)
    assert len(list(views)) == views.stats.views == 20


def test_labels_of_samples_on_the_disk_need_what_is_stored_beside_them(tmp_path: Path) -> None:
    rows = [{"text": "x" * n} for n in (3, 5, 2, 7, 30, 1, 4)]
    options: dict[str, Any] = {"tokenizer": "bytes", "seq_len": 16, "pad_token": 0}
    ds = ed.build(rows, out=tmp_path / "d", pack="greedy", segment_ids=True, **options)
    assert {"segment_ids", "loss_mask"} <= set(ds.sample_columns)
    every = next(iter(DataLoader(ds, len(ds), shuffle=False, columns=["labels", "segment_ids"])))
    (alone,) = [next(iter(DataLoader(ds, len(ds), shuffle=False, columns=["labels"])))]
    assert set(alone) == {"input_ids", "labels"}
    assert np.array_equal(alone["labels"], every["labels"])
    ids, segments = every["input_ids"].astype(int), every["segment_ids"]
    for row in range(len(ds)):
        for place in range(16):
            is_next = place < 15 and segments[row, place + 1] == segments[row, place] != 0
            expected = ids[row, place + 1] if is_next else -100
            assert alone["labels"][row, place] == expected


def test_a_mask_follows_from_stored_segments() -> None:
    class Segments(Numbers):
        sample_columns: ClassVar[dict[str, Any]] = {"input_ids": None, "segment_ids": None}

    assert Columns(["loss_mask"], None).needed(Segments.sample_columns) == [
        "input_ids",
        "segment_ids",
    ]
    assert Columns(["input_ids"], None).needed(Segments.sample_columns) == ["input_ids"]
    assert Columns(None, None).needed(Segments.sample_columns) is None


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("names", [EVERYTHING, ["labels", "loss_mask"]])
@pytest.mark.parametrize("is_mixture", [False, True])
def test_every_array_lies_at_a_multiple_of_64(
    strategy: str, names: list[str], is_mixture: bool
) -> None:
    source = ArrayTokens(np.arange(5000, dtype=np.uint16), np.full(500, 10))
    data = {"a": source, "b": source} if is_mixture else source
    loader = DataLoader(data, 4, 64, pack=strategy, columns=names, pad_token_id=PAD, epochs=1)
    for batch in loader:
        assert {name: array.ctypes.data % 64 for name, array in batch.items()} == dict.fromkeys(
            ["input_ids", *names], 0
        )
        assert all(array.flags.writeable for array in batch.values())


@pytest.mark.parametrize("shuffle", [True, "block"])
@pytest.mark.parametrize("options", [{}, {"prefetch": 2}, {"shard_count": 8}])
def test_what_is_shuffled_is_always_a_copy(shuffle: Any, options: dict[str, Any]) -> None:
    """Also where the samples of a batch happen to follow one another, as a single one does."""
    ids = np.arange(8 * 64 * 20, dtype=np.uint16)
    size = options.get("shard_count", 1)
    loader = DataLoader(ArrayTokens(ids), size, 64, epochs=2, shuffle=shuffle, **options)
    for batch in loader:
        found = batch["input_ids"]
        assert found.flags.writeable
        assert found.ctypes.data % 64 == 0
        found[:] = 0
    assert loader.stats.views == 0
    assert np.array_equal(ids, np.arange(8 * 64 * 20, dtype=np.uint16))
