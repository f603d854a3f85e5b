"""Deterministic identities of content: of bytes, values, files and functions.

The same in every process and on every machine, written as 32 lower-case hexadecimal digits.
"""

from typing import TYPE_CHECKING, Any

from easydata.fingerprint.canonical import canonical_hash, fingerprint_config
from easydata.fingerprint.files import FileStamp, HashMode, fingerprint_file
from easydata.fingerprint.hashing import (
    Hasher,
    fingerprint_bytes,
    fingerprint_json,
    fingerprint_strings,
)

if TYPE_CHECKING:
    from easydata.fingerprint.functions import FunctionIdentity, differences, identify_function

__all__ = [
    "FileStamp",
    "FunctionIdentity",
    "HashMode",
    "Hasher",
    "canonical_hash",
    "differences",
    "fingerprint_bytes",
    "fingerprint_config",
    "fingerprint_file",
    "fingerprint_json",
    "fingerprint_strings",
    "identify_function",
]


def __getattr__(name: str) -> Any:
    # Who only reads data identifies no functions, which needs some of the standard library.
    if name not in ("FunctionIdentity", "differences", "identify_function"):
        raise AttributeError(f"module 'easydata.fingerprint' has no attribute {name!r}")
    from easydata.fingerprint import functions

    return getattr(functions, name)
