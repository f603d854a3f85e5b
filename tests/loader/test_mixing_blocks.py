"""Mixtures of data that is decoded in blocks: each source in its own, and ahead of its turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import easydata as ed
from easydata.dataset._shards import Shards
from easydata.errors import UsageError
from easydata.loader.block_order import BlockOrder
from easydata.loader.data_loader import DataLoader
from easydata.loader.mixing import Mixture
from easydata.loader.order import SampleOrder

from .sequences import samples_of
from .sources import Numbers

Runs = npt.NDArray[np.int64]


class Warmed(Numbers):
    """Notes what it is told to have at hand, and what is read that is not."""

    is_mapped = False

    def __init__(self, blocks: list[int], base: int = 0) -> None:
        super().__init__(sum(blocks), base=base)
        self.blocks = blocks
        self.warmed: list[set[int]] = []
        self.missed = 0

    def borders(self) -> Runs:
        return np.append(0, np.cumsum(self.blocks)).astype(np.int64)

    def warm(self, runs: Runs) -> None:
        self.warmed.append({n for first, stop in runs.tolist() for n in range(first, stop)})

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        if self.warmed:  # the types of a mixture are found out by reading a sample
            self.missed += len({*samples.tolist()} - self.warmed[-1])
        return super().read(samples)


@pytest.mark.parametrize("shuffle", ["block", False])
@pytest.mark.parametrize("as_mixture", [True, False])
def test_what_is_read_is_at_hand(shuffle: Any, as_mixture: bool) -> None:
    sources = {"a": Warmed([300] * 20), "b": Warmed([500] * 9, base=10_000), "c": Warmed([256])}
    weights = {"a": 0.75, "b": 0.25, "c": 0.0}
    if as_mixture:
        data: Any = Mixture(sources, weights=weights, shuffle=shuffle)
        loader = DataLoader(data, 20, epochs=1)
    else:
        loader = DataLoader(sources, 20, weights=weights, shuffle=shuffle, epochs=1)
    assert len(list(loader)) == len(loader)
    for name, source in sources.items():
        assert bool(source.warmed) == (name != "c")
        assert source.missed == 0
    if shuffle:
        most = max(len(found) for found in sources["a"].warmed)
        assert most <= 16 * 300 + 2048


def test_a_source_is_told_only_what_is_new() -> None:
    """To be told nothing would have it forget what was announced."""
    sources = {"a": Warmed([300] * 4), "b": Warmed([500] * 9)}
    mixture = Mixture(sources, weights=[0.9, 0.1], shuffle=False)
    walk = DataLoader(mixture, 2)._walk(DataLoader(mixture, 2)._begin)
    for source in sources.values():
        source.warmed.clear()
    seen = [len(walk.take(5).locate(np.arange(5)).read(0, 5)["input_ids"]) for _ in range(6)]
    assert seen == [5] * 6
    visits = mixture.start().take(30)[0].reshape(6, 5)
    for number, source in enumerate(sources.values()):
        assert len(source.warmed) == np.count_nonzero((visits == number).any(axis=1))
        assert all(source.warmed)


def test_each_source_has_its_own_borders() -> None:
    blocks = {"a": [300] * 20, "b": [700, 260, 900, 257] * 3}
    sources = {name: Warmed(sizes, base=30_000 * (name == "b")) for name, sizes in blocks.items()}
    loader = DataLoader(sources, 10, shuffle="block", seed=4, epochs=1)
    mixture = loader._source
    assert isinstance(mixture, Mixture)
    found = np.array(samples_of(loader))[:, 0]
    for (name, source), order in zip(sources.items(), mixture.orders, strict=True):
        its = found[(found >= source.base) & (found < source.base + source.num_samples)]
        expected = BlockOrder(source.borders(), seed=order._seed, epoch=0)
        first = expected.at(np.arange(len(its))) + source.base
        assert its.tolist() == first.tolist(), name


def test_the_borders_are_part_of_what_the_order_follows_from() -> None:
    def sequence(first: list[int], **options: Any) -> dict[str, Any]:
        sources = {"a": Warmed(first), "b": Numbers(400, base=5000)}
        return DataLoader(sources, 5, **options).sequence

    cuts = [300, 400, 300], [400, 300, 300]
    assert sequence(cuts[0], shuffle="block") == sequence(cuts[0], shuffle="block")
    assert sequence(cuts[0], shuffle="block") != sequence(cuts[1], shuffle="block")
    for shuffle in (True, False):
        assert sequence(cuts[0], shuffle=shuffle) == sequence(cuts[1], shuffle=shuffle)
        assert "blocks" not in sequence(cuts[0], shuffle=shuffle)
    loader = DataLoader({"a": Warmed(cuts[0])}, 5, shuffle="block")
    other = DataLoader({"a": Warmed(cuts[1])}, 5, shuffle="block")
    with pytest.raises(UsageError, match="blocks"):
        other.load_state_dict(loader.state_dict())


def test_sources_without_borders_have_the_usual_blocks() -> None:
    mixture = Mixture({"a": Numbers(5000), "b": Numbers(1, base=6000)}, shuffle="block", seed=3)
    sources, samples = mixture.start().take(5001)
    order = SampleOrder(5000, shuffle="block", seed=mixture.orders[0]._seed)
    assert samples[sources == 0].tolist() == order.visits(0, 5000).tolist()


def test_compressed_sources_are_decoded_ahead_and_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        rows = [
            {"text": bytes(rng.integers(97, 123, 400, dtype=np.uint8)).decode()} for _ in range(400)
        ]
        ed.build(rows, tokenizer="bytes", out=tmp_path / name, compression="zstd", part_size="4kB")
    decoded: list[tuple[int, int]] = []
    ahead: set[tuple[int, int]] = set()
    real, warm = Shards._decode, Shards.warm

    def counting(shards: Shards, batch: int) -> Any:
        decoded.append((id(shards), batch))
        return real(shards, batch)

    def counted(shards: Shards, batches: Any) -> None:
        found = list(batches)
        ahead.update((id(shards), batch) for batch in found)
        warm(shards, found)

    monkeypatch.setattr(Shards, "_decode", counting)
    monkeypatch.setattr(Shards, "warm", counted)
    datasets = {name: ed.open_dataset(tmp_path / name) for name in "ab"}
    batches = sum(len(dataset.ledger.batch_offsets) for dataset in datasets.values())
    assert batches > 40
    loader = DataLoader(datasets, 4, 8, shuffle="block", epochs=1)
    found = np.array(samples_of(loader))
    assert len(found) > 30_000
    assert len(ahead) == batches
    assert len(decoded) == len({*decoded}) == batches
