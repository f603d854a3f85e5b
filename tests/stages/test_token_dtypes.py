from __future__ import annotations

import numpy as np
import pytest

from easydata.errors import UsageError
from easydata.stages import TOKEN_DTYPES, choose_dtype


@pytest.mark.parametrize(
    ("vocab_size", "expected"),
    [(1, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (2**32, "uint32")],
)
def test_auto(vocab_size: int, expected: str) -> None:
    assert choose_dtype(vocab_size) == np.dtype(expected)


@pytest.mark.parametrize("name", TOKEN_DTYPES)
def test_by_name(name: str) -> None:
    assert choose_dtype(10**6, name).name == name


@pytest.mark.parametrize("name", ["float32", "int16", "u2", ""])
def test_others_are_refused(name: str) -> None:
    with pytest.raises(UsageError, match=r"no type for token ids. Use auto, uint8, uint16, uint32"):
        choose_dtype(10, name)
