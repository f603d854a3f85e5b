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
    from easydata.cache.disk import DiskCache
    from easydata.cache.layer import CacheLayer
    from easydata.cache.memory import MemoryCache
    from easydata.cache.tree import TreeCacheManager
    from easydata.stages import CallableTokenizer

__version__ = "0.1.0"

__all__ = [
    "BadRowError",
    "BuildEstimate",
    "CacheLayer",
    "CacheMetadata",
    "CallableTokenizer",
    "CorruptShardError",
    "DataLoader",
    "DatasetError",
    "DiskCache",
    "EasyDataError",
    "FormatVersionError",
    "Lineage",
    "MemoryCache",
    "MissingDependencyError",
    "NotADatasetError",
    "OutputExistsError",
    "SourceError",
    "SourceNotFoundError",
    "StorageError",
    "TokenDataset",
    "TokenizerError",
    "TreeCacheManager",
    "UnsupportedValueError",
    "UsageError",
    "WorkerError",
    "__version__",
    "build",
    "open_dataset",
    "open_splits",
]

# Who only reads should not wait for what only building needs (pyarrow.compute, 0.1 s).
_LAZY = {
    "BuildEstimate": "easydata.build.estimate",
    "CacheLayer": "easydata.cache.layer",
    "CallableTokenizer": "easydata.stages",
    "DiskCache": "easydata.cache.disk",
    "MemoryCache": "easydata.cache.memory",
    "TreeCacheManager": "easydata.cache.tree",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'easydata' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
