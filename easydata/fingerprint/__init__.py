"""Deterministic identities of content: of bytes, values, files and functions.

The same in every process and on every machine, written as 32 lower-case hexadecimal digits.
"""

from easydata.fingerprint.canonical import canonical_hash, fingerprint_config
from easydata.fingerprint.files import FileStamp, HashMode, fingerprint_file
from easydata.fingerprint.functions import FunctionIdentity, differences, identify_function
from easydata.fingerprint.hashing import (
    Hasher,
    fingerprint_bytes,
    fingerprint_json,
    fingerprint_strings,
)

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
