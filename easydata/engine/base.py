"""Where work runs: the protocol, and the engine that runs it right here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, Self, TypeVar

__all__ = ["Engine", "SerialEngine"]

Task = TypeVar("Task")
Result = TypeVar("Result")


class Engine(Protocol):
    """Applies a function to tasks, somewhere. Results come in the order of the tasks."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Results of `function(task)`, in order.

        A function that spends its time outside of Python's interpreter says so with an attribute
        `releases_gil = True`: several of its calls may then share a process.

        Tasks are drawn lazily, a bounded number ahead of the results. An exception raised by a
        task surfaces in the place of its result.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc_info: object) -> None:
        """Stop; work in progress is abandoned."""


class SerialEngine:
    """Runs every task in the calling thread, when its result is asked for."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """See `Engine.map`."""
        return map(function, tasks)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass
