"""An iterator that can be looked into before it is read."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

from easydata.errors import SourceError

__all__ = ["Replay"]

Item = TypeVar("Item")


class Replay(Generic[Item]):
    """Wraps an iterator that gives its items once; what was peeked at is given again.

    Args:
        iterator: gives the items.
        name: of the source, for messages.
    """

    def __init__(self, iterator: Iterator[Item], name: str) -> None:
        self._iterator = iterator
        self._name = name
        self._head: deque[Item] = deque()
        self._taken = False

    def peek(self, count: int) -> list[Item]:
        """The first `count` items, or all of them when there are fewer.

        Raises:
            SourceError: the items were taken already.
        """
        self._check()
        self._head.extend(itertools.islice(self._iterator, max(count - len(self._head), 0)))
        return list(itertools.islice(self._head, count))

    def take(self) -> Iterator[Item]:
        """All items, once.

        Raises:
            SourceError: they were taken already.
        """
        self._check()
        self._taken = True
        return self._drain()

    def _check(self) -> None:
        if self._taken:
            raise SourceError(
                f"{self._name}: an iterator can be read only once, and it was. Pass a list, a "
                "Dataset, or an object whose __iter__ starts anew."
            )

    def _drain(self) -> Iterator[Item]:
        while self._head:
            yield self._head.popleft()
        yield from self._iterator
