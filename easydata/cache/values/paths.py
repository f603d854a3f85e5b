"""Places inside a value: how messages and column names spell them."""

from __future__ import annotations

from easydata.errors import UnsupportedValueError

__all__ = ["MAX_DEPTH", "Nesting", "Path", "column_name", "spell", "unsupported"]

Path = tuple[str | int, ...]  # dictionary keys and list positions, from the root

MAX_DEPTH = 100  # containers inside containers
_SHOWN_STEPS = 12
_ESCAPED = {"\\": "\\\\", ".": "\\.", "\0": "\\0"}


def spell(path: Path) -> str:
    """A place as Python would write it.

    >>> spell(("meta", 3))
    "value['meta'][3]"
    """
    steps = "".join(f"[{step!r}]" for step in path[:_SHOWN_STEPS])
    return f"value{steps}{'…' if len(path) > _SHOWN_STEPS else ''}"


def unsupported(path: Path, reason: str) -> UnsupportedValueError:
    """The error that says why the value at `path` cannot be stored."""
    return UnsupportedValueError(f"{spell(path)} {reason}")


def column_name(path: Path) -> str:
    r"""The name of the column of a leaf: its keys, joined by dots; "value" for the root.

    Dots, backslashes, NULs and lone surrogates inside a key are escaped with a backslash, so that
    two places of one value never share a name, and every name is valid UTF-8.

    >>> column_name(("meta", "mask")), column_name(("meta.mask",)), column_name(())
    ('meta.mask', 'meta\\.mask', 'value')
    """
    return ".".join(map(_escaped, path)) if path else "value"


def _escaped(key: str | int) -> str:
    text = str(key)
    if text.isidentifier():
        return text
    plain = "".join(_ESCAPED.get(letter, letter) for letter in text)
    return plain.encode("utf-8", "backslashreplace").decode()


class Nesting:
    """The containers that are open while a value is walked: finds cycles and too deep nesting."""

    def __init__(self) -> None:
        self._open: set[int] = set()

    def enter(self, container: object, path: Path) -> None:
        """Open a container.

        Raises:
            UnsupportedValueError: it is open already, or lies deeper than `MAX_DEPTH`.
        """
        if id(container) in self._open:
            raise unsupported(path, "is a container that it lies in: a cycle cannot be stored.")
        if len(self._open) == MAX_DEPTH:
            raise unsupported(
                path, f"lies deeper than {MAX_DEPTH} nested containers. Store a flatter value."
            )
        self._open.add(id(container))

    def leave(self, container: object) -> None:
        """Close a container."""
        self._open.remove(id(container))
