"""What must hold of arrays over several devices; run together with `jax_checks.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from easydata.errors import UsageError
from easydata.loader.data_loader import DataLoader
from tests.loader.jax_checks import SEQ_LEN, address, assert_equal, samples, tokens
from tests.loader.sources import Numbers


def mesh(*shape: int) -> Mesh:
    return Mesh(np.array(jax.devices()).reshape(shape), ("data", "model")[: len(shape)])


def shardings() -> Iterator[Sharding]:
    yield NamedSharding(mesh(8), PartitionSpec("data"))
    yield NamedSharding(mesh(8), PartitionSpec(None, "data"))
    yield NamedSharding(mesh(8), PartitionSpec())
    for spec in [("data",), ("model",), ("data", "model"), (("data", "model"),)]:
        yield NamedSharding(mesh(4, 2), PartitionSpec(*spec))
    yield jax.sharding.SingleDeviceSharding(jax.devices()[3])


@pytest.mark.parametrize("number", range(8))
def test_a_global_array_is_the_batch(number: int) -> None:
    sharding = list(shardings())[number]
    loader = DataLoader(samples(tokens()), 16, epochs=1)
    batches = loader.to_jax(sharding)
    assert_equal(batches, loader)
    for batch, expected in zip(batches, loader, strict=True):
        ids = batch["input_ids"]
        assert ids.sharding.is_equivalent_to(sharding, 2)
        assert ids.shape == (16, SEQ_LEN)
        for piece in ids.addressable_shards:
            np.testing.assert_array_equal(piece.data, expected["input_ids"][piece.index])


def test_a_cast_keeps_the_sharding() -> None:
    sharding = NamedSharding(mesh(4, 2), PartitionSpec("data", "model"))
    loader = DataLoader(samples(tokens()), 16, epochs=1)
    batches = loader.to_jax(sharding, dtype="int32")
    assert_equal(batches, loader)
    first = next(iter(batches))["input_ids"]
    assert first.dtype == np.int32
    assert first.sharding.is_equivalent_to(sharding, 2)


def test_every_device_uses_its_rows_where_they_are() -> None:
    array = tokens()
    sharding = NamedSharding(mesh(8), PartitionSpec("data"))
    batches = DataLoader(samples(array), 8, shuffle=False, epochs=1).to_jax(sharding)
    for number, batch in enumerate(batches):
        for row, piece in enumerate(batch["input_ids"].addressable_shards):
            place = address(array) + (number * 8 + row) * SEQ_LEN * 2
            assert piece.data.unsafe_buffer_pointer() == place


class Held(Sharding):
    """What this process would see of a sharding over several, by which its devices hold rows."""

    def __init__(self, *rows: slice) -> None:
        self._rows = rows

    def addressable_devices_indices_map(self, global_shape: Any) -> Any:
        return {device: (rows, slice(None)) for device, rows in enumerate(self._rows)}


def test_what_cannot_be_split_is_refused() -> None:
    by_rows = NamedSharding(mesh(8), PartitionSpec("data"))
    refused: list[tuple[dict[str, Any], Any, str]] = [
        ({"batch_size": 12}, by_rows, r"batches of 12 samples of 3 tokens cannot .*divide"),
        ({}, NamedSharding(mesh(8), PartitionSpec(None, "data")), "cannot be split"),
        ({}, mesh(8), r"sharding is Mesh.*give a jax\.sharding\.Sharding"),
        ({}, PartitionSpec("data"), "sharding is P.*give a"),
        ({"drop_last": False}, by_rows, "drop_last is False"),
        (
            {"shard_index": 1, "shard_count": 2},
            by_rows,
            r"reads rows 8 to 15 of a batch of 16, but .* hold 0 to 15; use shard_index=0, shard_c",
        ),
        (
            {"shard_index": 1, "shard_count": 2},
            NamedSharding(mesh(8), PartitionSpec()),
            "hold 0 to 15; use shard_index=0, shard_count=1 here",
        ),
        (
            {"shard_index": 3, "shard_count": 8},
            Held(slice(8, 12), slice(12, 16)),
            "rows 6 to 7 .* hold 8 to 15; use shard_index=1, shard_count=2 here",
        ),
        ({"shard_index": 3, "shard_count": 8}, Held(slice(4, 12)), "hold 4 to 11; use a mesh"),
        ({"shard_index": 0, "shard_count": 2}, Held(), "hold none; use a mesh whose"),
    ]
    for options, sharding, message in refused:
        loader = DataLoader(Numbers(50), **{"batch_size": 16, "epochs": 1} | options)
        with pytest.raises(UsageError, match=message):
            loader.to_jax(sharding)
    with pytest.raises(UsageError, match="prefetch is -1"):
        DataLoader(Numbers(50), 4).to_jax(prefetch=-1)
