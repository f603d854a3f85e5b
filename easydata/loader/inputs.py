"""From what a user gives a loader to samples, or a mixture of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from easydata.errors import UsageError
from easydata.loader._checks import has_all
from easydata.loader.block_order import merge_blocks
from easydata.loader.columns import Columns
from easydata.loader.protocols import SampleSource

if TYPE_CHECKING:
    from typing_extensions import TypeIs

    from easydata.loader.mixing import Mixture

__all__ = ["as_samples", "block_borders", "is_mixture"]

_BLOCK_SAMPLES = 256

# Most loaders are of one stream of tokens: they need not wait for the modules of the others.


def is_mixture(source: object) -> TypeIs[Mixture]:
    """True for a `Mixture`."""
    if not has_all(source, "start", "sources"):
        return False
    from easydata.loader.mixing import Mixture

    return isinstance(source, Mixture)


def as_samples(
    data: Any,
    seq_len: int | None,
    *,
    pack: str,
    pad_token_id: int | None,
    columns: Columns,
    mixing: Mapping[str, Any],
) -> SampleSource | Mixture:
    """The samples that a loader reads.

    Args:
        data: as given to the loader.
        seq_len: tokens in a sample; None where the data says so.
        pack: strategy of packing.
        pad_token_id: fills samples up; None for that of the data.
        columns: which arrays are wanted.
        mixing: arguments of `Mixture`.

    Raises:
        UsageError: the data is none that can be read, or an argument contradicts it.
    """

    def one(data: Any) -> SampleSource:
        return _samples(data, seq_len, pack=pack, pad_token_id=pad_token_id, columns=columns)

    def named(name: str, source: Any) -> SampleSource:
        try:
            return one(source)
        except UsageError as error:
            raise UsageError(f"source {name!r}: {error}") from error

    if isinstance(data, Mapping) and not hasattr(data, "with_format"):
        from easydata.loader.mixing import Mixture

        return Mixture({name: named(name, source) for name, source in data.items()}, **mixing)
    for name, shown in (("weights", "weights"), ("schedule", "weight_schedule")):
        if mixing[name] is not None:
            raise UsageError(f"{shown} is for several sources; give data as a dict of them.")
    if mixing["stop_strategy"] != "restart":
        raise UsageError(
            "stop_strategy is for several sources; give data as a dict of them, or give it to "
            "Mixture. One source ends after its epochs."
        )
    if is_mixture(data):
        _refuse_packing(data, pack, pad_token_id)
        if mixing["shuffle"] is not True or mixing["seed"] or mixing["shuffle_buffer_size"]:
            raise UsageError(
                "a mixture shuffles its sources itself; give shuffle, seed and "
                "shuffle_buffer_size to Mixture, not to the loader of it."
            )
        return data
    return one(data)


def block_borders(samples: SampleSource) -> npt.NDArray[np.int64] | None:
    """int64[n + 1]: the first sample of each block that is decoded or fetched as one, and the
    number of all; None for samples that do not know.
    """
    borders = getattr(samples, "borders", None)
    return None if borders is None else merge_blocks(borders(), _BLOCK_SAMPLES)


def _samples(
    data: Any, seq_len: int | None, *, pack: str, pad_token_id: int | None, columns: Columns
) -> SampleSource:
    if has_all(data, "num_samples", "seq_len", "read"):
        _refuse_packing(data, pack, pad_token_id)
        found: SampleSource = data
        return found
    if has_all(data, "features", "data", "with_format"):
        from easydata.loader.hf_tokens import HuggingFaceTokens

        data = HuggingFaceTokens(data)
    if not has_all(data, "num_tokens", "dtype", "locate"):
        raise UsageError(
            f"a {type(data).__name__} is no source of samples; give a dataset as open_dataset "
            f"opens it, a datasets.Dataset of tokens, samples, or a mixture.{_hint(data)}"
        )
    if getattr(data, "seq_len", None) is not None:
        from easydata.loader.stored_samples import StoredSamples

        _refuse_packing(data, pack, pad_token_id)
        return StoredSamples(data, columns.needed(data.sample_columns))
    if seq_len is None:
        raise UsageError("seq_len is None, but a stream of tokens needs it; give seq_len.")
    from easydata.loader.packing import pack as pack_documents

    return pack_documents(
        data,
        seq_len,
        pack,
        pad_token_id=pad_token_id,
        include_segment_ids=columns.wants_segments(otherwise=pack != "concat"),
        include_document_ids=columns.wants_documents,
    )


def _hint(data: object) -> str:
    if isinstance(data, np.ndarray):
        return " An array of tokens is given as ArrayTokens(array)."
    if isinstance(data, str | os.PathLike):
        return " A path is opened with open_dataset(path)."
    if isinstance(data, list | tuple):
        return " Several datasets are given as a dict, by name."
    return ""


def _refuse_packing(data: Any, pack: str, pad_token_id: int | None) -> None:
    if pack != "concat" or pad_token_id is not None:
        raise UsageError(
            f"{data!r} holds samples of {data.seq_len} tokens already; leave pack and "
            "pad_token_id out, or load the documents that they were made from."
        )
