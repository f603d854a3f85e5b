"""Names of folders and files in the folder of a DatasetCache. What has none of them is not ours."""

from __future__ import annotations

import os
import re

from easydata.fingerprint import fingerprint_bytes

__all__ = [
    "COMMIT_LOCK",
    "DAMAGED",
    "DAMAGED_PREFIX",
    "ENTRY",
    "FLIGHT_LOCK",
    "GENERATION",
    "LEASE_FILE",
    "MAPPED_FILES",
    "RECORD_FILE",
    "REMOVED",
    "entry_name",
    "new_generation",
]

RECORD_FILE = "easydata-entry.json"
LEASE_FILE = ".lease"
COMMIT_LOCK = ".easydata-datasets.commit"
FLIGHT_LOCK = ".easydata-datasets.flights"
DAMAGED_PREFIX = "damaged-"
MAPPED_FILES = ("cache-*", "*/cache-*")  # where `datasets` stores results of `map`, by generation

_HASH = "[0-9a-f]{32}"
_GENERATION_PREFIX = "generation-"
ENTRY = re.compile(rf"(?:[A-Za-z0-9_][A-Za-z0-9._-]*-)?{_HASH}")
GENERATION = re.compile(_GENERATION_PREFIX + _HASH)
DAMAGED = re.compile(DAMAGED_PREFIX + _HASH)
REMOVED = re.compile(rf"\.tmp-[0-9a-f]{{16}}-{_GENERATION_PREFIX}{_HASH}")  # on its way out
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_READABLE_LENGTH = 64


def entry_name(key: str) -> str:
    """The folder of a key: something readable, then the hash of all of it.

    Keys that differ in case only have different hashes, so it holds on every file system.

    >>> entry_name("../C4/train")
    'C4_train-2be5a7fe9b30b05e140052b45a6cd187'
    """
    readable = _UNSAFE.sub("_", key)[:_READABLE_LENGTH].strip("._-")
    digest = fingerprint_bytes(key.encode())
    return f"{readable}-{digest}" if readable else digest


def new_generation() -> str:
    """A name that no other generation has."""
    return _GENERATION_PREFIX + os.urandom(16).hex()
