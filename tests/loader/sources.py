"""Sources of samples that tell which sample each row is."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import easydata as ed
from easydata.loader.mixing import Mixture


class Numbers:
    """A `SampleSource` of which every token of sample i is `base + i`."""

    def __init__(
        self, num_samples: int, *, base: int = 0, seq_len: int = 3, dtype: Any = np.uint16
    ) -> None:
        self.num_samples = num_samples
        self.seq_len = seq_len
        self.base = base
        self.dtype = dtype

    @property
    def fingerprint(self) -> str:
        return f"{self.num_samples} from {self.base}"

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        assert ((samples >= 0) & (samples < self.num_samples)).all()
        rows = (samples + self.base)[:, None]
        return {"input_ids": np.repeat(rows, self.seq_len, axis=1).astype(self.dtype)}


def load(source: Any, *arguments: Any, **options: Any) -> ed.DataLoader:
    """A loader of one epoch, in order, unless the options or a mixture say otherwise."""
    plain: dict[str, Any] = {"epochs": 1}
    if not isinstance(source, Mixture):
        plain["shuffle"] = False
    return ed.DataLoader(source, *arguments, **{**plain, **options})
