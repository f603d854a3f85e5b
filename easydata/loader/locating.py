"""Which samples are in which batch, and where they lie: found for many batches at once."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from easydata._threads import Call
from easydata.errors import EasyDataError
from easydata.loader.merging import rows_of_ids
from easydata.loader.protocols import LocatedSamples
from easydata.loader.rows import Rows
from easydata.loader.walk import Stretch, Walk

__all__ = ["Chosen", "Located", "Pace", "Share", "choose_batches", "locate_batches"]

# So long locating may take, as where it has much to check: batches come evenly then, and whoever
# stops reading does not wait for it.
_SECONDS = 0.25
# In so many pieces those may lie that are located at once: each takes about 64 bytes meanwhile.
_PIECES = 1 << 18


class Share(NamedTuple):
    """Which part of the sequence an iteration reads, of batches that all hosts share.

    Attributes:
        batch_size: samples in a batch, of all hosts.
        host: the host, from 0.
        hosts: how many; each gets a run of the samples of every batch.
        worker: one of `workers` readers of this host, which take the batches in turn.
        workers: how many readers.
        drop_last: leave out the last batch if it is not full.
    """

    batch_size: int
    host: int = 0
    hosts: int = 1
    worker: int = 0
    workers: int = 1
    drop_last: bool = True


class Chosen(NamedTuple):
    """Batches whose samples are to be located in one call.

    Attributes:
        stretch: of the sequence.
        samples: int64[samples], their numbers in the stretch.
        bounds: for each batch, where it begins in `samples`, and where the last ends.
        ends: for each batch, where it ends in the stretch.
    """

    stretch: Stretch
    samples: npt.NDArray[np.int64]
    bounds: list[int]
    ends: list[int]

    def one_by_one(self) -> Iterator[Chosen]:
        """Each batch by itself."""
        for low, high, end in zip(self.bounds, self.bounds[1:], self.ends, strict=False):
            yield Chosen(self.stretch, self.samples[low:high], [0, high - low], [end])

    def locate(self) -> Located:
        """Where they lie."""
        start = time.perf_counter()
        samples = self.stretch.locate(self.samples)
        seconds = time.perf_counter() - start
        return Located(samples, self.bounds, self.ends, self.stretch, seconds)


class Located(NamedTuple):
    """The same batches, once it is known where they lie.

    Attributes:
        samples: of all batches.
        bounds, ends, stretch: as they were.
        seconds: how long locating took.
    """

    samples: LocatedSamples
    bounds: list[int]
    ends: list[int]
    stretch: Stretch
    seconds: float

    def groups(self, size: int) -> Iterator[Located]:
        """The same batches, at most `size` together."""
        for first in range(0, len(self.ends), size):
            stop = first + size
            yield self._replace(bounds=self.bounds[first : stop + 1], ends=self.ends[first:stop])

    @property
    def is_one_view(self) -> bool:
        """Whether all lie in memory one after another, so that no batch has to be copied."""
        ids = self.ids
        return ids is not None and ids.view(self.bounds[0], self.bounds[-1]) is not None

    @property
    def num_pieces(self) -> int:
        """In how many pieces they lie, as far as that is known."""
        return getattr(self.samples, "num_pieces", 0)

    @property
    def ids(self) -> Rows | None:
        """Where their `input_ids` lie; None if whoever reads them does not say."""
        return rows_of_ids(self.samples)


class Pace:
    """How many batches are located in one call: fewer to begin with, as the first ones should not
    wait for many others, and fewer where it takes long or finds much.

    Attributes:
        count: of the next call.
    """

    def __init__(self, most: int) -> None:
        """
        Args:
            most: so many at last.
        """
        self.count = 1
        self._most = most

    def took(self, seconds: float, num_pieces: int) -> None:
        """So long the last call took, and so many pieces it found."""
        factor = min(_SECONDS / max(seconds, 1e-9), _PIECES / max(num_pieces, 1), 4)
        self.count = max(min(int(self.count * factor), self._most), 1)


def choose_batches(walk: Walk, share: Share, pace: Pace) -> Generator[Chosen]:
    """The batches of a walk, as many at once as are to be located in one call."""
    size = share.batch_size
    step = size * share.workers  # the samples of one batch of every worker
    while True:
        count = pace.count
        stretch = walk.take(count * step)
        mine = stretch.num_samples - share.worker * size
        firsts = share.worker * size + np.arange(0, max(mine, 0), step)
        sizes = np.minimum(stretch.num_samples - firsts, size)
        if share.drop_last:
            firsts = firsts[sizes == size]
            sizes = sizes[sizes == size]
        low, high = _rows(sizes, share)
        bounds = np.append(0, (high - low).cumsum())
        chosen = np.arange(bounds[-1])
        if step > size or share.hosts > 1:
            chosen += np.repeat(firsts + low - bounds[:-1], high - low)
        if len(firsts):
            yield Chosen(stretch, chosen, bounds.tolist(), (firsts + sizes).tolist())
        if stretch.num_samples < count * step:
            return


def locate_batches(chosen: Iterator[Chosen], pace: Pace, *, threads: int) -> Generator[Located]:
    """The same batches, located when they are asked for; if there are several threads, by one that
    stands by, as soon as those before them are.
    """
    call: Call[Located] | None = None
    batches = next(chosen, None)
    try:
        while batches is not None:
            try:
                located = batches.locate() if call is None else call.result()
            except EasyDataError:
                if len(batches.ends) == 1:
                    raise
                # Those before what is damaged are there to be read.
                yield from (one.locate() for one in batches.one_by_one())
                batches, call = next(chosen, None), None
                continue
            pace.took(located.seconds, located.num_pieces)
            # Only of sources that say where samples lie: one that just reads may want one thread.
            # And one batch is read too soon: whoever then waits would better have helped.
            if threads > 1 and located.ids is not None and len(located.ends) > 1:
                batches = next(chosen, None)
                call = None if batches is None else Call(batches.locate)
                yield located
            else:
                yield located
                del located  # what it keeps decoded is free for the next one
                batches, call = next(chosen, None), None
    finally:
        if call is not None:
            call.cancel()


def _rows(size: Any, share: Share) -> tuple[Any, Any]:
    """From where to where, in batches of these sizes, the samples of a host lie."""
    return size * share.host // share.hosts, size * (share.host + 1) // share.hosts
