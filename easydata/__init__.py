"""easydata tokenizes text once, keeps it in an Arrow cache, and feeds training loops."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from easydata.build import build
from easydata.dataset import Lineage, TokenDataset, open_dataset, open_splits
from easydata.errors import (
    BadRowError,
    CorruptShardError,
    DatasetError,
    EasyDataError,
    FormatVersionError,
    MissingDependencyError,
    NotADatasetError,
    OutputExistsError,
    SourceError,
    SourceNotFoundError,
    StorageError,
    TokenizerError,
    UnsupportedValueError,
    UsageError,
    WorkerError,
)
from easydata.loader import DataLoader
from easydata.metadata import CacheMetadata

if TYPE_CHECKING:
    from easydata.build.estimate import BuildEstimate
    from easydata.build.explain import explain
    from easydata.cache.dataset_cache import DatasetCache
    from easydata.cache.disk import DiskCache
    from easydata.cache.layer import CacheLayer
    from easydata.cache.memory import MemoryCache
    from easydata.cache.tree import TreeCacheManager
    from easydata.engine.ray_engine import RayEngine
    from easydata.fingerprint import fingerprint_file, identify_function
    from easydata.loader.array_tokens import ArrayTokens
    from easydata.loader.grain_data import GrainSource
    from easydata.loader.mixing import Mixture
    from easydata.loader.packing import pack
    from easydata.loader.torch_data import TorchDataset
    from easydata.pipeline import (
        CacheStageConfig,
        DatasetConfig,
        LoadStageConfig,
        MixStageConfig,
        ObservabilityConfig,
        PackStageConfig,
        Pipeline,
        PipelineConfig,
        RayConfig,
        SaveStageConfig,
        SourceStageConfig,
        TokenizerConfig,
        TokenizeStageConfig,
        WeightSchedulePoint,
        create_pipeline,
        dump_config,
        load_config,
        pretokenize,
        tokenize_and_save,
    )
    from easydata.stages import CallableTokenizer

__version__ = "0.1.0"

__all__ = [
    "ArrayTokens",
    "BadRowError",
    "BuildEstimate",
    "CacheLayer",
    "CacheMetadata",
    "CacheStageConfig",
    "CallableTokenizer",
    "CorruptShardError",
    "DataLoader",
    "DatasetCache",
    "DatasetConfig",
    "DatasetError",
    "DiskCache",
    "EasyDataError",
    "FormatVersionError",
    "GrainSource",
    "Lineage",
    "LoadStageConfig",
    "MemoryCache",
    "MissingDependencyError",
    "MixStageConfig",
    "Mixture",
    "NotADatasetError",
    "ObservabilityConfig",
    "OutputExistsError",
    "PackStageConfig",
    "Pipeline",
    "PipelineConfig",
    "RayConfig",
    "RayEngine",
    "SaveStageConfig",
    "SourceError",
    "SourceNotFoundError",
    "SourceStageConfig",
    "StorageError",
    "TokenDataset",
    "TokenizeStageConfig",
    "TokenizerConfig",
    "TokenizerError",
    "TorchDataset",
    "TreeCacheManager",
    "UnsupportedValueError",
    "UsageError",
    "WeightSchedulePoint",
    "WorkerError",
    "__version__",
    "build",
    "create_pipeline",
    "dump_config",
    "explain",
    "fingerprint_file",
    "identify_function",
    "load_config",
    "open_dataset",
    "open_splits",
    "pack",
    "pretokenize",
    "tokenize_and_save",
]

# Who only reads should not wait for what only building needs (pyarrow.compute, 0.1 s).
_LAZY = {
    "BuildEstimate": "easydata.build.estimate",
    "ArrayTokens": "easydata.loader.array_tokens",
    "CacheLayer": "easydata.cache.layer",
    "CacheStageConfig": "easydata.pipeline",
    "CallableTokenizer": "easydata.stages",
    "DatasetCache": "easydata.cache.dataset_cache",
    "DatasetConfig": "easydata.pipeline",
    "DiskCache": "easydata.cache.disk",
    "GrainSource": "easydata.loader.grain_data",
    "LoadStageConfig": "easydata.pipeline",
    "TorchDataset": "easydata.loader.torch_data",
    "MemoryCache": "easydata.cache.memory",
    "MixStageConfig": "easydata.pipeline",
    "Mixture": "easydata.loader.mixing",
    "ObservabilityConfig": "easydata.pipeline",
    "PackStageConfig": "easydata.pipeline",
    "Pipeline": "easydata.pipeline",
    "PipelineConfig": "easydata.pipeline",
    "RayConfig": "easydata.pipeline",
    "RayEngine": "easydata.engine.ray_engine",
    "SaveStageConfig": "easydata.pipeline",
    "SourceStageConfig": "easydata.pipeline",
    "TokenizeStageConfig": "easydata.pipeline",
    "TokenizerConfig": "easydata.pipeline",
    "TreeCacheManager": "easydata.cache.tree",
    "WeightSchedulePoint": "easydata.pipeline",
    "create_pipeline": "easydata.pipeline",
    "dump_config": "easydata.pipeline",
    "explain": "easydata.build.explain",
    "fingerprint_file": "easydata.fingerprint",
    "identify_function": "easydata.fingerprint",
    "load_config": "easydata.pipeline",
    "pack": "easydata.loader.packing",
    "pretokenize": "easydata.pipeline",
    "tokenize_and_save": "easydata.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'easydata' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
