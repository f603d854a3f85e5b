"""What Grain reads: sources of samples, and of whole batches, by number."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from contextlib import closing
from typing import TYPE_CHECKING

from easydata.fingerprint import fingerprint_json
from easydata.loader.batch_places import BatchPlaces, batches_from
from easydata.loader.protocols import Arrays
from easydata.loader.sample_reader import SampleReader
from easydata.loader.walk import Place

if TYPE_CHECKING:
    from easydata.loader.data_loader import DataLoader

__all__ = ["GrainBatches", "GrainSource"]

# A loader without an end has so many samples here: more than are ever read.
_ENDLESS_SAMPLES = 1 << 62


class GrainSource(SampleReader):
    """A random-access source for Grain: item i is sample i of the data, a dict of arrays
    [seq_len], which may be read-only views.

    Grain keeps `repr(source)` in its checkpoints, and compares it: here it follows from content.
    """

    def __getitem__(self, index: int) -> Arrays:
        """A sample.

        Raises:
            IndexError: there is no such sample.
        """
        return self._getitems([index])[0]

    def _getitems(self, indices: Sequence[int]) -> list[Arrays]:
        """Some samples, read in one call; Grain asks for them so where it makes batches."""
        found = self.read(indices)
        return [{name: array[i] for name, array in found.items()} for i in range(len(indices))]


class GrainBatches:
    """A random-access source for Grain: item i is batch i of a loader, in its order.

    A loader that never ends has a length that is never reached. Where Grain reads ahead, the
    loader need not.
    """

    def __init__(self, loader: DataLoader, begin: Place | None = None) -> None:
        """
        Args:
            loader: of the batches.
            begin: the place before item 0; None for the start.
        """
        self._loader = loader
        self._begin = begin or Place(0)
        self._places = BatchPlaces(loader, self._begin)

    def __reduce__(self) -> tuple[type[GrainBatches], tuple[DataLoader, Place]]:
        return type(self), (self._loader, self._begin)

    def __len__(self) -> int:
        try:
            return batches_from(self._loader, self._begin)
        except TypeError:
            return _ENDLESS_SAMPLES // self._loader.batch_size

    def __getitem__(self, index: int) -> Arrays:
        """A batch of the loader; see there for its arrays.

        Raises:
            IndexError: there is no such batch.
        """
        number = operator.index(index)
        if not 0 <= number < len(self):
            raise IndexError(f"batch {number} of {len(self)}")
        with closing(
            self._loader.iterate(self._places.before(number), reads_ahead=False)
        ) as batches:
            return next(batches)

    def __repr__(self) -> str:
        """Follows from what the batches follow from: neither from where the data lies, nor from
        which host this is.
        """
        loader, columns = self._loader, self._loader.columns
        return (
            f"GrainBatches(<{fingerprint_json(loader.sequence)}>, batch_size={loader.batch_size}, "
            f"begin={self._begin.samples}, columns={columns.names}, dtype={columns.dtype})"
        )
