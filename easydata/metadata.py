"""CacheMetadata: what a cached thing was made from."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from easydata.errors import DatasetError

__all__ = ["CacheMetadata"]


@dataclass(frozen=True)
class CacheMetadata:
    """What a cached value was made from, so that a stale one can be told from a fresh one.

    Attributes:
        version: the version of whatever made the value, chosen by its author.
        created_at: seconds since 1970, UTC.
        source_hash: identity of the source data.
        tokenizer_hash: identity of the tokenizer.
        transform_hash: identity of the transforms.
        num_examples: rows in the value.
        config_hash: identity of every option that shapes the value.
        extra: anything else that JSON can hold.
    """

    version: str = "1.0"
    created_at: float = field(default_factory=time.time)
    source_hash: str | None = None
    tokenizer_hash: str | None = None
    transform_hash: str | None = None
    num_examples: int | None = None
    config_hash: str | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def is_valid_for(
        self,
        config_hash: str | None = None,
        source_hash: str | None = None,
        tokenizer_hash: str | None = None,
        transform_hash: str | None = None,
    ) -> bool:
        """True if every hash that is given equals the one recorded here.

        >>> CacheMetadata(config_hash="a", source_hash="b").is_valid_for(config_hash="a")
        True
        """
        expected = {
            "config_hash": config_hash,
            "source_hash": source_hash,
            "tokenizer_hash": tokenizer_hash,
            "transform_hash": transform_hash,
        }
        return all(
            value is None or value == getattr(self, name) for name, value in expected.items()
        )

    def diff(self, other: CacheMetadata) -> list[str]:
        """One line for each field in which `other` differs, `created_at` left out.

        >>> CacheMetadata(num_examples=1).diff(CacheMetadata(num_examples=2))
        ['num_examples: 1 here, 2 there']
        """
        names = [item.name for item in fields(self) if item.name != "created_at"]
        return [
            f"{name}: {getattr(self, name)!r} here, {getattr(other, name)!r} there"
            for name in names
            if getattr(self, name) != getattr(other, name)
        ]

    def to_json(self, *, content_only: bool = False) -> str:
        """JSON text with sorted keys; `content_only` leaves out `created_at`."""
        values = asdict(self)
        if content_only:
            del values["created_at"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> CacheMetadata:
        """The inverse of `to_json`.

        Raises:
            DatasetError: the text is not a JSON object of metadata.
        """
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, TypeError, AttributeError) as error:
            raise DatasetError(f"cache metadata is not readable: {error}") from error

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CacheMetadata:
        """The metadata in a JSON object; fields that this version does not know are ignored."""
        known = {item.name for item in fields(cls)}
        return cls(
            **{"created_at": 0.0, **{name: v for name, v in values.items() if name in known}}
        )
