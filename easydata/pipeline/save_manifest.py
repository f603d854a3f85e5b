"""The file that says what was saved in a folder: its presence makes the folder ours."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Self

from easydata.errors import FormatVersionError, OutputExistsError
from easydata.format.directory import INFO_FILE, STATE_FILE
from easydata.metadata import CacheMetadata

__all__ = ["MANIFEST", "Manifest", "refuse_foreign"]

# Hidden, because pyarrow, pandas, `datasets` and `find_sources` take every other file of a folder
# for data.
MANIFEST = ".easydata-save.json"
_VERSION = 1
_SHOWN = 3
# What a dataset directory may hold, `datasets`' own cached results included.
_DATASET_FILES = re.compile(
    r"data-.*\.(arrow|parquet)|ledger-.*\.arrow|tokenizer-[0-9a-f]{32}(/.*)?|\.build(/.*)?"
    r"|(cache-|tmp|\.tmp-).*|state\.json|dataset_info\.json|indices\.arrow|\.lease"
)


@dataclass(frozen=True)
class Manifest:
    """What was saved.

    Attributes:
        identity: of the rows and of every option that shapes files; None where nobody knows it.
        num_rows: how many rows.
        files: bytes by name, paths below the folder.
        metadata: what the rows were made from.
    """

    identity: str | None
    num_rows: int
    files: Mapping[str, int]
    metadata: CacheMetadata = field(default_factory=CacheMetadata)

    def to_bytes(self) -> bytes:
        """The file's content."""
        return json.dumps({"easydata_save": _VERSION, **asdict(self)}, indent=1).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Self | None:
        """The inverse of `to_bytes`; None if it is nothing of ours.

        Raises:
            FormatVersionError: a newer easydata wrote it.
        """
        try:
            values = json.loads(data)
            version = values.pop("easydata_save")
            if version > _VERSION:
                raise FormatVersionError(
                    f"{where} was saved by a newer easydata (version {version} of its manifest). "
                    "Upgrade easydata, or save to another folder."
                )
            return cls(**{**values, "metadata": CacheMetadata.from_dict(values["metadata"])})
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


def refuse_foreign(
    where: str, names: Iterable[str], manifest: Manifest | None, *, overwrite: bool
) -> None:
    """Check that a folder may be replaced.

    Args:
        where: the folder, for messages.
        names: all files in it, as paths below it; at least one.
        manifest: what it says of itself.
        overwrite: whether the user wants to replace what is ours.

    Raises:
        OutputExistsError: it may not.
    """
    found = set(names)
    is_dataset = {STATE_FILE, INFO_FILE} <= found
    if manifest is None and not is_dataset:
        raise OutputExistsError(
            f"{where} holds files that easydata did not save ({_shown(found)}). "
            "Choose another folder, or empty this one."
        )
    if not overwrite:
        raise OutputExistsError(
            f"{where} holds another result. Save with overwrite=True to replace it, or choose "
            "another folder."
        )
    ours = {MANIFEST, *(manifest.files if manifest else ())}
    foreign = [
        name
        for name in found - ours
        if not (_DATASET_FILES.fullmatch(name) and (is_dataset or name.startswith(".")))
    ]
    if foreign:
        raise OutputExistsError(
            f"{where} holds files that easydata did not save ({_shown(foreign)}) beside a result. "
            "Move them, or choose another folder."
        )


def _shown(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return ", ".join(ordered[:_SHOWN]) + (", …" if len(ordered) > _SHOWN else "")
