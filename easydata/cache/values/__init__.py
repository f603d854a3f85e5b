"""Python values as recipes and columns that Arrow holds, and back, exactly."""

from __future__ import annotations

from easydata.cache.values.columns import BUFFERS, Column, Encoded, arrow_type, stored_type
from easydata.cache.values.decoding import decode, view_names
from easydata.cache.values.encoding import encode_whole
from easydata.cache.values.flat import encode
from easydata.cache.values.frozen import Frozen, freeze

__all__ = [
    "BUFFERS",
    "Column",
    "Encoded",
    "Frozen",
    "arrow_type",
    "decode",
    "encode",
    "encode_whole",
    "freeze",
    "stored_type",
    "view_names",
]
