"""Whether a function can be sent to another process, and the message that carries it."""

from __future__ import annotations

import io
import pickle
from types import FunctionType
from typing import Any

from easydata.errors import UsageError

__all__ = ["is_portable", "pack_function"]


class _Packer(pickle.Pickler):
    """Refuses what another process could not import: it would fail there, with less to say."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, FunctionType | type) and (
            value.__module__ == "__main__" or "<" in value.__qualname__
        ):
            raise pickle.PicklingError(f"{value.__qualname__} of {value.__module__}")
        return NotImplemented


def pack_function(function: Any) -> bytes:
    """The function, pickled: code by its name, data by value.

    Raises:
        UsageError: it refers to code that is not in a module.
    """
    sink = io.BytesIO()
    try:
        _Packer(sink).dump(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UsageError(
            f"Worker processes cannot import {error}. "
            "Define it at the top of a module of its own, or pass workers=1."
        ) from error
    return sink.getvalue()


def is_portable(function: Any) -> bool:
    """True if worker processes can run it."""
    try:
        pack_function(function)
    except UsageError:
        return False
    return True
