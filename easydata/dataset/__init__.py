"""Opened datasets of tokens."""

from easydata.dataset._opening import open_dataset, open_splits
from easydata.dataset.token_dataset import Lineage, TokenDataset

__all__ = ["Lineage", "TokenDataset", "open_dataset", "open_splits"]
