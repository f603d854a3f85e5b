"""Where a loader stands: what counts, what may differ, what is refused."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import pytest

from easydata.errors import FormatVersionError, UsageError
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.data_loader import DataLoader

from .sequences import (
    SEQ_LEN,
    content,
    documents,
    loaders,
    mixed,
    mixture,
    packed,
)
from .sources import Numbers


@pytest.mark.parametrize("name", ["pool, block", "linear, restart, block"])
@pytest.mark.parametrize("workers", [1, 3])
def test_what_was_read_ahead_does_not_count(name: str, workers: int) -> None:
    make = loaders()[name]
    plain = make()
    ahead = make(prefetch=9, prefetch_workers=workers)
    for step, (batch, expected) in enumerate(zip(ahead, islice(plain, 40), strict=False)):
        assert content(batch) == content(expected)
        state = ahead.state_dict()
        assert state == plain.state_dict()
        assert state["samples"] == (step + 1) * 3
        if step % 13 == 5:
            resumed = make(prefetch=4, prefetch_workers=workers)
            resumed.load_state_dict(state)
            again = make()
            again.load_state_dict(state)
            pairs = zip(islice(resumed, 30), again, strict=False)
            assert all(content(one) == content(other) for one, other in pairs)


@pytest.mark.parametrize("name", loaders())
def test_a_state_is_small_and_of_constant_size(name: str) -> None:
    loader = loaders()[name]()
    sizes = []
    for _ in islice(loader, 150):
        state = loader.state_dict()
        assert json.loads(json.dumps(state)) == state
        sizes.append(len(json.dumps(state)))
    assert sizes[-1] < 1000
    assert sizes[-1] - sizes[0] <= 4 * 3  # the digits of the counts


def test_an_iterator_goes_back_and_forth() -> None:
    for prefetch in (0, 3):
        loader = mixed("linear", "restart", prefetch=prefetch)
        iterator = iter(loader)
        states, batches = [iterator.get_state()], []
        for batch in islice(iterator, 30):
            batches.append(content(batch))
            states.append(iterator.get_state())
        for step in (25, 3, 0, 29, 29):
            iterator.set_state(states[step])
            assert iterator.state_dict() == loader.state_dict() == states[step]
            assert content(next(iterator)) == batches[step]
        iterator.close()


def test_a_loaded_state_serves_one_iteration() -> None:
    loader = packed("concat", "all")
    first = [content(batch) for batch in islice(loader, 6)]
    loader.load_state_dict(loader.state_dict() | {"samples": 9})
    assert [content(batch) for batch in islice(loader, 3)] == first[3:]
    assert [content(batch) for batch in islice(loader, 6)] == first


def test_two_iterations_at_once_stand_where_they_stand() -> None:
    loader = packed("greedy", "all")
    one, other = iter(loader), iter(loader)
    for _ in range(5):
        next(one)
    next(other)
    assert one.state_dict()["samples"] == 15
    assert other.state_dict() == loader.state_dict() == one.state_dict() | {"samples": 3}


def test_changing_a_state_changes_no_loader() -> None:
    loader = mixed("constant", "restart")
    iterator = iter(loader)
    next(iterator)
    for source in (loader, iterator):
        state = source.state_dict()
        expected = copy.deepcopy(state)
        state["order"]["sources"]["a"] = "other"
        state["counts"]["a"] += 1
        assert source.state_dict() == expected


def differing(**options: Any) -> DataLoader:
    lengths = [5] * 40
    data = options.pop("data", ArrayTokens(np.arange(200, dtype=np.uint16), lengths))
    given = {"seq_len": 8, "pack": "concat", "seed": 1, "pad_token_id": 300, **options}
    return DataLoader(data, 2, **given)


OTHER_TOKENS = r"tokens was '[0-9a-f]+' and is '[0-9a-f]+' \(the identity of the data\)"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"seed": 2}, "seed was 1 and is 2"),
        ({"seq_len": 16}, "seq_len was 8 and is 16"),
        ({"pack": "greedy"}, "packing was 'concat' and is 'greedy'"),
        ({"shuffle": False}, "shuffle was True and is False"),
        ({"shuffle": "block"}, "shuffle was True and is 'block'"),
        ({"shuffle_buffer_size": 5}, "shuffle_buffer_size was 'not there' and is 5"),
        ({"pad_token_id": 301}, "pad_token_id was 300 and is 301"),
        ({"data": ArrayTokens(np.arange(1, 201, dtype=np.uint16))}, OTHER_TOKENS),
        ({"data": ArrayTokens(np.arange(200, dtype=np.uint32))}, OTHER_TOKENS),
        (
            {"data": Numbers(9), "seq_len": None, "pad_token_id": None},
            r"samples was 'not there' and is '9 from 0' \(the identity of the data\)",
        ),
        ({"data": {"a": documents(30), "b": documents(9)}}, "sources was 'not there' and is {"),
    ],
)
def test_a_state_of_another_sequence(options: dict[str, Any], names: str) -> None:
    loader, other = differing(), differing(**options)
    next(iter(loader))
    state = loader.state_dict()
    before = other.state_dict()
    with pytest.raises(UsageError, match=f"belongs to another sequence of samples: .*{names}"):
        other.load_state_dict(state)
    assert other.state_dict() == before
    with pytest.raises(UsageError, match="belongs to another sequence"):
        loader.load_state_dict(before)


@pytest.mark.parametrize(
    "other",
    [
        lambda: mixed("linear", "restart"),
        lambda: mixed("constant", "all_exhausted"),
        lambda: mixed("constant", "restart", "window"),
        lambda: DataLoader(mixture("constant", "restart").sources, 3, weights=[0.2, 0.7, 0.1]),
        lambda: DataLoader({"a": documents(400)}, 3, SEQ_LEN, seed=3),
    ],
)
def test_a_state_of_another_mixture(other: Callable[[], DataLoader]) -> None:
    state = mixed("constant", "restart").state_dict()
    with pytest.raises(UsageError, match=r"belongs to another sequence of samples: .* was .* and "):
        other().load_state_dict(state)


@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 5},
        {"columns": ["labels", "segment_ids"]},
        {"dtype": np.int64},
        {"prefetch": 2},
        {"drop_last": False},
        {"epochs": 7},
        {"batch_size": 4, "shard_index": 1, "shard_count": 4},
    ],
)
@pytest.mark.parametrize("is_mixed", [False, True])
def test_what_changes_no_sequence_may_differ(options: dict[str, Any], *, is_mixed: bool) -> None:
    # The order does not depend on which arrays are asked for, nor on who reads them.
    def make(**options: Any) -> DataLoader:
        given: dict[str, Any] = {"batch_size": 3, "seq_len": SEQ_LEN, **options}
        data = {"a": documents(90), "b": documents(50, first=9000)} if is_mixed else documents(90)
        return DataLoader(data, **given)

    loader = make()
    list(islice(loader, 4))
    other = make(**options)
    other.load_state_dict(loader.state_dict())
    found = next(iter(other))["input_ids"].tolist()
    expected = [row for batch in islice(loader, 8) for row in batch["input_ids"].tolist()][12:]
    first = options.get("shard_index", 0)
    assert found == expected[first : first + len(found)]


def with_changes(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {**state, **changes}


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda state: {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize("is_mixed", [False, True])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: None, "None is no state of a loader"),
        (lambda _: [], r"\[\] is no state of a loader"),
        (json.dumps, "is no state of a loader; give what its state_dict"),
        (lambda _: {}, "{} is no state"),
        (without("version"), "is no state"),
        (without("order"), "is no state"),
        (without("samples"), "is no state"),
        (with_changes(order=5), "the state's order is 5"),
        (lambda state: {**state, "order": {**state["order"], 5: 1, "z": 2}}, "another sequence"),
        (with_changes(samples=-1), "number of samples is -1"),
        (with_changes(samples=1.5), "number of samples is 1.5"),
        (with_changes(samples="3"), "number of samples is '3'"),
        (with_changes(samples=True), "number of samples is True"),
        (with_changes(samples=None), "number of samples is None"),
        (with_changes(samples=2**70), "samples"),
    ],
)
def test_what_is_no_state(change: Any, message: str, *, is_mixed: bool) -> None:
    refuses(change, message, is_mixed=is_mixed)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_changes(counts=5), "counts"),
        (with_changes(counts=[30, 20, 10]), "counts"),
        (with_changes(counts={"a": "x", "b": 3, "c": 1}), "count"),
        (with_changes(counts={"a": 12}), "count"),
        (with_changes(counts={"a": 1, "b": 2, "c": 3}), "add up to 6, but it is of 12 samples"),
        (with_changes(counts={"a": 0, "b": 2, "c": 10}), "count"),
        (with_changes(counts={"a": 20, "b": -8, "c": 0}), "count"),
        (with_changes(counts=None), "counts"),
        (without("counts"), "counts"),
    ],
)
def test_wrong_counts(change: Any, message: str) -> None:
    refuses(change, message, is_mixed=True)


def refuses(change: Any, message: str, *, is_mixed: bool) -> None:
    loader = mixed("constant", "restart") if is_mixed else packed("greedy", "all")
    iterator = iter(loader)
    list(islice(iterator, 4))
    state = loader.state_dict()
    wrong = change(copy.deepcopy(state))
    with pytest.raises(UsageError, match=message):
        loader.load_state_dict(wrong)
    with pytest.raises(UsageError, match=message):
        iterator.load_state_dict(wrong)
    # Nothing has happened.
    assert loader.state_dict() == iterator.state_dict() == state
    other = mixed("constant", "restart") if is_mixed else packed("greedy", "all")
    expected = [content(batch) for batch in islice(other, 5)][4]
    assert content(next(iterator)) == expected


@pytest.mark.parametrize("version", [2, 99, "2"])
def test_a_newer_state(version: Any) -> None:
    loader = packed("concat", "all")
    state = loader.state_dict() | {"version": version}
    with pytest.raises(FormatVersionError, match=f"has version {version!r}, but .* knows 1; use"):
        loader.load_state_dict(state)


def test_a_pickled_loader_stands_where_it_would_begin() -> None:
    loader = DataLoader(documents(400), 3, SEQ_LEN)
    iterator = iter(loader)
    for _ in range(4):
        next(iterator)
    other = DataLoader(documents(400), 3, SEQ_LEN)
    other.load_state_dict(loader.state_dict())
    copied = pickle.loads(pickle.dumps(other))
    assert copied.state_dict() == loader.state_dict()
    assert np.array_equal(next(iter(copied))["input_ids"], next(iterator)["input_ids"])
