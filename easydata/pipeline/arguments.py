"""From configurations to the arguments of `build`."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from easydata.build import build
from easydata.pipeline.config import resolve_tokenizer
from easydata.pipeline.frozen import thaw
from easydata.pipeline.inputs import build_type

if TYPE_CHECKING:
    from easydata.pipeline.config import DatasetConfig, PipelineConfig

__all__ = ["build_arguments", "is_cached"]

_CALL_ONLY = ("sources", "out", "progress", "overwrite", "dry_run", "engine")
_DEFAULTS = {
    name: item.default
    for name, item in inspect.signature(build).parameters.items()
    if name not in _CALL_ONLY
}


def is_cached(dataset: DatasetConfig, config: PipelineConfig) -> bool:
    """Whether the tokens of a dataset are kept for the next run."""
    return config.cache.enabled and config.tokenize.cache_tokenized and dataset.cache_enabled


def build_arguments(dataset: DatasetConfig, config: PipelineConfig) -> dict[str, Any]:
    """All arguments of `build` that say what to make, by name; `out` is missing.

    Raises:
        UsageError: no tokenizer is named.
    """
    tokenizer = resolve_tokenizer(dataset, config)
    dropped = config.tokenize.remove_columns or ()
    return {
        **_DEFAULTS,
        "tokenizer": tokenizer.name_or_path,
        "trust_remote_code": tokenizer.trust_remote_code,
        "max_length": tokenizer.cut_length,
        "padding": tokenizer.padding or None,
        "pad_token": config.pack.pad_token_id if tokenizer.padding else None,
        "attention_mask": bool(tokenizer.padding) and tokenizer.return_attention_mask,
        "add_eos": tokenizer.add_special_tokens,
        "eos_token": config.pack.eos_token_id if tokenizer.add_special_tokens else None,
        "batch_size": config.tokenize.batch_size,
        "workers": config.tokenize.num_workers,
        "type": build_type(dataset),
        "text_field": dataset.content_field,
        "keep_fields": [name for name in dataset.additional_fields or () if name not in dropped],
        "transform": dataset.format_callback,
        "transform_version": dataset.format_version,
        "rename_fields": dict(dataset.format_fields or {}) or None,
        "limit": dataset.num_rows,
        "on_error": config.tokenize.on_error,
        "compression": config.cache.compression,
        "hash_fn": config.cache.hash_fn,
        "storage_options": thaw(config.source.storage_options or {}) or None,
        "retries": config.source.cloud_max_retries,
        "retry_delay": config.source.cloud_retry_delay,
    }
