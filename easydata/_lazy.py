"""Properties that are worked out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

__all__ = ["cached_property"]

Value = TypeVar("Value")


class cached_property(Generic[Value]):  # noqa: N801 - as the one of functools
    """As `functools.cached_property` is from Python 3.12 on: without a lock.

    That of Python 3.11 has one for each property of a class, and a process that is forked while
    another thread works one out waits for it for ever. Here two threads may work it out at once;
    all get what the first one found.
    """

    def __init__(self, function: Callable[[Any], Value]) -> None:
        """
        Args:
            function: of the instance.
        """
        self._function = function
        self.__doc__ = function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[Value]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...

    def __get__(self, instance: object | None, owner: type) -> cached_property[Value] | Value:
        if instance is None:
            return self
        # Found there from now on, it hides this descriptor.
        found: Value = instance.__dict__.setdefault(self._name, self._function(instance))
        return found
