"""What a loader takes as its arguments, and how soon it begins."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import easydata as ed
from easydata.errors import UsageError
from easydata.loader.mixing import Mixture, MixtureRun
from easydata.loader.order import SampleOrder
from tests.loader.sources import Numbers, load
from tests.loader.test_samples import Documents


def rows(loader: ed.DataLoader) -> list[list[int]]:
    return [batch["input_ids"][:, 0].tolist() for batch in loader]


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array])
def test_numbers_of_other_types(kind: Any) -> None:
    plain: dict[str, Any] = {
        "batch_size": 7,
        "seq_len": 4,
        "seed": 3,
        "epochs": 2,
        "shuffle_buffer_size": 20,
        "prefetch_workers": 2,
        "prefetch": 3,
    }
    expected = load(Documents([400]), shuffle=True, **plain)
    given = {name: kind(value) for name, value in plain.items()}
    found = load(Documents([400]), shuffle=True, **given)
    assert rows(found) == rows(expected)
    assert len(found) == len(expected)
    for name in ("batch_size", "seq_len", "seed", "epochs"):
        assert type(getattr(found, name)) is int


def test_sources_that_count_in_other_types() -> None:
    source = Numbers(np.int64(9), seq_len=3)  # type: ignore[arg-type]
    loader = load(source, 4, shuffle=True, epochs=10**19)
    assert type(loader.num_samples) is int
    assert sorted(sum(rows(load(source, 3)), [])) == list(range(9))
    mixed = Mixture({"a": source}, stop_strategy="all_exhausted")
    assert type(mixed.num_samples) is int


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (None, "NoneType"),
        (5, "int"),
        ("cache/corpus", "str"),
        (Path("cache/corpus"), "PosixPath"),
        ([1, 2, 3], "list"),
        (range(9), "range"),
        (np.arange(10), "ndarray"),
        (io.BytesIO(), "BytesIO"),
        ({"a": "cache/corpus"}, "str"),
    ],
)
def test_what_is_no_source(source: Any, name: str) -> None:
    with pytest.raises(UsageError, match=f"a {name} is no source of samples; give a dataset as"):
        load(source, 2, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seq_len": [3]}, r"seq_len is \[3\]; it must be a whole number"),
        ({"seq_len": "3"}, "seq_len is '3'"),
        ({"seq_len": 3.0}, r"seq_len is 3\.0"),
        ({"seq_len": True}, "seq_len is True"),
        ({"epochs": True}, "epochs is True; give 1 or more"),
        ({"epochs": "2"}, "epochs is '2'"),
        ({"epochs": np.float64(2)}, "epochs is "),
        ({"prefetch": 0.0}, r"prefetch is 0\.0; it must be .* from 0 up"),
        ({"prefetch": False}, "prefetch is False"),
        ({"prefetch": None}, "prefetch is None"),
        ({"seed": "1"}, "seed is '1'; it must be a whole number from 0 to"),
        ({"seed": None}, "seed is None"),
        ({"seed": 1.5}, r"seed is 1\.5"),
        ({"seed": True}, "seed is True"),
        ({"batch_size": np.array([2])}, r"batch_size is array\(\[2\]\)"),
    ],
)
@pytest.mark.parametrize("source", [Numbers(9), Mixture({"a": Numbers(9)})])
def test_wrong_arguments(source: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(source, **{"batch_size": 2, **options})


@pytest.mark.parametrize("workers", [0, 1])
def test_stop_iteration_of_a_source_is_no_end(workers: int) -> None:
    class Broken(Numbers):
        def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
            if 6 in samples:
                raise StopIteration
            return super().read(samples)

    batches = iter(load(Broken(12), 3, prefetch=2 * workers, prefetch_workers=max(workers, 1)))
    assert [next(batches)["input_ids"][0, 0] for _ in range(2)] == [0, 3]
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        next(batches)


def test_the_first_batch_does_not_wait_for_the_order_of_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    at, take_sources = SampleOrder.at, MixtureRun.take_sources

    def counted_at(self: SampleOrder, visits: npt.NDArray[np.int64]) -> Any:
        asked.append(len(visits))
        return at(self, visits)

    def counted_take(self: MixtureRun, length: int) -> Any:
        asked.append(length)
        return take_sources(self, length)

    expected = [SampleOrder(50_000, shuffle=True, seed=0).visits(0, 50_000).tolist()]
    mixture = Mixture({"a": Numbers(50_000)}, shuffle=False)
    monkeypatch.setattr(SampleOrder, "at", counted_at)
    monkeypatch.setattr(MixtureRun, "take_sources", counted_take)
    monkeypatch.setattr("easydata.loader.locating._SECONDS", 1e9)  # a pause is no slow source
    for loader, order in (
        (load(Numbers(50_000), 10, shuffle=True), expected[0]),
        (load(mixture, 10), list(range(50_000))),
    ):
        asked.clear()
        next(batches := iter(loader))
        assert sum(asked) <= 100
        visited = sum((batch["input_ids"][:, 0].tolist() for batch in batches), [])
        assert visited == order[10:]
        assert len(asked) < 60
        assert 16000 < max(asked) <= 16384
