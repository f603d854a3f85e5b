"""Where the rows of a dataset came from."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from easydata.errors import DatasetError
from easydata.format.ledger import Ledger

__all__ = ["Lineage", "lineage_of"]


class Lineage(NamedTuple):
    """Where a row came from: the source's name and the index of the record in it, from 0."""

    source: str
    record: int


def lineage_of(ledger: Ledger, row: int, directory: Path) -> Lineage:
    """The origin of row `row`, which exists; `directory` is for messages.

    Raises:
        DatasetError: the dataset records no lineage.
    """
    if not ledger.num_sources:
        raise DatasetError(f"{directory} records no lineage; build it again to have it.")
    first_rows = ledger.span_first_rows
    number = int(np.searchsorted(first_rows, row, side="right")) - 1
    span = ledger.span(number)
    record = row - int(first_rows[number])
    if span.kept is not None:
        bits = np.unpackbits(np.frombuffer(span.kept, np.uint8), count=span.records)
        record = int(np.flatnonzero(bits)[record])
    name = ledger.source(span.source)["name"]
    return Lineage(str(name), span.first_record + record)
