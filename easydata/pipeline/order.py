"""Which stages a pipeline has, and in what order they may be called."""

from __future__ import annotations

from collections.abc import Sequence

from easydata.errors import UsageError

__all__ = ["STAGES", "check_next"]

STAGES = ("source", "tokenize", "cache", "mix", "pack", "save", "load")

# What a stage may not come after. Mixing and packing may change places: each dataset is packed on
# its own, whatever the order.
_NOT_AFTER = {
    "tokenize": ("mix", "pack", "save", "load"),
    "cache": ("save", "load"),
    "mix": ("save", "load"),
    "pack": ("save", "load"),
    "save": ("load",),
    "load": (),
}


def check_next(stage: str, called: Sequence[str]) -> None:
    """Check that a stage may be called after others.

    Raises:
        UsageError: it may not.
    """
    if stage in called:
        raise UsageError(f"{stage}() is called twice; each stage is called once.")
    if stage == "source":
        return
    if not called:
        raise UsageError(f"{stage}() is called before source(); begin with source().")
    for other in _NOT_AFTER[stage]:
        if other in called:
            raise UsageError(f"{stage}() is called after {other}(); call it before.")
