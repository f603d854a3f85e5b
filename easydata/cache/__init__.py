"""Key to value: memory, disk, tree."""

from easydata.cache.disk import DiskCache
from easydata.cache.layer import CacheLayer
from easydata.cache.memory import MemoryCache
from easydata.cache.tree import TreeCacheManager

__all__ = ["CacheLayer", "DiskCache", "MemoryCache", "TreeCacheManager"]
