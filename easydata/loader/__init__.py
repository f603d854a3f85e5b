"""From any stream of tokens to batches."""

from easydata.loader.data_loader import DataLoader
from easydata.loader.protocols import TokenSource

__all__ = ["DataLoader", "TokenSource"]
