"""What a dataset does with its record batches, counted."""

from __future__ import annotations

from typing import Any

import pytest

from easydata.dataset._shards import Shards


def batches_given_to(method: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of the record batches that this method of `Shards` is called with from now on."""
    numbers: list[int] = []
    real = getattr(Shards, method)

    def counting(shards: Shards, batch: int) -> Any:
        numbers.append(batch)
        return real(shards, batch)

    monkeypatch.setattr(Shards, method, counting)
    return numbers
