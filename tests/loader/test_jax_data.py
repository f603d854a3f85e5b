"""JAX, in processes of its own: forks after JAX was used warn."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from easydata.errors import MissingDependencyError
from easydata.loader.data_loader import DataLoader
from easydata.loader.jax_data import to_device
from tests.loader.sources import Numbers

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments: str, devices: int) -> subprocess.Popen[str]:
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_in_one_process_with_eight_devices() -> None:
    paths = [f"tests/loader/{name}.py" for name in ("jax_checks", "jax_sharding_checks")]
    checks = start("-m", "pytest", "-q", "-x", *paths, devices=8)
    output, errors = checks.communicate(timeout=300)
    assert checks.returncode == 0, output + errors
    assert " passed in " in output


def run_hosts(count: int) -> list[list[Any]]:
    """The lines that each of so many hosts with two devices prints."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = ("-m", "tests.loader.jax_hosts", str(port))
    hosts = [start(*command, str(host), str(count), devices=2) for host in range(count)]
    try:
        outputs = [host.communicate(timeout=300) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    for host, (_, errors) in zip(hosts, outputs, strict=True):
        assert host.returncode == 0, errors
    return [list(map(json.loads, output.splitlines())) for output, _ in outputs]


def test_two_hosts_hold_what_one_would_and_a_mixed_up_mesh_is_refused() -> None:
    (*first, first_error), (*second, second_error) = run_hosts(2)
    batches = [batch["input_ids"] for batch in DataLoader(Numbers(50), 8, epochs=1)]
    assert len(batches) == 6
    for mine, others, batch in zip(first, second, batches, strict=True):
        pieces = sorted([*mine, *others])
        assert [row for row, _ in pieces] == [0, 2, 4, 6]
        np.testing.assert_array_equal(np.concatenate([ids for _, ids in pieces]), batch)

    assert "reads rows 0 to 3 of a batch of 8, but the devices" in first_error
    assert "hold 0 to 1, 4 to 5; use a mesh" in first_error
    assert "reads rows 4 to 7" in second_error
    assert "hold 2 to 3, 6 to 7; use a mesh" in second_error


def test_without_jax_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jax", None)
    loader = DataLoader(Numbers(9), 3)
    with pytest.raises(MissingDependencyError, match=r"to_jax\(\) needs .*easydata\[jax\]"):
        loader.to_jax()
    with pytest.raises(MissingDependencyError, match=r"prefetch_to_device=True .*easydata\[jax\]"):
        to_device({"input_ids": np.zeros(3, np.int32)})
