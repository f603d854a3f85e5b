"""Python values as recipes and columns that Arrow holds, and back, exactly."""

from __future__ import annotations

from easydata.cache.values.columns import Column, Encoded, arrow_type
from easydata.cache.values.decoding import decode
from easydata.cache.values.flat import encode
from easydata.cache.values.frozen import Frozen, freeze

__all__ = [
    "Column",
    "Encoded",
    "Frozen",
    "arrow_type",
    "decode",
    "encode",
    "freeze",
]
