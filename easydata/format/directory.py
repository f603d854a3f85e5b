"""A dataset directory: which files it has, and how a new one takes its place.

    state.json               what `datasets.load_from_disk` reads first; also names the ledger
    dataset_info.json        always `{}`: the features are in the shards
    data-00000-of-00012-1f0c….arrow
    ledger-….arrow           what the dataset consists of
    tokenizer-…/             the tokenizer's files
    .build/                  parts of a build that has not finished

There is one commit: renaming `state.json`. Every other name holds a hash of content, so that a
new generation never writes over a file that a reader may have mapped.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from easydata._fs import is_temporary, publish_bytes, sync_directory
from easydata.errors import FormatVersionError, NotADatasetError
from easydata.format.ledger import FORMAT_VERSION

__all__ = [
    "INFO_FILE",
    "SPLITS_FILE",
    "STATE_FILE",
    "TOKENIZER_PREFIX",
    "TOKENS",
    "WORK_FOLDER",
    "read_fingerprint",
    "read_shard_names",
    "read_splits",
    "read_state",
    "remove_superseded",
    "remove_temporary",
    "write_splits",
    "write_state",
]

TOKENS = "input_ids"  # the column of token ids, under the name that trainers expect
STATE_FILE = "state.json"
INFO_FILE = "dataset_info.json"
SPLITS_FILE = "dataset_dict.json"
WORK_FOLDER = ".build"
TOKENIZER_PREFIX = "tokenizer-"
_OUR_KEY = "easydata"
_OURS_FIRST = f'{{"{_OUR_KEY}":'.encode()
_MAX_OURS_BYTES = 512
_OURS = re.compile(
    r"data-\d{5}-of-\d{5}(-[0-9a-f]{16})?\.(arrow|parquet)"
    r"|ledger-[0-9a-f]{32}\.arrow"
    r"|tokenizer-[0-9a-f]{32}"
)


def write_state(
    directory: Path,
    *,
    shard_names: Sequence[str],
    ledger_name: str,
    fingerprint: str,
    split: str | None,
) -> None:
    """Publish a dataset: after this call, and not before, it is there.

    Args:
        directory: the dataset directory; shards and ledger already lie in it.
        shard_names: file names, in order.
        ledger_name: file name of the ledger.
        fingerprint: 16 hexadecimal digits that follow from the content. `datasets` keeps
            results of `map` in the directory under it.
        split: the split's name, if the dataset is one of several.
    """
    state = {
        _OUR_KEY: {"format": FORMAT_VERSION, "ledger": ledger_name},
        "_data_files": [{"filename": name} for name in shard_names],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }
    publish_bytes(directory / INFO_FILE, b"{}")
    sync_directory(directory)
    publish_bytes(directory / STATE_FILE, json.dumps(state, separators=(",", ":")).encode())
    sync_directory(directory)


def read_state(directory: Path) -> str | None:
    """File name of the ledger, or None where `datasets` wrote the files.

    Raises:
        NotADatasetError: there is no complete dataset here.
        FormatVersionError: a newer version wrote it.
    """
    data = _read_state_file(directory)
    with _invalid_state(directory):
        if data.startswith(_OURS_FIRST):
            # The names of 1,000 shards behind it take longer to parse than all else takes.
            start = data[len(_OURS_FIRST) :][:_MAX_OURS_BYTES].decode("ascii").lstrip()
            ours, _ = json.JSONDecoder().raw_decode(start)
        else:
            state = json.loads(data)
            _names(state)
            ours = state.get(_OUR_KEY)
        version = 0 if ours is None else int(ours["format"])
        ledger = None if ours is None else str(ours["ledger"])
    if version > FORMAT_VERSION:
        raise FormatVersionError(
            f"{directory} has format version {version}; this easydata reads up to "
            f"{FORMAT_VERSION}. Upgrade easydata."
        )
    return ledger


def read_shard_names(directory: Path) -> list[str]:
    """File names of the shards that `datasets` would open, in order.

    Raises:
        NotADatasetError: there is no complete dataset here.
    """
    data = _read_state_file(directory)
    with _invalid_state(directory):
        return _names(json.loads(data))


def read_fingerprint(directory: Path) -> str:
    """What `datasets` calls the fingerprint of its dataset; "" if it gave none.

    Raises:
        NotADatasetError: there is no complete dataset here.
    """
    data = _read_state_file(directory)
    with _invalid_state(directory):
        found = json.loads(data).get("_fingerprint")
        return found if isinstance(found, str) else ""


def _read_state_file(directory: Path) -> bytes:
    try:
        return (directory / STATE_FILE).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise NotADatasetError(_why_not(directory)) from None


def _names(state: dict[str, Any]) -> list[str]:
    return [str(entry["filename"]) for entry in state["_data_files"]]


@contextlib.contextmanager
def _invalid_state(directory: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NotADatasetError(
            f"{directory / STATE_FILE} is not the state of a dataset ({error!r}). "
            "Build the dataset again with --overwrite."
        ) from error


def write_splits(directory: Path, names: Sequence[str]) -> None:
    """Publish the list of splits, each a dataset directory of its own below `directory`."""
    publish_bytes(directory / SPLITS_FILE, json.dumps({"splits": list(names)}).encode())
    sync_directory(directory)


def read_splits(directory: Path) -> list[str] | None:
    """Names of the splits, or None if the directory is not a set of splits."""
    try:
        splits = [*json.loads((directory / SPLITS_FILE).read_bytes())["splits"]]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise NotADatasetError(
            f"{directory / SPLITS_FILE} is not a list of splits ({error!r})."
        ) from error
    return [str(name) for name in splits]


def remove_superseded(directory: Path, keep: Sequence[str]) -> None:
    """Delete shards, ledgers and tokenizers of earlier generations.

    Readers that have mapped one keep reading it. Files that are not ours stay, among them the
    results that `datasets` caches here.
    """
    import shutil

    wanted = set(keep)
    for path in directory.iterdir():
        if path.name in wanted or not (_OURS.fullmatch(path.name) or is_temporary(path.name)):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_temporary(directory: Path) -> None:
    """Delete files that a killed build never published."""
    for path in directory.iterdir():
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def _why_not(directory: Path) -> str:
    if not directory.exists():
        return f"{directory} does not exist. Build it with: easydata build … --out {directory}"
    if not directory.is_dir():
        return f"{directory} is a file, not a dataset directory."
    splits = read_splits(directory)
    if splits:
        return (
            f"{directory} holds the splits {', '.join(splits)}. "
            f"Open one: {directory / splits[0]}, or split={splits[0]!r}."
        )
    if (directory / WORK_FOLDER).exists():
        return (
            f"{directory} holds a build that has not finished. "
            "Run the same build again: it continues where it stopped."
        )
    return f"{directory} holds no dataset ({STATE_FILE} is missing)."
