"""Uploading what was saved to the HuggingFace hub."""

from __future__ import annotations

import errno
import logging
import tempfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from easydata.errors import StorageError
from easydata.pipeline.frozen import thaw

if TYPE_CHECKING:
    from easydata.pipeline.config import PipelineConfig

__all__ = ["push_results"]

_log = logging.getLogger("easydata")
_ONLY = "default"


def push_results(
    saved: Mapping[str, str], formats: Mapping[str, str], config: PipelineConfig
) -> None:
    """Upload results, each a configuration of one repository; a single one is its default.

    Args:
        saved: paths or URLs by name.
        formats: the format of each.
        config: of the whole pipeline.

    Raises:
        StorageError: one cannot be uploaded; what was saved stays.
    """
    save = config.save
    for name, path in saved.items():
        config_name = name if len(saved) > 1 else _ONLY
        with tempfile.TemporaryDirectory(prefix="easydata-hub-") as folder:
            dataset = _load(path, formats[name], config, folder)
            try:
                dataset.push_to_hub(
                    save.hub_repo_id,
                    config_name=config_name,
                    private=save.hub_private,
                    token=save.hub_token,
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, it may spell the token
                said = f"{type(error).__name__}: {error}"
                if save.hub_token is not None:
                    said = said.replace(save.hub_token, "***")
                # Without its cause, in which the token may stand as well.
                raise StorageError(
                    errno.EIO,
                    f"{path} cannot be uploaded to {save.hub_repo_id}: {said}. It is saved: check "
                    "hub_repo_id and hub_token, and run again.",
                ) from None
        _log.info("%s: uploaded to %s (%s).", path, save.hub_repo_id, config_name)


def _load(path: str, form: str, config: PipelineConfig, cache_dir: str) -> Any:
    import datasets

    options = thaw(config.source.storage_options or {}) if "://" in path else None
    if form == "arrow":
        return datasets.load_from_disk(path, storage_options=options)
    pattern = f"{path}/data-*"
    kind = "json" if form == "jsonl" else form
    return datasets.load_dataset(
        kind, data_files=pattern, split="train", cache_dir=cache_dir, storage_options=options
    )
