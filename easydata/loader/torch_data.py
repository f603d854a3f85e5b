"""What PyTorch reads: samples by number, and batches in the loader's order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easydata._optional import require
from easydata.errors import UsageError
from easydata.loader._checks import check_count
from easydata.loader.batch_places import BatchPlaces, batches_from
from easydata.loader.columns import Columns
from easydata.loader.protocols import Arrays
from easydata.loader.sample_reader import SampleReader
from easydata.loader.state import place_of, state_of
from easydata.loader.walk import Place

try:
    import torch
    from torch.utils.data import Dataset, IterableDataset, get_worker_info
except ModuleNotFoundError:
    require("torch", extra="torch", purpose="feeding PyTorch")
    raise

if TYPE_CHECKING:
    from easydata.loader.data_loader import DataLoader

__all__ = ["TorchBatches", "TorchDataset"]

Tensors = dict[str, torch.Tensor]


class TorchDataset(SampleReader, Dataset[Tensors]):
    """A map-style PyTorch dataset: item i is sample i of the data, a dict of tensors [seq_len].

    `input_ids` and `labels` are int64 unless there is a `dtype`, which is then that of
    `input_ids`: PyTorch's embeddings take no uint16, and its losses no int32. No tensor shares
    memory with the data. Several items are read in one call.

    Pickling keeps the arguments, of which a dataset is no more than its path; worker processes
    that are spawned open it anew.
    """

    def __init__(
        self,
        data: Any,
        seq_len: int | None = None,
        *,
        pack: str = "concat",
        columns: Sequence[str] | None = None,
        dtype: npt.DTypeLike | None = None,
        pad_token_id: int | None = None,
        for_transformers: bool = False,
    ) -> None:
        """
        Args:
            data: as for `easydata.DataLoader`, but no mixture: its samples have no numbers.
            seq_len: as there.
            pack: as there.
            columns: the tensors of a sample.
            dtype: of `input_ids`, a NumPy type; None for int64.
            pad_token_id: as there.
            for_transformers: name and shift them as the models of Transformers want them: their
                `labels` are those of the token itself, -100 where it is not to be predicted; with
                `position_ids` where documents are told apart, else with `attention_mask` where
                there is padding.

        Raises:
            UsageError: an argument is out of range or contradicts another or the data, or the data
                is a mixture.
        """
        if for_transformers and columns is not None:
            columns = [*(Columns(columns, dtype).names or ()), "labels"]
        super().__init__(
            data, seq_len, pack=pack, columns=columns, dtype=dtype, pad_token_id=pad_token_id
        )
        self._options["for_transformers"] = for_transformers
        self._finish = _finisher(self.columns, for_transformers=for_transformers)

    def __getitem__(self, index: int) -> Tensors:
        """A sample.

        Raises:
            IndexError: there is no such sample.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Tensors]:
        """Some samples, read in one call.

        Raises:
            IndexError: there is no such sample.
        """
        found = self._finish(self.read(indices))
        rows = zip(*(tensor.unbind() for tensor in found.values()), strict=True)
        return [dict(zip(found, row, strict=True)) for row in rows]


class TorchBatches(IterableDataset[Tensors]):
    """The batches of a `DataLoader` as an iterable PyTorch dataset: dicts of tensors [rows,
    seq_len], of the types that `TorchDataset` says.

    For a PyTorch `DataLoader` or a `StatefulDataLoader` with `batch_size=None`. Of several worker
    processes each reads every so many-th batch, so that together they give the loader's order,
    and the state of a `StatefulDataLoader` is exact at every batch.
    """

    def __init__(
        self, loader: DataLoader, begin: Place | None = None, *, for_transformers: bool = False
    ) -> None:
        """
        Args:
            loader: of the batches; its `shard_index` and `shard_count` are of training processes,
                not of workers of PyTorch.
            begin: the place where every pass over it begins; None for the start.
            for_transformers: see `TorchDataset`.

        Raises:
            UsageError: it is for Transformers, but the loader's columns have no labels.
        """
        super().__init__()
        names = loader.columns.names
        if for_transformers and names is not None and "labels" not in names:
            raise UsageError(
                f"the columns are {', '.join(names)}, but Transformers needs labels; add 'labels' "
                "to the loader's columns, or give none."
            )
        self._loader = loader
        self._begin = begin or Place(0)
        self._for_transformers = for_transformers

    def __len__(self) -> int:
        """Number of batches of a pass.

        Raises:
            TypeError: there is no end to them.
        """
        return batches_from(self._loader, self._begin)

    def __iter__(self) -> TorchIterator:
        """A new pass; in a worker process of PyTorch, over the batches that are its own."""
        info = get_worker_info()
        finish = _finisher(self._loader.columns, for_transformers=self._for_transformers)
        turn, turns = (0, 1) if info is None else (info.id, info.num_workers)
        return TorchIterator(self._loader, self._begin, finish, turn, turns)

    def state_after(self, batches: int) -> dict[str, Any]:
        """The state of the loader after so many batches of a pass.

        With it, `loader.load_state_dict` and then `loader.to_torch` go on there, with any number
        of workers, training processes and samples in a batch. For one source this takes no time;
        a mixture is gone through, up to a second for a million samples.

        Args:
            batches: that the pass has given, from 0.

        Raises:
            UsageError: `batches` is no such number, or a pass has less of them.
        """
        count = check_count(batches, "batches", least=0)
        try:
            most = len(self)
        except TypeError:
            most = count
        if count > most:
            raise UsageError(f"batches is {count}, but a pass has {most}.")
        place = BatchPlaces(self._loader, self._begin).before(count)
        return state_of(place, self._loader.sequence)


class TorchIterator(Iterator[Tensors]):
    """One pass over `TorchBatches`, or the part of it that one worker process reads."""

    def __init__(
        self,
        loader: DataLoader,
        begin: Place,
        finish: Callable[[Arrays], Tensors],
        turn: int,
        turns: int,
    ) -> None:
        """
        Args:
            loader: of the batches.
            begin: where all workers together begin.
            finish: from arrays to tensors.
            turn: the worker, from 0: how many batches of others come first.
            turns: how many workers.
        """
        self._loader, self._finish = loader, finish
        self._turn, self._turns = turn, turns
        self._batches = loader.iterate(begin, worker=turn, workers=turns)

    def __next__(self) -> Tensors:
        found = next(self._batches)
        self._turn = self._turns - 1  # from here on, a batch of every other worker comes first
        return self._finish(found)

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as a JSON value of constant size."""
        return self._batches.state_dict() | {"turn": self._turn, "turns": self._turns}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go to where such an iterator stood.

        Raises:
            UsageError: the state is of another sequence of samples, or of another number of
                workers; says what differs.
        """
        place = place_of(state, self._loader.sequence)
        turns = state.get("turns", 1)
        if turns != self._turns:
            raise UsageError(
                f"the state is of {turns} readers that take turns, but there are {self._turns}; "
                "use as many worker processes, or the loader's state, see TorchBatches.state_after."
            )
        turn = check_count(state.get("turn", 0), "the state's turn", least=0)
        if turn >= turns:
            raise UsageError(f"the state's turn is {turn}, but only {turns} readers take turns.")
        self._batches.close()
        self._turn, self._batches = turn, self._loader.iterate(place, worker=turn, workers=turns)


def _finisher(columns: Columns, *, for_transformers: bool) -> Callable[[Arrays], Tensors]:
    """What makes tensors of the arrays of a batch."""
    dtypes = {"input_ids": columns.dtype or np.dtype(np.int64), "labels": np.dtype(np.int64)}

    def finish(arrays: Arrays) -> Tensors:
        if for_transformers:
            arrays = _as_transformers_name_them(arrays)
        return {
            name: torch.from_numpy(np.require(array, dtypes.get(name), ["C", "W"]))
            for name, array in arrays.items()
        }

    return finish


def _as_transformers_name_them(arrays: Arrays) -> Arrays:
    labels = Columns(["labels"], None).finish(arrays)["labels"]
    # These models compare the output at a place with the label of the next one. There is never a
    # label at the last place, which here comes first.
    found = {"input_ids": arrays["input_ids"], "labels": np.roll(labels, 1, axis=1)}
    if "positions" in arrays:
        # They see where documents begin, if there is no mask.
        found["position_ids"] = arrays["positions"].astype(np.int64)
    elif "loss_mask" in arrays:
        found["attention_mask"] = arrays["loss_mask"].astype(np.int64)
    if "document_ids" in arrays:
        found["document_ids"] = arrays["document_ids"]
    return found
