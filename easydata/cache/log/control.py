"""What the processes that use a cache folder share: a few words in a mapped file.

    last         the greatest stamp that anybody gave: it changes with everything that is written
    generation   changes whenever segments come or go
    cleared      entries with this stamp or an older one do not exist; and its complement

Looking at a word takes 50 ns, so that every `get` can see what other processes have written.
Nothing is lost with the file: `last` is found again from the clock and the segments, `cleared`
stands in the folder's marker too.

A stamp is nanoseconds since 1970, a multiple of 64 plus the writer's own number. It is greater
than every stamp that its writer has seen, also if the clock steps back. Two writers that ask at the
same moment may leave the lower of two stamps in `last`; that is no older than either's clock.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path

from easydata._fs import storage_errors
from easydata.cache import clock

__all__ = ["GENERATION", "LAST", "Control"]

LAST, GENERATION, _CLEARED, _NOT_CLEARED = range(4)
_EVERY_BIT = 2**64 - 1
_SIZE = 64
_TICK = 64
_MOST = 2**62  # nanoseconds: the year 2116


class Control:
    """The words. Safe to share between threads.

    Attributes:
        words: the words themselves, for whoever looks at them in every call: `words[LAST]` and
            `words[GENERATION]` are `last` and `generation`.
    """

    def __init__(self, path: Path, *, readonly: bool) -> None:
        """Map the file; make it if it is not there.

        Args:
            path: the file.
            readonly: only look; if there is no file, nothing changes.

        Raises:
            StorageError: the file cannot be made or mapped.
        """
        self.after_fork()
        if readonly and not path.exists():
            self.words = memoryview(bytes(_SIZE)).cast("Q")
            return
        with storage_errors(path):
            flags = os.O_RDONLY if readonly else os.O_RDWR | os.O_CREAT
            descriptor = os.open(path, flags, 0o666)
            try:
                if os.fstat(descriptor).st_size < _SIZE:
                    # Reserved, as a store into a hole of a full disk ends the process, and
                    # without writing: another process may be using it already.
                    if hasattr(os, "posix_fallocate"):
                        os.posix_fallocate(descriptor, 0, _SIZE)
                    else:  # pragma: no cover - macOS
                        os.ftruncate(descriptor, _SIZE)
                access = mmap.ACCESS_READ if readonly else mmap.ACCESS_WRITE
                self.words = memoryview(mmap.mmap(descriptor, _SIZE, access=access)).cast("Q")
            finally:
                os.close(descriptor)

    @property
    def last(self) -> int:
        """Differs from what it was before if anything was written since."""
        return self.words[LAST]

    @property
    def generation(self) -> int:
        """Differs from what it was before if segments came or went since."""
        return self.words[GENERATION]

    @property
    def cleared(self) -> int:
        """Entries with this stamp or an older one do not exist."""
        cleared = self.words[_CLEARED]
        return cleared if cleared ^ self.words[_NOT_CLEARED] == _EVERY_BIT else 0

    def next_stamp(self) -> int:
        """A stamp for something to write."""
        last = self.words[LAST]
        # A file that is damaged may say anything.
        stamp = max(clock.now(), last + _TICK if last < _MOST else 0)
        return stamp & -_TICK | self._tick

    def wrote(self, stamp: int) -> None:
        """Something with this stamp can be seen now: `last` changes."""
        # Another writer's later stamp may stand there already, and be known to readers.
        last = self.words[LAST]
        self.words[LAST] = stamp if stamp > last or last >= _MOST else self.next_stamp()

    def change_segments(self) -> None:
        """Segments have come or gone."""
        self.words[GENERATION] = int.from_bytes(os.urandom(8), "little")
        self.wrote(self.next_stamp())

    def clear(self, stamp: int) -> None:
        """Entries with this stamp or an older one do not exist."""
        if stamp > self.cleared:
            self.words[_CLEARED], self.words[_NOT_CLEARED] = stamp, stamp ^ _EVERY_BIT

    def after_fork(self) -> None:
        """In the child: its stamps are not its parent's."""
        self._tick = int.from_bytes(os.urandom(1), "little") % _TICK
