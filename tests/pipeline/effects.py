"""What the tests of the effects of configurations share.

Every field of every configuration changes what happens. A test of an effect runs a pipeline without
and with the change, and looks at both.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import easydata as ed
from easydata import pipeline as configs

from .counting import Counting, quiet, words, write_rows

CONFIGS = [
    item
    for item in vars(configs).values()
    if inspect.isclass(item) and dataclasses.is_dataclass(item) and item.__name__.endswith("Config")
] + [ed.WeightSchedulePoint]
FIELDS = {f"{item.__name__}.{f.name}" for item in CONFIGS for f in dataclasses.fields(item)}


class Effects(dict[str, Callable[["Case"], None]]):
    """By field, a test of its effect."""

    def of(self, *fields: str) -> Callable[[Callable[[Case], None]], None]:
        """Registers the test of these fields."""
        return lambda test: self.update(dict.fromkeys(fields, test))


class Case:
    """Two small datasets, a tokenizer that counts, and pipelines over them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.a = write_rows(
            folder / "a.jsonl", words("a", 40), id=range(40), body=[f"body {i}" for i in range(40)]
        )
        self.b = write_rows(folder / "b.jsonl", words("b", 30), id=range(30))
        self.counting = Counting()

    def config(self, dataset: dict[str, Any] | None = None, both: bool = False, **fields: Any):
        """A configuration of the first dataset, or of both."""
        given = [{"name": "a", "data_files": self.a, **(dataset or {})}]
        if both:
            given.append({"name": "b", "data_files": self.b})
        fields = {"default_tokenizer": self.counting.tokenizer, **fields}
        return quiet(self.folder, datasets=given, **fields)

    def pipeline(self, *stages: str, **fields: Any) -> ed.Pipeline:
        pipeline = ed.Pipeline.from_config(self.config(**fields)).source()
        for stage in stages:
            getattr(pipeline, stage)()
        return pipeline

    def tokens(self, **fields: Any) -> Any:
        return self.pipeline(**fields).build()

    def ids(self, **fields: Any) -> list[list[int]]:
        return [row["input_ids"].tolist() for row in self.tokens(**fields)]

    def batches(self, *stages: str, **fields: Any) -> list[dict[str, Any]]:
        return list(self.pipeline(*stages, "load", **fields).build())

    def rows(self, *stages: str, **fields: Any) -> list[list[int]]:
        return [row for b in self.batches(*stages, **fields) for row in b["input_ids"].tolist()]

    def saved(self, *stages: str, **fields: Any) -> Path:
        save = {"output_dir": str(self.folder / "saved"), "overwrite": True}
        fields["save"] = {**save, **fields.get("save", {})}
        self.pipeline(*stages, "save", **fields).build()
        return self.folder / "saved"


def ord_of(text: str, eos: bool = True) -> list[int]:
    return [*map(ord, text), *([0] if eos else [])]
