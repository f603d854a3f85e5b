from __future__ import annotations

import json
from pathlib import Path

import pytest

import easydata as ed
from easydata.errors import NotADatasetError

ROWS = [
    {"text": f"{i} " * (i * 5 % 13)} if i % 17 else {"no text": i} for i in range(400)
]  # every 17th row is broken, every 13th is empty


def write_files(folder: Path) -> list[Path]:
    """The rows in three files, with blank lines between them that are no records."""
    paths = []
    for number, (start, stop) in enumerate([(0, 7), (7, 300), (300, 400)]):
        path = folder / f"{number}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[start:stop]))
        paths.append(path)
    return paths


def text_of(dataset: ed.TokenDataset, row: int) -> str:
    return bytes(dataset[row]["input_ids"][:-1].tolist()).decode()


def assert_lineage(dataset: ed.TokenDataset) -> list[tuple[str, int]]:
    """Every row is the text of the record that its lineage names; returns all of them."""
    found = []
    for row in range(len(dataset)):
        lineage = dataset.lineage(row)
        record = json.loads(Path(lineage.source).read_text().split("\n")[lineage.record])
        assert text_of(dataset, row) == record["text"]
        found.append((lineage.source, lineage.record))
    assert dataset.lineage(-1) == dataset.lineage(len(dataset) - 1)
    with pytest.raises(IndexError):
        dataset.lineage(len(dataset))
    return found


@pytest.mark.parametrize("min_tokens", [0, 1, 30])
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_rows_that_were_left_out(tmp_path: Path, min_tokens: int, compression: str) -> None:
    dataset = ed.build(
        write_files(tmp_path),
        tokenizer="bytes",
        out=tmp_path / "out",
        on_error="skip",
        min_tokens=min_tokens,
        compression=compression,
        part_size=2048,
        shard_size="4kB",
    )
    found = assert_lineage(dataset)
    expected = [i for i, r in enumerate(ROWS) if "text" in r and len(r["text"]) >= min_tokens]
    assert len(found) == len(expected)
    assert found == sorted(found)
    assert dataset.ledger.total("skipped") == len(range(0, 400, 17))


def test_splits(tmp_path: Path) -> None:
    out = tmp_path / "out"
    built = ed.build(
        write_files(tmp_path),
        tokenizer="bytes",
        out=out,
        on_error="skip",
        splits={"train": 0.7, "test": 0.3},
        part_size=2048,
    )
    opened = ed.open_splits(out)
    assert list(opened) == list(built) == ["train", "test"]
    found = [place for dataset in opened.values() for place in assert_lineage(dataset)]
    assert len(found) == len(set(found)) == sum("text" in row for row in ROWS)
    assert 0.2 < len(opened["test"]) / len(found) < 0.4
    assert len(ed.open_dataset(out, split="test")) == len(opened["test"])
    assert len(ed.open_dataset(out / "test")) == len(opened["test"])
    with pytest.raises(NotADatasetError, match=r"the splits train, test.*split='train'"):
        ed.open_dataset(out)
    with pytest.raises(NotADatasetError, match=r"no split 'x'; its splits are train, test"):
        ed.open_dataset(out, split="x")


def test_decode_gives_the_text(tmp_path: Path) -> None:
    texts = ["", "naïve 東京 🙂", "a\x00b"]
    rows = [{"text": text} for text in texts]
    for bos in (False, True):
        dataset = ed.build(rows, tokenizer="bytes", out=tmp_path / str(bos), add_bos=bos)
        assert [dataset.decode(row) for row in range(3)] == texts
        assert dataset.tokenizer().name == "bytes"
