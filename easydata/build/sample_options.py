"""The options of `build` that make samples of one length out of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from easydata.errors import UsageError
from easydata.loader.packing_plan import check_strategy

__all__ = ["DOCUMENTS", "NO_SAMPLES", "SampleOptions", "check_samples"]

DOCUMENTS = "documents"  # the folder, in a dataset of samples, of what those are made of
_MAX_SEQ_LEN = (1 << 31) - 1  # of a list of one size in Arrow

NO_SAMPLES: Mapping[str, Any] = {
    "seq_len": None,
    "pack": None,
    "shuffle": False,
    "seed": None,
    "segment_ids": False,
}
"""What `SampleOptions.values` would say of documents."""


@dataclass(frozen=True)
class SampleOptions:
    """What samples to make.

    Attributes:
        seq_len: tokens in each, padding included.
        pack: the packing strategy.
        shuffle: write them in a random order.
        seed: chooses that order.
        segment_ids: keep the columns `segment_ids` and `positions`.
    """

    seq_len: int
    pack: str
    shuffle: bool
    seed: int
    segment_ids: bool

    def pads(self, pad_token: str | int | None) -> bool:
        """Whether a pad token is needed; to `concat` one may be given, for the last sample."""
        return self.pack != "concat" or pad_token is not None

    @property
    def values(self) -> dict[str, Any]:
        """Their part of a recipe: JSON values by name."""
        return {**vars(self), "seed": self.seed if self.shuffle else None}


def check_samples(
    seq_len: int | None,
    pack: str | None,
    *,
    shuffle: bool,
    seed: int,
    segment_ids: bool,
    padding: str | None,
    splits: Mapping[str, float] | None,
) -> SampleOptions | None:
    """Check the arguments of `build` that concern samples; None where documents are wanted.

    Raises:
        UsageError: the first argument that is wrong.
    """
    for name, flag in (("shuffle", shuffle), ("segment_ids", segment_ids)):
        if not isinstance(flag, bool):
            raise UsageError(f"{name} is {flag!r}; choose True or False.")
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 1 << 64:
        raise UsageError(f"seed is {seed!r}; it must be a whole number from 0 to 2^64 - 1.")
    if seed and not shuffle:
        raise UsageError(
            f"seed is {seed}, but shuffle is False. Pass shuffle=True, or leave seed out."
        )
    if seq_len is None:
        _refuse_without_length({"pack": pack, "shuffle": shuffle, "segment_ids": segment_ids})
        return None
    if isinstance(seq_len, bool) or not isinstance(seq_len, int) or seq_len < 1:
        raise UsageError(f"seq_len is {seq_len!r}; it must be a whole number from 1 up.")
    if seq_len > _MAX_SEQ_LEN:
        raise UsageError(f"seq_len is {seq_len}; a sample holds at most {_MAX_SEQ_LEN} tokens.")
    if padding is not None:
        raise UsageError(
            f"padding is {padding!r}: it fills up documents, which samples of seq_len={seq_len} "
            "are cut from. Leave padding out; pack='pad' makes one padded sample of each document."
        )
    if splits and DOCUMENTS in splits:
        raise UsageError(
            f"splits has the name {DOCUMENTS!r}, which is that of the folder of the documents that "
            "samples are made of. Choose another name."
        )
    strategy = "concat" if pack is None else pack
    check_strategy(strategy)
    return SampleOptions(seq_len, strategy, shuffle, seed, segment_ids)


def _refuse_without_length(given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if value not in (None, False):
            raise UsageError(
                f"{name} is {value!r}, but there is no seq_len. Pass seq_len=... to make samples "
                f"of so many tokens, or leave {name} out to keep documents."
            )
