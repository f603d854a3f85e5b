"""The stages from tokens to samples: packing, and mixing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from easydata.dataset import TokenDataset
from easydata.loader.mixing import Mixture
from easydata.loader.packing import pack
from easydata.loader.protocols import SampleSource

if TYPE_CHECKING:
    from easydata.pipeline.config import PackStageConfig, PipelineConfig

__all__ = ["mix_samples", "pack_dataset", "pad_token_id"]


def pack_dataset(tokens: TokenDataset, config: PackStageConfig, *, is_packed: bool) -> SampleSource:
    """The samples of one dataset.

    Args:
        tokens: its rows.
        config: how to pack.
        is_packed: False for pieces of the stream of all rows, `seq_length` each.

    Raises:
        UsageError: padding is needed, and there is no pad token.
    """
    if not is_packed:
        return pack(tokens, config.seq_length, "concat", include_segment_ids=False)
    return pack(
        tokens,
        config.seq_length,
        config.strategy,
        pad_token_id=pad_token_id(config, tokens.ledger.metadata["tokenizer"]),
        num_packers=config.num_packers,
        include_segment_ids=config.include_segment_ids,
    )


def mix_samples(samples: Mapping[str, SampleSource], config: PipelineConfig) -> Mixture:
    """One mixture of the samples of all datasets.

    Raises:
        UsageError: the datasets cannot be mixed as the configuration says.
    """
    mix = config.mix
    shuffle = config.pack.shuffle_packed
    points = None
    if mix.weight_schedule is not None:
        points = [(point.step, dict(point.weights)) for point in mix.weight_schedule]
    return Mixture(
        samples,
        weights=None if mix.weights is None else dict(mix.weights),
        schedule=points,
        schedule_type=mix.weight_schedule_type,
        batch_size=config.load.batch_size,
        block_size=mix.block_size,
        stop_strategy=mix.stop_strategy,
        seed=mix.seed if mix.seed is not None else config.seed or 0,
        shuffle=shuffle,
        shuffle_buffer_size=config.load.shuffle_buffer_size if shuffle else None,
    )


def pad_token_id(config: PackStageConfig, tokenizer: Mapping[str, Any]) -> int | None:
    """What fills samples up: as configured, else the tokenizer's; None where there is none.

    Args:
        config: how to pack.
        tokenizer: what a ledger records about the tokenizer.
    """
    return tokenizer["pad_id"] if config.pad_token_id is None else config.pad_token_id
