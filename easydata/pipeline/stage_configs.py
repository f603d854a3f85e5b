"""The configurations of the stages of a pipeline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from typing import Annotated, Any, Literal

from easydata._units import parse_bytes
from easydata.errors import UsageError
from easydata.format.codecs import Codec, resolve_format
from easydata.pipeline.base import Config, configs_of
from easydata.pipeline.checks import (
    Amounts,
    AnyPath,
    ByteSize,
    Compression,
    ConfigError,
    Count,
    Folder,
    Names,
    NonNegative,
    Options,
    Positive,
    Seconds,
    Seed,
    Text,
    Weights,
)
from easydata.pipeline.dataset_config import AnyTokenizer, SavedFormat

__all__ = [
    "CacheStageConfig",
    "LoadStageConfig",
    "MixStageConfig",
    "ObservabilityConfig",
    "PackStageConfig",
    "RayConfig",
    "SaveStageConfig",
    "SourceStageConfig",
    "TokenizeStageConfig",
    "WeightSchedulePoint",
]


@dataclass(frozen=True)
class SourceStageConfig(Config):
    """How files are read.

    Attributes:
        streaming: read a dataset of the hub row by row; False downloads it first. (True)
        cloud_max_retries: how often a failed read of a remote file is tried again, from 0 up. (3)
        cloud_retry_delay: seconds before the first of these retries, from 0 up; each later one
            waits twice as long. (1.0)
        storage_options: keys and endpoints for fsspec file systems. It can also be set as
            `dask_storage_options`. (None)
    """

    streaming: bool = True
    cloud_max_retries: NonNegative = 3
    cloud_retry_delay: Seconds = 1.0
    storage_options: Options | None = field(default=None, repr=False)
    dask_storage_options: InitVar[Mapping[str, Any] | None] = None

    def __post_init__(self, dask_storage_options: Mapping[str, Any] | None) -> None:
        if dask_storage_options is not None:
            if self.storage_options is not None:
                line = (
                    "dask_storage_options is another name of storage_options, and both are "
                    "given; give storage_options."
                )
                raise ConfigError("SourceStageConfig.", [line])
            object.__setattr__(self, "storage_options", dask_storage_options)
        super().__post_init__()


@dataclass(frozen=True)
class TokenizeStageConfig(Config):
    """How text becomes tokens.

    Attributes:
        default_tokenizer: for datasets that name none: a name, path, object, TokenizerConfig or a
            mapping of its fields. It goes before that of the pipeline. (None)
        max_length: tokens to which rows are cut, where the tokenizer is given without a
            TokenizerConfig; None cuts nothing. (None)
        batch_size: rows given to the tokenizer at a time. (1000)
        num_workers: worker processes; None: by the number of cores. (None)
        cache_tokenized: keep what was tokenized, and tokenize only what is new. (True)
        remove_columns: names of `additional_fields` that are dropped after tokenizing. (None)
        on_error: "raise" ends at a broken row, or one that a transform fails on; "skip" leaves
            such rows out, counts and logs them. ("raise")
    """

    default_tokenizer: AnyTokenizer | None = None
    max_length: Count | None = None
    batch_size: Count = 1000
    num_workers: Count | None = None
    cache_tokenized: bool = True
    remove_columns: Names | None = None
    on_error: Literal["raise", "skip"] = "raise"


@dataclass(frozen=True)
class CacheStageConfig(Config):
    """Where results are kept for the next run.

    Attributes:
        enabled: keep results, with or without an explicit cache stage. (True)
        cache_type: keep datasets on "disk"; there, and open in this process, "hierarchical"; or in
            "memory": as long as this process lives, in its temporary folder. ("hierarchical")
        cache_dir: the local folder. (".cache/easydata")
        memory_cache_size: datasets that are kept in memory at most. (100)
        disk_cache_expiry: seconds, above 0, after which a dataset is made anew; None: when what it
            was made from changes. (None)
        compression: of the files: "none", "lz4", "zstd", "zstd:LEVEL" or "gzip". ("none")
        hash_fn: how a changed file is found: "content" reads it, "path" compares its place, size
            and time of change, "combined" reads it only if these differ. ("combined")
    """

    enabled: bool = True
    cache_type: Literal["hierarchical", "memory", "disk"] = "hierarchical"
    cache_dir: Folder = ".cache/easydata"
    memory_cache_size: Count = 100
    disk_cache_expiry: Positive | None = None
    compression: Compression = "none"
    hash_fn: Literal["combined", "content", "path"] = "combined"


@dataclass(frozen=True)
class WeightSchedulePoint(Config):
    """The weights of a mixture from some step on.

    Attributes:
        step: batches that came before, from 0 up.
        weights: shares of samples by dataset name; they add up to 1.
    """

    step: NonNegative
    weights: Weights


_Schedule = Annotated[Sequence[WeightSchedulePoint], configs_of(WeightSchedulePoint)]


@dataclass(frozen=True)
class MixStageConfig(Config):
    """How samples of several datasets are mixed.

    Attributes:
        weights: shares of samples by dataset name, adding up to 1; None: by size. (None)
        weight_schedule: weights that change with the steps, instead of `weights`: points whose
            steps increase; the first holds from the beginning. (None)
        weight_schedule_type: between two points, weights stay ("step"), or go over "linear" or
            along a "cosine". ("step")
        block_size: samples for which the weights of a "linear" or "cosine" schedule stand
            still. (1000)
        stop_strategy: when a dataset ends: "restart" it, or end the mixture with the
            "first_exhausted" or when "all_exhausted". ("restart")
        seed: of the mixture, 0 to 2^64 - 1; None: the pipeline's. (None)
    """

    weights: Weights | None = None
    weight_schedule: _Schedule | None = None
    weight_schedule_type: Literal["step", "linear", "cosine"] = "step"
    block_size: Count = 1000
    stop_strategy: Literal["restart", "first_exhausted", "all_exhausted"] = "restart"
    seed: Seed | None = None

    def _contradictions(self, right: Callable[..., bool]) -> Iterable[str]:
        if not right("weight_schedule") or self.weight_schedule is None:
            return
        if self.weights is not None:
            yield "weight_schedule and weights are both given; give one of them."
        steps = [point.step for point in self.weight_schedule]
        for at, (before, step) in enumerate(itertools.pairwise(steps), start=1):
            if step <= before:
                yield (f"weight_schedule[{at}].step is {step} after {before}; steps must increase.")


@dataclass(frozen=True)
class PackStageConfig(Config):
    """How rows become samples of one length.

    Attributes:
        enabled: pack rows by `strategy`; False cuts the stream of all rows into samples. (False)
        seq_length: tokens in a sample. (2048)
        eos_token_id: id that ends each row; None: the tokenizer's. (None)
        pad_token_id: id that fills samples up; None: the tokenizer's, or an error where one is
            needed. (None)
        strategy: how rows are chosen for samples. ("greedy")
        num_packers: samples that the strategy "pool" keeps open. (4)
        include_segment_ids: number the rows of a sample in a column `segment_ids`. (True)
        shuffle_packed: shuffle the samples, whether packed or pieces of the stream. (True)
        shuffle_buffer_factor: samples in the shuffling window of a stream, for each packer. (10)
    """

    enabled: bool = False
    seq_length: Count = 2048
    eos_token_id: NonNegative | None = None
    pad_token_id: NonNegative | None = None
    strategy: Literal["greedy", "concat", "pool", "first_fit", "best_fit", "pad"] = "greedy"
    num_packers: Count = 4
    include_segment_ids: bool = True
    shuffle_packed: bool = True
    shuffle_buffer_factor: Count = 10


@dataclass(frozen=True)
class LoadStageConfig(Config):
    """How samples become batches.

    Attributes:
        batch_size: samples in a batch, of all hosts together. (8)
        prefetch_enabled: read batches ahead. (True)
        prefetch_workers: threads that read ahead. (2)
        prefetch_buffer_size: batches that are read ahead at most. (4)
        shuffle_buffer_size: samples in a shuffling window, which are read one after another;
            None: what is cached is shuffled as a whole, a stream in the windows it is packed in.
            (None)
        drop_last: leave out the last batch if it is not full. (True)
        prefetch_to_device: put batches on the accelerator ahead. (False)
    """

    batch_size: Count = 8
    prefetch_enabled: bool = True
    prefetch_workers: Count = 2
    prefetch_buffer_size: Count = 4
    shuffle_buffer_size: Count | None = None
    drop_last: bool = True
    prefetch_to_device: bool = False


@dataclass(frozen=True)
class SaveStageConfig(Config):
    """Where results are written.

    Attributes:
        enabled: write results. (False)
        output_dir: the folder or URL that they go to. ("./output")
        format: of the files: "parquet", "arrow" or "jsonl". ("parquet")
        num_shards: files to write; None: by `max_shard_size`. (None)
        compression: "none", "lz4", "zstd", "zstd:LEVEL" or "gzip"; Arrow files have no gzip.
            None: what is usual for the format. (None)
        max_shard_size: bytes in a file at most, a number or text such as "64MiB"; it holds where
            `num_shards` is None. ("500MB")
        overwrite: replace what is there. (False)
        push_to_hub: upload the result to the HuggingFace hub. (False)
        hub_repo_id: the repository to upload to, as "user/name". (None)
        hub_private: make that repository a private one. (False)
        hub_token: for the upload; None: the one the machine is logged in with. It is neither
            shown nor written to files. (None)
    """

    enabled: bool = False
    output_dir: AnyPath = "./output"
    format: SavedFormat = "parquet"
    num_shards: Count | None = None
    compression: Compression | None = None
    max_shard_size: ByteSize = "500MB"
    overwrite: bool = False
    push_to_hub: bool = False
    hub_repo_id: Text | None = None
    hub_private: bool = False
    hub_token: Text | None = field(default=None, repr=False, metadata={"secret": True})

    @property
    def max_shard_bytes(self) -> int:
        """`max_shard_size` in bytes."""
        return parse_bytes(self.max_shard_size, name="max_shard_size")

    def _contradictions(self, right: Callable[..., bool]) -> Iterable[str]:
        if right("push_to_hub", "hub_repo_id") and self.push_to_hub and self.hub_repo_id is None:
            yield "hub_repo_id is None, but push_to_hub is True; say where to, as 'user/name'."
        if right("format", "compression") and self.compression and self.format == "arrow":
            try:
                resolve_format("ipc", Codec.parse(self.compression))
            except UsageError as error:
                yield f"compression is {self.compression!r}, but format is 'arrow': {error}"


@dataclass(frozen=True)
class RayConfig(Config):
    """Work on a Ray cluster.

    Attributes:
        enabled: run on Ray instead of processes of this machine. (False)
        num_workers: Ray workers. (4)
        resources_per_worker: amounts by name that Ray reserves for each, such as {"CPU": 2}.
            (None)
        use_gpu: reserve a GPU for each. (False)
        object_store_memory: bytes of Ray's object store, a number or text such as "2GB"; None:
            Ray's own choice. (None)
    """

    enabled: bool = False
    num_workers: Count = 4
    resources_per_worker: Amounts | None = None
    use_gpu: bool = False
    object_store_memory: ByteSize | None = None

    @property
    def object_store_bytes(self) -> int | None:
        """`object_store_memory` in bytes."""
        if self.object_store_memory is None:
            return None
        return parse_bytes(self.object_store_memory, name="object_store_memory")


@dataclass(frozen=True)
class ObservabilityConfig(Config):
    """What is shown and measured.

    Attributes:
        progress_enabled: show progress. (True)
        progress_type: "rich" and "tqdm" for people, "json" lines, or "none". ("rich")
        metrics_enabled: count and time what each stage does. (True)
        log_level: the least severe messages that are logged. ("INFO")
        log_interval: batches between two messages about progress. (100)
    """

    progress_enabled: bool = True
    progress_type: Literal["rich", "tqdm", "json", "none"] = "rich"
    metrics_enabled: bool = True
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_interval: Count = 100
