"""From any stream of tokens to batches."""

from easydata.loader.data_loader import DataLoader, TokenSource

__all__ = ["DataLoader", "TokenSource"]
