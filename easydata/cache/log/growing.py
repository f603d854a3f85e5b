"""The segments that one process appends to: one for each set of columns."""

from __future__ import annotations

from easydata.cache.log.control import Control
from easydata.cache.log.folder import CacheFolder
from easydata.cache.log.layout import ColumnKinds, EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.sealed import SegmentKind, segment_metadata
from easydata.cache.log.segments import Segments
from easydata.cache.log.writer import SegmentWriter
from easydata.cache.values import BUFFERS
from easydata.format.codecs import Codec

__all__ = ["Group", "Growing"]

_CAPACITIES = (1 << 13, 1 << 16)  # of a process's first and later tables
_MAX_GROUPS = 16


class Group:
    """The growing segments of one process for one set of columns.

    Attributes:
        columns: of the values.
        writer: of the segment that grows now; None if the next entry begins one.
    """

    __slots__ = ("columns", "writer")

    def __init__(self, columns: ColumnKinds) -> None:
        self.columns = columns
        self.writer: SegmentWriter | None = None


class Growing:
    """Begins and ends growing segments. One thread at a time.

    Attributes:
        num_bytes: size of those that grow now; whoever appends adds to it.
    """

    def __init__(
        self, folder: CacheFolder, control: Control, segments: Segments, segment_bytes: int
    ) -> None:
        """
        Args:
            folder: where the segments lie.
            control: is told of new ones.
            segments: gets them.
            segment_bytes: about how large all of them together may become.
        """
        self._folder = folder
        self._control = control
        self._segments = segments
        self._segment_bytes = segment_bytes
        self._groups: dict[ColumnKinds, Group] = {}
        self._num_made = 0
        self.num_bytes = 0

    def writers(self) -> list[SegmentWriter]:
        """Of those that grow now."""
        return [group.writer for group in self._groups.values() if group.writer is not None]

    def group(self, columns: ColumnKinds) -> Group | None:
        """That for these columns; None if there are too many already and values have some."""
        found = self._groups.get(columns)
        if found is None and (
            len(self._groups) < _MAX_GROUPS or all(name == BUFFERS for name, _ in columns)
        ):
            found = self._groups[columns] = Group(columns)
        return found

    def begin(self, group: Group, entries: int) -> SegmentWriter:
        """Let a new segment grow, with room for so many entries and more.

        Raises:
            StorageError: it cannot be made.
        """
        capacity = _CAPACITIES[min(self._num_made, len(_CAPACITIES) - 1)]
        # A small limit is not to be used up by empty tables.
        capacity = max(min(capacity, self._segment_bytes // 256), 2 * entries, 16)
        name = self._folder.new_name("log", self._control.next_stamp())
        codec = EntryCodec(EntryLayout(group.columns), segment_metadata(SegmentKind(Codec("none"))))
        writer = group.writer = SegmentWriter(self._folder.path, name, codec, capacity=capacity)
        self._num_made += 1
        self.num_bytes += writer.num_bytes
        self._segments.add(writer.segment)
        self._control.change_segments()
        return writer

    def end(self, group: Group) -> None:
        """Nothing will be appended to the segment any more."""
        if group.writer is not None:
            self.num_bytes -= group.writer.num_bytes
            group.writer.close()
            group.writer = None

    def close(self) -> None:
        """The same for all."""
        for group in self._groups.values():
            self.end(group)

    def after_fork(self) -> None:
        """In the child: what grows is the parent's."""
        self.close()
        self._num_made = 0
