"""How users come by what PyTorch and Grain read."""

from __future__ import annotations

import pickle
from itertools import islice
from typing import Any

import pytest

import easydata as ed
from tests.loader.sources import Numbers


def rows(batches: Any) -> list[list[int]]:
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


def test_from_where_the_loader_would_begin() -> None:
    def loader() -> ed.DataLoader:
        return ed.DataLoader(Numbers(11), 4, epochs=2, seed=3)

    expected = rows(loader())
    first = loader()
    steps = iter(first)
    assert rows(islice(steps, 2)) == expected[:2]
    assert rows(first.to_torch()) == rows(first.to_grain()) == expected
    again = loader()
    again.load_state_dict(first.state_dict())
    assert rows(again.to_torch()) == rows(again.to_grain()) == expected[2:]
    assert list(next(iter(first.to_torch(for_transformers=True)))) == ["input_ids", "labels"]
    assert rows(steps) == expected[2:]


@pytest.mark.parametrize("how", ["concat", "greedy"])
def test_a_loader_is_pickled_by_path_whatever_was_read(tmp_path: Any, how: str) -> None:
    dataset = ed.build(
        [{"text": "x" * (n % 50)} for n in range(3000)], tokenizer="bytes", out=tmp_path / "out"
    )
    loader = ed.DataLoader(dataset, 4, 32, pack=how, pad_token_id=257, columns=["document_ids"])
    state = loader.state_dict() | {"samples": 8}
    loader.load_state_dict(state)
    expected = rows(islice(loader.to_torch(), 5))
    for made in (loader, loader.to_torch(), loader.to_grain()):
        pickled = pickle.dumps(made)
        assert len(pickled) < 2000
        assert rows(islice(pickle.loads(pickled), 5)) == expected
    steps = iter(loader)
    next(steps)
    assert rows(islice(pickle.loads(pickle.dumps(loader)), 2)) == rows(islice(loader, 2))


def test_the_exported_names() -> None:
    assert [item["input_ids"][0] for item in ed.TorchDataset(Numbers(3))] == [0, 1, 2]
    assert [item["input_ids"][0] for item in ed.GrainSource(Numbers(3))] == [0, 1, 2]
