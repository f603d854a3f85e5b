"""Identity of a call of `build`: of what was passed, before anything is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import pyarrow as pa

from easydata.build.prepare import Request
from easydata.fingerprint import fingerprint_config
from easydata.stages import tokenizer_source_hash

__all__ = ["request_fingerprint"]

# What does not shape the result.
_IGNORED = ("out", "workers", "storage_options", "retries", "retry_delay", "hash_fn")


def request_fingerprint(request: Request, options: Mapping[str, Any]) -> str | None:
    """Two calls with the same one make the same dataset of the same sources.

    None where nothing can be said without loading, as for a tokenizer that is an object.

    Args:
        request: the checked call.
        options: all arguments of `build` by name.
    """
    tokenizer = tokenizer_source_hash(options["tokenizer"])
    if tokenizer is None:
        return None
    shaping = {name: value for name, value in options.items() if name not in _IGNORED}
    return fingerprint_config(
        {
            **shaping,
            "easydata": version("easydata"),
            "tokenizer": tokenizer,
            "transform": request.transform and request.transform.fingerprint,
            "schema": _schema(options["schema"]),
            "keep_fields": tuple(options["keep_fields"]),
            "rename_fields": request.options.rename_fields,
            "splits": options["splits"] and tuple(options["splits"].items()),
        }
    )


def _schema(schema: Any) -> Any:
    if isinstance(schema, pa.Schema):
        return {item.name: str(item.type) for item in schema}
    return schema and {name: str(kind) for name, kind in schema.items()}
