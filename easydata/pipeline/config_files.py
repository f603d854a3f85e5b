"""Configurations in YAML and JSON files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from easydata._fs import publish_bytes
from easydata.errors import UsageError
from easydata.pipeline.checks import ConfigError
from easydata.pipeline.config import PipelineConfig

__all__ = ["dump_config", "load_config"]

_YAML = (".yaml", ".yml")
_JSON = (".json",)


def load_config(path: str | os.PathLike[str]) -> PipelineConfig:
    """The configuration in a .yaml, .yml or .json file.

    Relative paths inside it are relative to the working directory, not to the file. A file holds
    plain data only: nothing in it is imported or run.

    Raises:
        UsageError: the file cannot be read or parsed, or what it says is wrong; there is a line
            for everything that is, beginning with the file and the field.
    """
    file = Path(path).expanduser()
    is_yaml = _is_yaml(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Cannot read the configuration {file}: {error}.") from error
    try:
        values = _parse_yaml(text, file) if is_yaml else _parse_json(text, file)
        if not isinstance(values, Mapping):
            raise UsageError(
                f"{file} is {'empty' if values is None else 'no mapping'}; it must hold the "
                "fields of a PipelineConfig, datasets at least."
            )
        return PipelineConfig.from_dict(values)
    except RecursionError:
        raise UsageError(f"{file} is nested too deeply for a configuration.") from None
    except ConfigError as error:
        raise ConfigError(f"{file}: ", error.lines) from None


def dump_config(config: PipelineConfig, path: str | os.PathLike[str]) -> None:
    """Write a configuration to a .yaml, .yml or .json file, whole or not at all.

    Fields that have their defaults are left out. What is read back is equal.

    Raises:
        UsageError: a field holds what no file can, such as a function; there is a line for each.
        StorageError: the file cannot be written.
    """
    file = Path(path).expanduser()
    is_yaml = _is_yaml(file)
    values = config.to_dict()
    if is_yaml:
        import yaml

        # Not allow_unicode: PyYAML 6.0 then writes U+0085 such that it reads a space.
        text = yaml.safe_dump(values, sort_keys=False)
    else:
        text = json.dumps(values, indent=2) + "\n"
    publish_bytes(file, text.encode())


def _is_yaml(file: Path) -> bool:
    suffix = file.suffix.lower()
    if suffix not in _YAML + _JSON:
        raise UsageError(f"{file} ends in {suffix!r}; name it .yaml, .yml or .json.")
    return suffix in _YAML


def _parse_yaml(text: str, file: Path) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """Refuses a key that a mapping has twice; PyYAML takes the last."""

        def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
            node = super().compose_mapping_node(anchor)
            keys = set()
            for key, _ in node.value:
                identity = (key.tag, key.value) if isinstance(key, yaml.ScalarNode) else key
                if identity in keys:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                    )
                keys.add(identity)
            return node

    try:
        loader = Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
        raise UsageError(f"{file}{at}: {error.problem}.") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError) as error:
        # PyYAML lets the errors of int() and the like through, for a value such as 2024-13-45.
        raise UsageError(f"{file} is no YAML: {error}.") from error


def _parse_json(text: str, file: Path) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(items)
        if len(values) < len(items):
            names = [name for name, _ in items]
            twice = next(name for name in values if names.count(name) > 1)
            raise UsageError(f"{file}: the key {twice!r} is there twice in a mapping.")
        return values

    def constant(name: str) -> None:
        raise UsageError(f"{file}: {name} is no value of JSON.")

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{file}, line {error.lineno}, column {error.colno}: {error.msg}."
        ) from error
