"""PackingPlan: which pieces of which documents make up each sample."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from easydata.errors import UsageError
from easydata.fingerprint import Hasher
from easydata.format.arrays import number_array, number_view
from easydata.loader._checks import check_count, check_lengths
from easydata.loader.packing_fit import (
    Bins,
    Lengths,
    best_fit,
    first_fit,
    next_fit,
    number_type,
    pool_fit,
)

__all__ = ["PackingPlan", "Strategy", "check_strategy", "plan_packing"]

Strategy = Literal["concat", "greedy", "pool", "first_fit", "best_fit", "pad"]

_METADATA_KEY = b"easydata_packing_plan"
_SCALARS = (
    "seq_len",
    "strategy",
    "num_tokens",
    "num_documents",
    "num_split_documents",
    "fingerprint",
)
_SCHEMA = pa.schema(
    [
        pa.field("starts", pa.large_list(pa.field("item", pa.int64(), nullable=False)), False),
        pa.field("lengths", pa.large_list(pa.field("item", pa.int32(), nullable=False)), False),
    ]
)


@dataclass(frozen=True, eq=False)
class PackingPlan:
    """A partition of a stream of tokens into pieces, grouped into samples. Made by `plan_packing`.

    Samples are in the order of their first piece, the pieces of a sample in that of the stream.
    A piece takes 12 bytes and a sample 8, in memory or (see `stored_plan`) mapped from a file. The
    arrays are read-only.

    Attributes:
        starts: int64[pieces], index of the first token of each piece in the stream.
        lengths: int32[pieces], tokens in each piece, 1 to `seq_len`.
        first_piece: int64[samples + 1]; sample i is pieces first_piece[i] to first_piece[i + 1].
        seq_len: tokens in a sample, padding included.
        strategy: the rule that chose.
        num_tokens: tokens in all pieces, which is all tokens of the stream.
        num_documents: documents with at least one token.
        num_split_documents: documents that are more than one piece.
        fingerprint: 32 hexadecimal digits that follow from the arrays and `seq_len`.
    """

    starts: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int32]
    first_piece: npt.NDArray[np.int64]
    seq_len: int
    strategy: str
    num_tokens: int
    num_documents: int
    num_split_documents: int
    fingerprint: str

    @property
    def num_samples(self) -> int:
        """How many samples there are."""
        return len(self.first_piece) - 1

    @property
    def num_pieces(self) -> int:
        """How many pieces there are."""
        return len(self.starts)

    @property
    def padding(self) -> int:
        """Places in the samples that no token fills."""
        return self.num_samples * self.seq_len - self.num_tokens

    def to_table(self) -> pa.Table:
        """One row per sample: lists `starts` and `lengths`, views of the arrays; the rest is
        JSON in the metadata of the schema.
        """
        offsets = pa.py_buffer(self.first_piece)
        columns = [
            pa.Array.from_buffers(field.type, self.num_samples, [None, offsets], children=[values])
            for field, values in zip(
                _SCHEMA, (number_array(self.starts), number_array(self.lengths)), strict=True
            )
        ]
        rest = {name: getattr(self, name) for name in _SCALARS}
        metadata = {_METADATA_KEY: json.dumps({**rest, "num_samples": self.num_samples}).encode()}
        return pa.Table.from_arrays(columns, schema=_SCHEMA.with_metadata(metadata))

    @classmethod
    def from_table(cls, table: pa.Table) -> PackingPlan:
        """The plan that `to_table` made into a table: views of it if it is one chunk.

        The pieces themselves are not looked at, so that a mapped plan is not read here.

        Raises:
            UsageError: the table is no packing plan.
        """
        if not isinstance(table, pa.Table):
            raise UsageError(f"a {type(table).__name__} is no packing plan; give a pyarrow.Table.")
        stored = _stored(table)
        if not table.schema.equals(_SCHEMA) or table.num_rows != stored.get("num_samples"):
            raise UsageError(
                f"a table of {table.num_rows} rows with the columns "
                f"{', '.join(table.schema.names) or '(none)'} is no packing plan; give one that "
                "PackingPlan.to_table made, whole."
            )
        columns = table.combine_chunks().to_batches()[0]
        starts, lengths = columns["starts"], columns["lengths"]
        return cls(
            starts=number_view(starts.values),
            lengths=number_view(lengths.values),
            first_piece=number_view(starts.offsets),
            **{name: stored[name] for name in _SCALARS},
        )


def plan_packing(
    lengths: npt.ArrayLike, seq_len: int, strategy: str, *, num_packers: int = 4
) -> PackingPlan:
    """Which pieces of documents make up each sample; a pure function of its arguments.

    Every token is in exactly one piece, every piece in exactly one sample. With all strategies
    but "concat" a document is one piece if it has at most `seq_len` tokens, else whole pieces
    of `seq_len` and the rest.

    Args:
        lengths: int64[documents], tokens in each document of the stream, in its order.
        seq_len: tokens in a sample.
        strategy: "concat": cut the stream every `seq_len` tokens, wherever documents end;
            "greedy": one open sample, in the order of the stream;
            "pool": `num_packers` open samples;
            "first_fit": every sample stays open, the first that fits is taken;
            "best_fit": the longest pieces first, each where the least room is left;
            "pad": every piece is a sample of its own.
            See `easydata.loader.packing_fit` for the rules and their sources.
        num_packers: open samples of "pool".

    Raises:
        UsageError: an argument is out of range, or the documents hold no token.
    """
    seq_len = check_count(seq_len, "seq_len")
    num_packers = check_count(num_packers, "num_packers")
    if seq_len > np.iinfo(np.int32).max:
        raise UsageError(f"seq_len is {seq_len}; it must be below 2^31 to be packed.")
    check_strategy(strategy)
    documents = check_lengths(lengths)
    documents = documents[documents > 0]
    if not len(documents):
        raise UsageError(
            f"there is nothing to pack: none of the {np.size(lengths)} documents has a token."
        )
    if strategy == "concat":
        return _cut(documents, seq_len)
    sizes = _split(documents, seq_len)
    order, first_piece = _group(_choose_samples(sizes, seq_len, strategy, num_packers))
    starts = sizes.cumsum()
    starts -= sizes
    return _make_plan(
        starts[order],
        sizes[order],
        first_piece,
        seq_len=seq_len,
        strategy=strategy,
        num_documents=len(documents),
        num_split_documents=int((documents > seq_len).sum()),
    )


def check_strategy(strategy: object) -> None:
    """Refuse the name of a strategy that does not exist.

    Raises:
        UsageError: with the name that is nearest.
    """
    names = get_args(Strategy)
    if strategy not in names:
        close = difflib.get_close_matches(str(strategy).casefold().replace("-", "_"), names, n=1)
        remedy = f"did you mean {close[0]!r}?" if close else f"choose one of {', '.join(names)}."
        raise UsageError(f"the packing strategy is {strategy!r}; {remedy}")


def _stored(table: pa.Table) -> dict[str, Any]:
    """What `to_table` wrote beside the arrays; empty if it did not make this table."""
    try:
        found = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    except ValueError:
        return {}
    complete = isinstance(found, dict) and {*_SCALARS, "num_samples"} <= found.keys()
    return found if complete and found["num_samples"] else {}


def _split(documents: npt.NDArray[np.int64], seq_len: int) -> Lengths:
    """int32[pieces]: of each document whole pieces of `seq_len`, then the rest."""
    if documents.max() <= seq_len:
        return documents.astype(np.int32)
    ends = (-(-documents // seq_len)).cumsum()
    sizes = np.full(ends[-1], seq_len, np.int32)
    sizes[ends - 1] = (documents - 1) % seq_len + 1
    return sizes


def _cut(documents: npt.NDArray[np.int64], seq_len: int) -> PackingPlan:
    """Every `seq_len` tokens a sample; the pieces end where documents or samples end."""
    ends = documents.cumsum()
    num_tokens = int(ends[-1])
    num_split = int(((ends - documents) // seq_len != (ends - 1) // seq_len).sum())
    cuts = np.arange(0, num_tokens, seq_len)
    starts = np.concatenate([cuts, ends[:-1]])
    del ends  # 10^7 documents are 80 MB
    starts.sort(kind="stable")  # merges the two
    starts = starts[np.diff(starts, prepend=-1) > 0]
    return _make_plan(
        starts,
        np.diff(starts, append=num_tokens).astype(np.int32),
        np.append(starts.searchsorted(cuts), len(starts)),
        seq_len=seq_len,
        strategy="concat",
        num_documents=len(documents),
        num_split_documents=num_split,
    )


def _choose_samples(sizes: Lengths, seq_len: int, strategy: str, num_packers: int) -> Bins:
    """The number of the sample of each piece."""
    kind = number_type(len(sizes))
    if strategy == "pad":
        return np.arange(len(sizes), dtype=kind)
    if strategy == "greedy":
        return next_fit(sizes, seq_len)
    # A piece that fills a sample goes by all others: it must not make a pool close one.
    is_part = sizes < seq_len
    parts = sizes[is_part]
    if strategy == "pool":
        chosen = pool_fit(parts, seq_len, num_packers)
    else:
        chosen = (first_fit if strategy == "first_fit" else best_fit)(parts, seq_len)
    bins = np.empty(len(sizes), kind)
    bins[is_part] = chosen
    num_bins = int(chosen.max()) + 1 if len(chosen) else 0
    bins[~is_part] = np.arange(num_bins, num_bins + len(sizes) - len(parts))
    return bins


def _group(bins: Bins) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The pieces sample by sample, the samples in the order of their first piece.

    Returns:
        int64[pieces], the order of the pieces; int64[samples + 1], where each sample starts in it.
    """
    first = np.empty(int(bins.max()) + 1, bins.dtype)
    numbers = np.arange(len(bins), dtype=bins.dtype)
    first[bins[::-1]] = numbers[::-1]  # of equal indices, NumPy keeps the last
    del numbers
    rank = np.empty_like(first)
    rank[first.argsort()] = np.arange(len(first))
    bins = rank[bins]
    order = bins.argsort(kind="stable")
    return order, np.append(0, np.bincount(bins).cumsum())


def _make_plan(
    starts: npt.NDArray[np.int64],
    lengths: Lengths,
    first_piece: npt.NDArray[np.int64],
    *,
    seq_len: int,
    strategy: str,
    num_documents: int,
    num_split_documents: int,
) -> PackingPlan:
    hasher = Hasher(f"{seq_len} {len(first_piece)} ".encode())
    for array in (starts, lengths, first_piece):
        array.flags.writeable = False
        hasher.update(array.data)
    return PackingPlan(
        starts=starts,
        lengths=lengths,
        first_piece=first_piece,
        seq_len=seq_len,
        strategy=strategy,
        num_tokens=int(lengths.sum(dtype=np.int64)),
        num_documents=num_documents,
        num_split_documents=num_split_documents,
        fingerprint=hasher.hexdigest(),
    )
