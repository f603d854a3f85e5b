"""The command that repeats a build; a damaged dataset tells it to whoever finds the damage."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from typing import Any

from easydata.build.api import build

__all__ = ["command_of"]


def command_of(inputs: Sequence[Any], options: Mapping[str, Any]) -> list[str] | None:
    """Arguments of `easydata` that make the same dataset again, without `--out`.

    Args:
        inputs: what was passed as sources.
        options: the arguments of `build` by name.

    Returns:
        None if something was passed that a command line cannot hold, such as an object.
    """
    words = ["build"]
    defaults = inspect.signature(build).parameters
    if options["transform"] is not None:
        return None
    try:
        words += [os.fspath(item) for item in inputs]
        for name, value in options.items():
            if name == "out" or value == defaults[name].default:
                continue
            flag = "--" + name.replace("_", "-")
            if value is False:
                words.append("--no-" + name.replace("_", "-"))
            elif value is True:
                words.append(flag)
            else:
                words += [flag, _word(value)]
    except TypeError:
        return None
    return words


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}={item}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ",".join(value)
    if isinstance(value, int | float):
        return str(value)
    return os.fspath(value)
