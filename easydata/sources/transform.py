"""A transform of rows: a user's function, new names for fields, and messages made text."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from easydata.errors import UsageError
from easydata.fingerprint import FunctionIdentity, differences, identify_function
from easydata.sources.describe import describe_names, describe_value
from easydata.sources.text_field import BadRecordError, is_messages

__all__ = ["RowTransform"]

_checking = threading.Lock()


@dataclass(frozen=True)
class RowTransform:
    """What happens to each row before its text and its kept fields are taken. Picklable if its
    functions are.

    A pickle holds code of modules by name, and another process imports it anew. So where it is
    unpickled the function is identified once more, before its first row.

    Attributes:
        function: takes a row as a dict of its own, gives the new row, or None to leave it out.
        rename: new names of fields by their old ones, applied after the function to the fields
            that a row has.
        render: makes text of a list of messages, where the text field holds one; applied last.
        text: the field that holds the text, by its new name.
        identity: what `function` was identified as; None where nobody needs to know. If it is a
            version, no other process can compare anything.
    """

    function: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    render: Callable[[Sequence[Mapping[str, Any]]], str] | None = None
    text: str = "text"
    identity: FunctionIdentity | None = None
    # Fingerprints of what the function may be here; None once it was found to be one of them.
    _expected: frozenset[str] | None = field(default=None, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        expected = None
        if self.identity is not None and self.identity.version is None:
            # Calls may have changed what an object keeps, a memo perhaps, which travels with it.
            now = identify_function(self.function) if self.function else self.identity
            expected = frozenset([self.identity.fingerprint, now.fingerprint])
        return {**self.__dict__, "_expected": expected}

    def __call__(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """The new row, or None if it is left out. The function may change `row`.

        Raises:
            BadRecordError: the function or the rendering failed, or gave what is no row.
                An exception of theirs is its cause.
            UsageError: the function is another one in this process than where it was identified.
        """
        if self._expected is not None:
            self._check()
        changed = row if self.function is None else _attempt(self.function, row, str(self))
        if changed is None:
            return None
        if not isinstance(changed, Mapping):
            raise BadRecordError(
                f"{self} returned {describe_value(changed)}, not a dict of fields "
                "(or None, which leaves the row out)"
            )
        new = self._renamed(changed)
        if self.render is not None and is_messages(new.get(self.text)):
            what = f"rendering the messages of field {self.text!r}"
            text = _attempt(self.render, new[self.text], what)
            if not isinstance(text, str):
                raise BadRecordError(f"{what} gave {describe_value(text)}, not text")
            new[self.text] = text
        return new

    def __str__(self) -> str:
        """What it is, for messages: "the transform clean"."""
        function = self.function
        while isinstance(function, partial):
            function = function.func
        if function is None:
            return "renaming" if self.rename else "rendering"
        name = getattr(function, "__qualname__", type(function).__qualname__)
        return f"the transform {name.rsplit('<locals>.', 1)[-1]}"

    def old_names(self, name: str) -> list[str]:
        """What the field `name` may have been called before renaming."""
        return [old for old, new in self.rename.items() if new == name] or [name]

    def _check(self) -> None:
        with _checking:  # the first call may change what is looked at
            if self._expected is None or self.identity is None or self.function is None:
                return
            found = identify_function(self.function)
            if found.fingerprint not in self._expected:
                changed = ", ".join(differences(self.identity, found))
                raise UsageError(
                    f"{self} is another one in worker processes, which import its modules anew: "
                    f"{changed}. Set it in the module itself and start again, or pass workers=1."
                )
            object.__setattr__(self, "_expected", None)

    def _renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        new: dict[str, Any] = {}
        for name, value in row.items():
            to = self.rename.get(name, name)
            if to in new:
                raise BadRecordError(
                    f"renaming makes two fields {to!r} of {describe_names(list(row))}; "
                    "remove one of them with a transform"
                )
            new[to] = value
        return new


def _attempt(function: Callable[[Any], Any], value: object, what: str) -> Any:
    try:
        return function(value)
    except MemoryError:
        raise
    except Exception as error:  # a user's code may raise anything
        said = f": {error}" if str(error) else ""
        raise BadRecordError(f"{what} raised {type(error).__name__}{said}") from error
