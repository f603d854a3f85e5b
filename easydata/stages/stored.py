"""The small file that says what kind of tokenizer a folder holds, beside the tokenizer's own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from easydata.errors import TokenizerError

__all__ = ["STORED_NAME", "Kind", "Stored", "read_stored"]

STORED_NAME = "easydata-tokenizer.json"

Kind = Literal["bytes", "json", "transformers"]


@dataclass(frozen=True)
class Stored:
    """How to load the tokenizer in a folder that easydata wrote.

    Attributes:
        kind: which loader: the built-in bytes, tokenizer.json, or `transformers`.
        name: the tokenizer's name when it was stored.
        parse_special: whether text that spells a special token becomes that token.
        class_name: for `transformers`, the class that must come back.
    """

    kind: Kind
    name: str
    parse_special: bool = False
    class_name: str | None = None

    def to_files(self) -> dict[str, bytes]:
        """The one file that `read_stored` reads."""
        text = json.dumps(asdict(self), indent=1, sort_keys=True)
        return {STORED_NAME: text.encode("ascii") + b"\n"}


def read_stored(folder: Path) -> Stored | None:
    """What easydata wrote into `folder`, or None where it wrote nothing.

    Raises:
        TokenizerError: the file is there but is not what this version writes.
    """
    path = folder / STORED_NAME
    try:
        fields = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TokenizerError(f"cannot read {path}: {error}") from error
    kinds = ("bytes", "json", "transformers")
    try:
        stored = Stored(**fields)
    except TypeError:
        stored = None
    if stored is None or stored.kind not in kinds:
        raise TokenizerError(
            f"{path} does not name a kind of tokenizer that this version knows "
            f"({', '.join(kinds)}). Update easydata, or pass another tokenizer"
        )
    return stored
