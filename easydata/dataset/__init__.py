"""Opened datasets of tokens."""

from easydata.dataset.token_dataset import Lineage, TokenDataset, open_dataset, open_splits

__all__ = ["Lineage", "TokenDataset", "open_dataset", "open_splits"]
