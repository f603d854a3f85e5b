"""The identities that a caller wants a dataset to have, and how one differs from them."""

from __future__ import annotations

from typing import NamedTuple

from easydata.metadata import CacheMetadata

__all__ = ["Hashes"]


class Hashes(NamedTuple):
    """Hashes by the names that they have in `CacheMetadata`; None: any will do."""

    config_hash: str | None
    source_hash: str | None
    tokenizer_hash: str | None
    transform_hash: str | None

    def differences(self, metadata: CacheMetadata | None) -> list[str]:
        """One line for each hash that metadata does not have; none if it has all.

        >>> Hashes(None, "a", None, None).differences(CacheMetadata(source_hash="b"))
        ["source_hash is 'b', wanted 'a'"]
        """
        found = metadata or CacheMetadata()
        note = " (it was put without metadata)" if metadata is None else ""
        return [
            f"{name} is {getattr(found, name)!r}, wanted {value!r}{note}"
            for name, value in self._asdict().items()
            if value is not None and value != getattr(found, name)
        ]
