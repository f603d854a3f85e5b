"""The record of an entry: a small file that says which generation counts, and what it is.

Its first line is the XXH3-128 of the rest, which is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from easydata.cache.stored_metadata import pack, unpack
from easydata.errors import CorruptShardError, DatasetError, FormatVersionError
from easydata.fingerprint import fingerprint_bytes
from easydata.metadata import CacheMetadata

__all__ = ["Record"]

_FORMAT_VERSION = 1


@dataclass(frozen=True)
class Record:
    """What is stored under a key.

    Attributes:
        key: the whole key.
        generation: name of the folder with the dataset.
        stamp: when it was put: nanoseconds since 1970.
        expires: from when on it is not used any more: nanoseconds since 1970.
        metadata: what it was made from, as it was put.
        ledgers: file name of the ledger by split, in order; by "" where there are no splits.
        files: XXH3-128 of what `datasets.load_from_disk` reads beside the shards, by path in the
            generation's folder.
    """

    key: str
    generation: str
    stamp: int
    expires: int
    metadata: CacheMetadata | None
    ledgers: Mapping[str, str]
    files: Mapping[str, str]

    def to_bytes(self) -> bytes:
        """The file's content.

        Raises:
            UnsupportedValueError: the metadata would not come back as it is.
        """
        values = {**vars(self), "metadata": pack(self.metadata).decode()}
        body = json.dumps({"format": _FORMAT_VERSION, **values}).encode()
        return fingerprint_bytes(body).encode() + b"\n" + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Record:
        """The inverse of `to_bytes`.

        Raises:
            CorruptShardError: these are not bytes that it gave.
            FormatVersionError: a newer easydata wrote them.
        """
        digest, _, body = data.partition(b"\n")
        if fingerprint_bytes(body).encode() != digest:
            raise CorruptShardError("its record does not match its checksum")
        try:
            values = json.loads(body)
            version = values.pop("format")
            if version <= _FORMAT_VERSION:
                return cls(**{**values, "metadata": unpack(values["metadata"].encode())})
        except (ValueError, KeyError, TypeError, AttributeError, DatasetError) as error:
            raise CorruptShardError(f"its record is not readable: {error}") from error
        raise FormatVersionError(
            f"its record has format version {version}; this easydata reads up to "
            f"{_FORMAT_VERSION}. Upgrade easydata."
        )
