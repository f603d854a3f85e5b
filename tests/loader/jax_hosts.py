"""One of several hosts that feed one mesh; `test_jax_data.py` starts them.

    python -m tests.loader.jax_hosts PORT HOST HOSTS

Prints what its devices hold of each batch, as JSON: [first row, ids of the rows] for each device,
and then the error about a mesh in which the devices of the hosts take turns.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from easydata.errors import UsageError
from easydata.loader.data_loader import DataLoader
from tests.loader.sources import Numbers

BATCH, SAMPLES = 8, 50


def over(devices: list[Any]) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))


def main() -> None:
    port, host, hosts = map(int, sys.argv[1:])
    jax.distributed.initialize(f"localhost:{port}", num_processes=hosts, process_id=host)
    assert jax.process_count() == hosts
    loader = DataLoader(
        Numbers(SAMPLES),
        BATCH,
        epochs=1,
        shard_index=jax.process_index(),
        shard_count=jax.process_count(),
    )
    devices = jax.devices()
    for batch in loader.to_jax(over(devices), dtype="int32"):
        ids = batch["input_ids"]
        assert ids.shape == (BATCH, 3)
        assert not ids.is_fully_addressable
        pieces = ids.addressable_shards
        print(json.dumps([(p.index[0].start, np.asarray(p.data).tolist()) for p in pieces]))
    try:
        loader.to_jax(over([*devices[::2], *devices[1::2]]))
    except UsageError as error:
        print(json.dumps(str(error)))


if __name__ == "__main__":
    main()
