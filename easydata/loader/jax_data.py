"""Batches as arrays of JAX: on one device, or as one array over the devices of all hosts."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easydata._optional import require
from easydata.errors import UsageError
from easydata.loader._checks import check_count
from easydata.loader.batches import Batch
from easydata.loader.iteration import BatchIterator, LoaderStats
from easydata.loader.locating import Share
from easydata.loader.protocols import Arrays

if TYPE_CHECKING:
    import jax
    from jax.sharding import Sharding

    from easydata.loader.data_loader import DataLoader

__all__ = ["JaxBatches", "JaxIterator", "to_device"]

_LARGEST = np.iinfo(np.int32).max  # of token ids, whatever the type that they are stored in


class JaxBatches:
    """The batches of a loader as arrays of JAX; see `DataLoader.to_jax`."""

    def __init__(
        self,
        loader: DataLoader,
        share: Share,
        sharding: Sharding | None = None,
        *,
        prefetch: int = 2,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        """
        Args:
            loader: of the batches.
            share: what the loader reads of them.
            sharding: as for `DataLoader.to_jax`.
            prefetch: likewise.
            dtype: likewise.

        Raises:
            MissingDependencyError: JAX is not installed.
            UsageError: as `DataLoader.to_jax` says.
        """
        self._loader = loader
        self._prefetch = check_count(prefetch, "prefetch", least=0)
        jax = require("jax", extra="jax", purpose="to_jax()")
        if sharding is not None:
            _check_sharding(jax, sharding, share, loader.seq_len)
        cast = None if dtype is None else _Cast(jax, dtype)
        self._put = _Put(jax, sharding, share.batch_size, cast)

    def __len__(self) -> int:
        """Number of batches of an iteration from the start."""
        return len(self._loader)

    def __iter__(self) -> JaxIterator:
        """A new iteration: from the start, or once from the state that the loader was given."""
        return JaxIterator(iter(self._loader), self._put, self._prefetch)


class JaxIterator(Iterator[dict[str, "jax.Array"]]):
    """Batches that are put on their devices ahead of the step that uses them.

    JAX copies to a device, and computes, while Python goes on: `next` reads a batch while the step
    before runs, starts its copy, and returns one that was started earlier. A thread would save
    only those who wait for every step the time to read a batch; for reading that takes long there
    is `DataLoader(prefetch=…)`.

    An error is raised by the `next` whose batch it is; the next one tries that batch again. Its
    state is where the batches stand that `next` has returned. To be read by one thread at a time.
    """

    def __init__(
        self,
        batches: BatchIterator,
        put: Callable[[Arrays], dict[str, jax.Array]],
        prefetch: int,
    ) -> None:
        """
        Args:
            batches: as the loader reads them.
            put: starts to copy one to its devices.
            prefetch: batches that are put beyond the one that is asked for.
        """
        self._batches, self._put, self._prefetch = batches, put, prefetch
        self._ahead: deque[tuple[dict[str, jax.Array], Batch]] = deque()
        self._error: Exception | None = None

    def __next__(self) -> dict[str, jax.Array]:
        try:
            self._read_ahead()
            if not self._ahead:
                raise self._error or StopIteration
            arrays, batch = self._ahead.popleft()
            self._batches.progress.count(batch)
        except StopIteration:
            raise
        except BaseException:
            # Whoever saw an error, or was interrupted, may go on with the batch after the last.
            self.load_state_dict(self.state_dict())
            raise
        return arrays

    def _read_ahead(self) -> None:
        while self._error is None and len(self._ahead) <= self._prefetch:
            try:
                batch = self._batches.take()
                self._ahead.append((self._put(batch.arrays), batch))
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - the reader's, when it is its turn
                self._error = error

    @property
    def stats(self) -> LoaderStats:
        """What was handed out."""
        return self._batches.stats

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as a JSON value of constant size; see `DataLoader.state_dict`."""
        return self._batches.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where an iterator stood; see `DataLoader.load_state_dict`."""
        self._batches.load_state_dict(state)
        self._ahead.clear()
        self._error = None

    get_state = state_dict
    set_state = load_state_dict

    def close(self) -> None:
        """End what reads ahead, and let go of what is there; `next` then finds nothing more."""
        self._batches.close()
        self._ahead.clear()
        self._error = None


class _Put:
    """Starts to copy a batch to its devices. On the CPU, JAX uses the memory of an array as it is,
    and keeps it alive, where its address is a multiple of 64.
    """

    def __init__(
        self,
        jax: ModuleType,
        sharding: Sharding | None = None,
        batch_size: int = 0,
        cast: _Cast | None = None,
    ) -> None:
        """
        Args:
            jax: the module.
            sharding: None for JAX's default device, which is one of this process.
            batch_size: rows of all hosts, where there is a sharding.
            cast: of `input_ids`, on the device.
        """
        self._jax, self._sharding, self._batch_size, self._cast = jax, sharding, batch_size, cast

    def __call__(self, batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, jax.Array]:
        arrays = {name: _as_jax_has(self._jax, name, array) for name, array in batch.items()}
        if self._sharding is None:
            # Not bound to a device that it is told: it goes where the parameters are.
            placed: dict[str, jax.Array] = self._jax.device_put(arrays)
        else:
            placed = {name: self._global(array) for name, array in arrays.items()}
        if self._cast is not None:
            placed["input_ids"] = self._cast(placed["input_ids"])
        return placed

    def _global(self, array: npt.NDArray[Any]) -> jax.Array:
        shape = (self._batch_size, *array.shape[1:])
        made: jax.Array = self._jax.make_array_from_process_local_data(self._sharding, array, shape)
        return made


class _Cast:
    """Makes token ids another type, where they are."""

    def __init__(self, jax: ModuleType, dtype: npt.DTypeLike) -> None:
        try:
            self._dtype: np.dtype[Any] = np.dtype(dtype)
        except TypeError as error:
            raise UsageError(f"dtype is {dtype!r}; give a type of whole numbers.") from error
        if self._dtype.kind not in "iu":
            raise UsageError(f"dtype is {self._dtype}; token ids are whole numbers.")
        if jax.dtypes.canonicalize_dtype(self._dtype) != self._dtype:
            raise UsageError(
                f"dtype is {self._dtype}, which JAX does not have without "
                "jax.config.update('jax_enable_x64', True); int32 holds every token id."
            )
        self._jit = jax.jit(lambda ids: ids.astype(self._dtype))

    def __call__(self, ids: jax.Array) -> jax.Array:
        if ids.dtype == self._dtype:
            return ids
        stored = min(int(np.iinfo(ids.dtype).max), _LARGEST)
        if np.iinfo(self._dtype).max < stored:
            raise UsageError(
                f"dtype is {self._dtype}, which does not hold every {ids.dtype}; choose a type "
                "that does, such as int32."
            )
        cast: jax.Array = self._jit(ids)
        return cast


def to_device(batch: Mapping[str, npt.NDArray[Any]]) -> dict[str, Any]:
    """The arrays of a batch on JAX's default device, which is one of this process.

    Where this is the CPU, JAX may use the memory of the arrays as it is. Without
    `jax_enable_x64`, JAX makes 64-bit types 32-bit ones.

    Raises:
        MissingDependencyError: JAX is not installed.
        UsageError: an array holds a number that has no place in 32 bits.
    """
    return _Put(require("jax", extra="jax", purpose="prefetch_to_device=True"))(batch)


def _as_jax_has(jax: ModuleType, name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array in a type that JAX has. JAX itself would cut numbers off without a word."""
    if array.dtype.itemsize < 8 or array.dtype.kind not in "iu":
        return array
    dtype = jax.dtypes.canonicalize_dtype(array.dtype)
    if dtype == array.dtype:
        return array
    bounds = np.iinfo(dtype)
    for value in (array.min(initial=0), array.max(initial=0)):
        if not bounds.min <= value <= bounds.max:
            raise UsageError(
                f"{name!r} holds {value}, but without 64-bit types JAX ends at {bounds.max}; call "
                "jax.config.update('jax_enable_x64', True) first, or leave it out of columns."
            )
    return array.astype(dtype)


def _check_sharding(jax: ModuleType, sharding: Any, share: Share, seq_len: int) -> None:
    """
    Raises:
        UsageError: it is none, or batches cannot be split so, or this host does not read what its
            devices hold.
    """
    if not isinstance(sharding, jax.sharding.Sharding):
        raise UsageError(
            f"sharding is {sharding!r}; give a jax.sharding.Sharding, such as "
            "NamedSharding(mesh, PartitionSpec('data'))."
        )
    if not share.drop_last:
        raise UsageError(
            "drop_last is False, but all global arrays have batch_size rows; use drop_last=True, "
            "or no sharding."
        )
    shape = (share.batch_size, seq_len)
    try:
        held = sharding.addressable_devices_indices_map(shape)
    except ValueError as error:
        raise UsageError(
            f"batches of {shape[0]} samples of {shape[1]} tokens cannot be split over the devices: "
            f"{error}. Choose a batch_size that they divide, or another sharding."
        ) from error
    first, last = (shape[0] * host // share.hosts for host in (share.host, share.host + 1))
    is_held = np.zeros(shape[0], np.bool_)
    for index in held.values():
        is_held[index[0]] = True
    rows = np.flatnonzero(is_held)
    if share.hosts > 1 and rows.tolist() != list(range(first, last)):
        raise UsageError(
            f"the loader reads rows {first} to {last - 1} of a batch of {shape[0]}, but the "
            f"devices of this process hold {_runs(rows)}; {_remedy(rows, shape[0])}"
        )


def _remedy(rows: npt.NDArray[np.int64], batch_size: int) -> str:
    """How to read what devices hold, these rows of a batch."""
    held = len(rows)
    if held and rows[-1] - rows[0] < held and not (rows[0] % held or batch_size % held):
        return f"use shard_index={rows[0] // held}, shard_count={batch_size // held} here."
    return (
        "use a mesh whose devices are in the order of their processes, or shard_count=1, which "
        "reads all rows everywhere."
    )


def _runs(rows: npt.NDArray[np.int64]) -> str:
    """Which numbers these are, in words."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    return ", ".join(f"{run[0]} to {run[-1]}" for run in runs if len(run)) or "none"
