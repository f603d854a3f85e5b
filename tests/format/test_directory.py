from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from easydata.errors import FormatVersionError, NotADatasetError
from easydata.format.directory import (
    read_shard_names,
    read_splits,
    read_state,
    remove_superseded,
    write_splits,
    write_state,
)

NAMES = ["data-00000-of-00002-0123456789abcdef.arrow", "data-00001-of-00002-0123456789abcdef.arrow"]
LEDGER = f"ledger-{'0' * 32}.arrow"
STATE: dict[str, Any] = {
    "_data_files": [{"filename": name} for name in NAMES],
    "easydata": {"format": 1, "ledger": LEDGER},
}


def test_state_has_what_datasets_needs_and_names_the_ledger(tmp_path: Path) -> None:
    write_state(
        tmp_path, shard_names=NAMES, ledger_name=LEDGER, fingerprint="0123456789abcdef", split="val"
    )
    assert json.loads((tmp_path / "state.json").read_text()) == {
        "_data_files": [{"filename": name} for name in NAMES],
        "_fingerprint": "0123456789abcdef",
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "val",
        "easydata": {"format": 1, "ledger": LEDGER},
    }
    assert (tmp_path / "dataset_info.json").read_text() == "{}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset_info.json", "state.json"]
    assert read_state(tmp_path) == LEDGER
    assert read_shard_names(tmp_path) == NAMES


def test_state_that_datasets_wrote(tmp_path: Path) -> None:
    state = {name: value for name, value in STATE.items() if name != "easydata"}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert read_state(tmp_path) is None
    assert read_shard_names(tmp_path) == NAMES


@pytest.mark.parametrize("indent", [None, 2])
def test_state_that_was_written_again_by_other_means(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "state.json").write_text(json.dumps(STATE, indent=indent, sort_keys=True))
    assert read_state(tmp_path) == LEDGER
    assert read_shard_names(tmp_path) == NAMES


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADatasetError, match=r"nothing does not exist\. Build it with"):
        read_state(tmp_path / "nothing")


def test_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(NotADatasetError, match="is a file, not a dataset directory"):
        read_state(tmp_path / "file")
    assert read_splits(tmp_path / "file") is None


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(NotADatasetError, match=r"holds no dataset \(state.json is missing\)"):
        read_state(tmp_path)


def test_an_unfinished_build(tmp_path: Path) -> None:
    (tmp_path / ".build").mkdir()
    with pytest.raises(NotADatasetError, match=r"not finished.*Run the same build again"):
        read_state(tmp_path)


def test_a_folder_of_splits(tmp_path: Path) -> None:
    write_splits(tmp_path, ["train", "test"])
    assert json.loads((tmp_path / "dataset_dict.json").read_text()) == {"splits": ["train", "test"]}
    assert read_splits(tmp_path) == ["train", "test"]
    with pytest.raises(NotADatasetError, match=r"the splits train, test\..*split='train'"):
        read_state(tmp_path)


def test_no_splits(tmp_path: Path) -> None:
    assert read_splits(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"splits": 1}', "\ufffe"])
def test_a_broken_list_of_splits(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset_dict.json").write_text(text)
    with pytest.raises(NotADatasetError, match=r"dataset_dict\.json is not a list of splits"):
        read_splits(tmp_path)


@pytest.mark.parametrize(
    "state",
    [
        None,
        [],
        "text",
        {},
        {"_data_files": None},
        {"_data_files": ["name"]},
        {"_data_files": [{"name": "x"}]},
        *[
            {**STATE, "easydata": ours}
            for ours in (
                5,
                [],
                {},
                {"format": 1},
                {"ledger": LEDGER},
                {"format": "x", "ledger": ""},
            )
        ],
    ],
    ids=str,
)
def test_a_broken_state(tmp_path: Path, state: object) -> None:
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(NotADatasetError, match=r"state\.json is not the state.*--overwrite"):
        read_state(tmp_path)


@pytest.mark.parametrize(
    "text", [b"", b"{", b"\xff\xfe", b"nul", b'{"easydata":', b'{"easydata":{"format":1}}']
)
def test_broken_json(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "state.json").write_bytes(text)
    with pytest.raises(NotADatasetError, match=r"state\.json is not the state"):
        read_state(tmp_path)


def test_a_newer_version(tmp_path: Path) -> None:
    newer = {**STATE, "easydata": {"format": 2, "ledger": LEDGER}}
    (tmp_path / "state.json").write_text(json.dumps(newer))
    with pytest.raises(FormatVersionError, match=r"version 2; this easydata reads up to 1"):
        read_state(tmp_path)


OURS = [
    "data-00000-of-00001.arrow",
    "data-00000-of-00001-fedcba9876543210.arrow",
    "data-00000-of-00001-fedcba9876543210.parquet",
    f"ledger-{'f' * 32}.arrow",
]
OTHERS = [
    "state.json",
    "dataset_info.json",
    "dataset_dict.json",
    "cache-0123456789abcdef.arrow",
    "tmpa1b2c3",
    "notes.txt",
    "data-mine.arrow",
    "data-00000-of-00001-fedcba9876543210.arrow.bak",
    "my-data-00000-of-00001.arrow",
    "ledger-of-mine.arrow",
    "tokenizer-notes",
]


def test_only_older_generations_are_removed(tmp_path: Path) -> None:
    kept = [*NAMES, LEDGER]
    for name in [*OURS, *OTHERS, *kept]:
        (tmp_path / name).write_text(name)
    for digit in "ab":
        folder = tmp_path / f"tokenizer-{digit * 32}"
        folder.mkdir()
        (folder / "tokenizer.json").write_text("{}")
    (tmp_path / "folder").mkdir()
    remove_superseded(tmp_path, [*kept, f"tokenizer-{'b' * 32}"])
    assert {path.name for path in tmp_path.iterdir()} == {
        *OTHERS,
        *kept,
        "folder",
        f"tokenizer-{'b' * 32}",
    }
    assert (tmp_path / "cache-0123456789abcdef.arrow").read_text().startswith("cache")
