"""The identity of a user's function: of what it computes, as far as that can be seen.

Two processes give the same function the same identity, wherever its file lies. It changes when
the code changes or anything that the code refers to: defaults, closures, globals, helpers in
modules of the user, classes, compiled patterns, the version of Python and of a library. What
cannot be identified is refused. Comments, docstrings, annotations and line numbers do not count.
It cannot see what a function reads while it runs: files, the environment, the clock, the
network, settings such as the decimal context; nor a value that was put into a cached property by
hand. For such a function, pass a version.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from easydata.errors import UsageError
from easydata.fingerprint._walk import Walk
from easydata.fingerprint.canonical import canonical_hash

__all__ = ["FunctionIdentity", "differences", "identify_function"]

_FUNCTION = b"easydata function 1\n"


@dataclass(frozen=True)
class FunctionIdentity:
    """What a function is known by.

    Attributes:
        name: `module:qualified name`, for people.
        version: what the user calls it, if given; then `parts` is empty.
        parts: all that was found -> its identity, 32 hexadecimal digits: `code of clean`,
            `default of clean: lower`, `closure of clean: table`, `global prep.PATTERN`,
            `class prep.Rules`, `attribute of prep.Rules: limit`, `library regex 2024.1`,
            `python 3.11`.
    """

    name: str
    version: str | None = None
    parts: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def fingerprint(self) -> str:
        """Identity of name and version, or of the parts: 32 hexadecimal digits."""
        known = dict(self.parts) if self.version is None else (self.name, self.version)
        return canonical_hash(_FUNCTION, "function", known)

    def to_json(self) -> dict[str, Any]:
        """All of it as a JSON value."""
        return {"name": self.name, "version": self.version, "parts": dict(self.parts)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> FunctionIdentity:
        """The identity that `to_json` wrote.

        Raises:
            KeyError: something is missing.
        """
        return cls(value["name"], value["version"], dict(value["parts"]))


def identify_function(
    function: Callable[..., Any], *, version: str | None = None
) -> FunctionIdentity:
    """The identity of a function, a class, a bound method or any other callable.

    Args:
        function: what to identify. It is not called; what it imports inside is imported.
        version: if given, the identity is the function's name and this, and nothing else is
            looked at. Change it whenever what the function does changes.

    Raises:
        UsageError: it cannot be called, the version is not a text, or the function refers to
            something without an identity: an open file, a lock, a generator, a random
            generator, a global that it assigns, a name that is not defined, compiled code of no
            installed library, `eval` and what else reaches things that the code does not name.
            The message names it.
    """
    if not callable(function):
        raise UsageError(f"The transform is {function!r:.80}, which cannot be called.")
    named = _named(function)
    name = f"{_module(named)}:{named.__qualname__}"
    if version is not None:
        if not isinstance(version, str) or not version:
            raise UsageError(f"version is {version!r}; pass a text such as '1', or leave it out.")
        return FunctionIdentity(name, version)
    walk = Walk(named.__qualname__)
    walk.run(function)
    return FunctionIdentity(name, None, walk.parts)


def differences(old: FunctionIdentity, new: FunctionIdentity) -> list[str]:
    """What changed from `old` to `new`, in words; empty if and only if they are the same."""
    if old.fingerprint == new.fingerprint:
        return []
    if old.name != new.name:
        return [f"it is another function: {new.name}, was {old.name}"]
    if old.version is not None or new.version is not None:
        before, after = (
            "none" if identity.version is None else repr(identity.version)
            for identity in (old, new)
        )
        return [f"version was {before} and is {after}"]
    return _changed_parts(old.parts, new.parts)


def _changed_parts(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    found = []
    before, after = _versions(old), _versions(new)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            was, now = before.get(name), after.get(name)
            if was is None:
                found.append(f"{name} {now} is new")
            elif now is None:
                found.append(f"{name} {was} is no longer used")
            else:
                found.append(f"{name} was {was} and is {now}")
    for path in sorted(part for part in old.keys() | new.keys() if not _is_version(part)):
        what = path if path.startswith("global ") else f"the {path}"
        if path not in old:
            found.append(f"{what} is new")
        elif path not in new:
            found.append(f"{what} is no longer used")
        elif old[path] != new[path]:
            found.append(f"{what} changed")
    return found


def _is_version(path: str) -> bool:
    return path.startswith(("python ", "library "))


def _versions(parts: Mapping[str, str]) -> dict[str, str]:
    split = (part.rpartition(" ") for part in parts if _is_version(part))
    return {name: version for name, _, version in split}


def _named(function: Any) -> Any:
    """What gives `function` its name: itself, what it wraps, or its class."""
    while isinstance(function, functools.partial):
        function = function.func
    named = isinstance(getattr(function, "__qualname__", None), str)
    return function if named else type(function)


def _module(named: Any) -> str:
    module = getattr(named, "__module__", None)
    if not isinstance(module, str):  # of a type in C it may be the descriptor for its objects
        return "builtins"
    return "__main__" if module == "__mp_main__" else module
