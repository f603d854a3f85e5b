"""Effects of the fields of tokenizers, datasets and sources."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

import easydata as ed

from .counting import Counting, words, write_rows
from .effects import Case, Effects, ord_of

EFFECTS = Effects()
effect = EFFECTS.of


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


# --- TokenizerConfig


@effect("TokenizerConfig.name_or_path")
def _(case):
    tokens = case.tokens(default_tokenizer={"name_or_path": "bytes"})
    assert tokens.decode(0) == words("a", 1)[0]
    assert tokens[0]["input_ids"][-1] == 256


@effect("TokenizerConfig.max_length", "TokenizerConfig.truncation")
def _(case):
    def longest(**fields):
        tokenizer = {"name_or_path": case.counting.tokenizer, **fields}
        return max(map(len, case.ids(default_tokenizer=tokenizer)))

    assert longest(max_length=7) == 7
    assert longest(max_length=9) == 9
    assert longest(max_length=7, truncation=False) == longest(max_length=None) > 9


@effect("TokenizerConfig.padding", "TokenizerConfig.return_attention_mask")
def _(case):
    def tokens(**fields):
        return case.tokens(
            default_tokenizer={"name_or_path": case.counting.tokenizer, **fields},
            tokenize={"batch_size": 10},
        )

    padded = tokens(padding="max_length", max_length=64)
    assert {len(row["input_ids"]) for row in padded} == {64}
    mask = padded.column("attention_mask")[0].as_py()
    assert mask == [1] * (len(words("a", 1)[0]) + 1) + [0] * (63 - len(words("a", 1)[0]))
    bare = tokens(padding="max_length", max_length=64, return_attention_mask=False)
    assert bare.to_table().column_names == ["input_ids"]
    lengths = [len(row["input_ids"]) for row in tokens(padding="longest")]
    longest = [len(text) + 1 for text in words("a", 40)]
    assert lengths == [max(longest[at : at + 10]) for at in range(0, 40, 10) for _ in range(10)]
    assert [len(row["input_ids"]) for row in tokens()] == longest


@effect("TokenizerConfig.add_special_tokens")
def _(case):
    for add in (True, False):
        tokenizer = {"name_or_path": case.counting.tokenizer, "add_special_tokens": add}
        assert case.ids(default_tokenizer=tokenizer)[3] == ord_of(words("a", 4)[3], add)


@effect("TokenizerConfig.trust_remote_code")
def _(case):
    folder = case.folder / "remote"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["mine.Mine", None]}, "eos_token": "\u0001"})
    )
    (folder / "mine.py").write_text(
        "from transformers import PreTrainedTokenizer\n"
        "class Mine(PreTrainedTokenizer):\n"
        "    @property\n"
        "    def vocab_size(self):\n        return 256\n"
        "    def get_vocab(self):\n        return {chr(i): i for i in range(256)}\n"
        "    def _tokenize(self, text, **kwargs):\n        return list(text)\n"
        "    def _convert_token_to_id(self, token):\n        return min(ord(token), 255)\n"
        "    def _convert_id_to_token(self, index):\n        return chr(index)\n"
        "    def save_vocabulary(self, folder, filename_prefix=None):\n        return ()\n"
    )
    given = {"name_or_path": str(folder), "trust_remote_code": True}
    tokenize = {"num_workers": 1}
    first = case.ids(default_tokenizer=given, tokenize=tokenize)[0]
    assert first == [*map(ord, words("a", 1)[0]), 1]
    with pytest.raises(ed.TokenizerError, match="trust_remote_code"):
        case.ids(default_tokenizer={**given, "trust_remote_code": False}, tokenize=tokenize)


# --- DatasetConfig


@effect("DatasetConfig.data_files")
def _(case):
    assert case.ids(dataset={"data_files": case.b})[0] == ord_of(words("b", 1)[0])


@effect("DatasetConfig.name")
def _(case):
    both = case.tokens(both=True, dataset={"name": "first"})
    assert list(both) == ["first", "b"]


@effect("DatasetConfig.type")
def _(case):
    plain = case.folder / "plain.data"
    plain.write_text("a whole file")
    assert case.ids(dataset={"data_files": plain, "type": "txt"}) == [ord_of("a whole file")]
    with pytest.raises(ed.SourceError, match="unknown extension"):
        case.ids(dataset={"data_files": plain})


@effect("DatasetConfig.split")
def _(case):
    parts = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    data = datasets.DatasetDict(parts)
    assert case.ids(dataset={"data_files": data}) == [ord_of("train")]
    assert case.ids(dataset={"data_files": data, "split": "test"}) == [ord_of("test")]
    data.save_to_disk(case.folder / "saved-splits")
    saved = {"data_files": str(case.folder / "saved-splits"), "split": "test"}
    assert case.ids(dataset=saved) == [ord_of("test")]


def hub_folder(case: Case) -> Path:
    """A folder that `load_dataset` reads as it reads one of the hub, with two configurations."""
    folder = case.folder / "hub"
    for name in ("small", "large"):
        write_rows(folder / name / "train.jsonl", words(name, 3))
    (folder / "README.md").write_text(
        "---\nconfigs:\n"
        "- config_name: small\n  data_files: small/train.jsonl\n  default: true\n"
        "- config_name: large\n  data_files: large/train.jsonl\n---\n"
    )
    return folder


@effect("DatasetConfig.dataset_split_name")
def _(case):
    hub = {"data_files": str(hub_folder(case)), "type": "hf"}
    assert case.ids(dataset=hub)[0] == ord_of(words("small", 1)[0])
    large = {**hub, "dataset_split_name": "large"}
    assert case.ids(dataset=large)[0] == ord_of(words("large", 1)[0])


@effect("DatasetConfig.num_rows")
def _(case):
    assert len(case.ids(dataset={"num_rows": 7})) == 7


@effect("DatasetConfig.tokenizer", "PipelineConfig.default_tokenizer")
def _(case):
    assert case.ids()[0][-1] == 0
    assert case.ids(default_tokenizer="bytes")[0][-1] == 256
    own = Counting("own")
    case.ids(dataset={"tokenizer": own.tokenizer}, default_tokenizer="bytes")
    assert len(own.texts) == 40


@effect("DatasetConfig.tokenizer_kwargs")
def _(case):
    assert max(map(len, case.ids(dataset={"tokenizer_kwargs": {"max_length": 6}}))) == 6


@effect("DatasetConfig.cache_path")
def _(case):
    case.ids(dataset={"cache_path": case.folder / "own"})
    assert len(ed.open_dataset(case.folder / "own")) == 40


@effect("DatasetConfig.cache_enabled")
def _(case):
    for _run in range(2):
        case.ids(dataset={"cache_enabled": False})
    assert len(case.counting.texts) == 80
    for _run in range(2):
        case.ids()
    assert len(case.counting.texts) == 120


@effect("DatasetConfig.save_path")
def _(case):
    case.tokens(dataset={"save_path": str(case.folder / "there")})
    assert len(pq.read_table(case.folder / "there")) == 40


@effect("DatasetConfig.save_format")
def _(case):
    case.tokens(dataset={"save_path": str(case.folder / "there"), "save_format": "jsonl"})
    lines = "".join(p.read_text() for p in (case.folder / "there").glob("*.jsonl")).splitlines()
    assert [json.loads(line)["input_ids"] for line in lines] == case.ids()


@effect("DatasetConfig.content_field")
def _(case):
    assert case.ids(dataset={"content_field": "body"})[5] == ord_of("body 5")


@effect("DatasetConfig.additional_fields", "TokenizeStageConfig.remove_columns")
def _(case):
    kept = {"additional_fields": ["id", "body"]}
    assert case.tokens(dataset=kept).column("id").to_pylist() == list(range(40))
    fewer = case.tokens(dataset=kept, tokenize={"remove_columns": ["id"]})
    assert fewer.to_table().column_names == ["input_ids", "body"]
    assert case.tokens().to_table().column_names == ["input_ids"]


def shout(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "text": row["text"].upper()}


@effect("DatasetConfig.format_callback")
def _(case):
    assert case.ids(dataset={"format_callback": shout})[1] == ord_of(words("a", 2)[1].upper())


@effect("DatasetConfig.format_version")
def _(case):
    with (case.folder / "a.jsonl").open() as file:

        def remembers(row: dict[str, Any]) -> dict[str, Any]:
            return {**row, "text": row["text"] if file.readable() else ""}

        given = {"format_callback": remembers}
        with pytest.raises(ed.UsageError, match="a file"):
            case.ids(dataset=given)
        for version in ("1", "1", "2"):
            case.ids(dataset={**given, "format_version": version})
    assert len(case.counting.texts) == 80


@effect("DatasetConfig.format_fields")
def _(case):
    renamed = {"format_fields": {"body": "words"}, "content_field": "words"}
    assert case.ids(dataset=renamed)[2] == ord_of("body 2")


@effect("DatasetConfig.shard_column")
def _(case):
    groups = write_rows(case.folder / "g.jsonl", words("g", 30), group=[i % 3 for i in range(30)])
    given = {"data_files": groups, "additional_fields": ["group"], "num_shards": 2}

    def groups_of(**fields):
        folder = case.saved(dataset={**given, **fields})
        return [
            set(pq.read_table(p)["group"].to_pylist()) for p in sorted(folder.glob("*.parquet"))
        ]

    first, second = groups_of(shard_column="group")
    assert not first & second
    first, second = groups_of()
    assert first & second


@effect("DatasetConfig.num_shards", "SaveStageConfig.num_shards")
def _(case):
    assert len(list(case.saved().glob("*.parquet"))) == 1
    assert len(list(case.saved(save={"num_shards": 3}).glob("*.parquet"))) == 3
    folder = case.saved(dataset={"num_shards": 2}, save={"num_shards": 3})
    assert len(list(folder.glob("*.parquet"))) == 2


# --- SourceStageConfig


@effect("SourceStageConfig.streaming")
def _(case):
    from easydata.pipeline.inputs import open_inputs

    dataset = ed.DatasetConfig(str(hub_folder(case)), type="hf", name="h")
    streamed = open_inputs(dataset, ed.SourceStageConfig())
    assert isinstance(streamed, datasets.IterableDataset)
    loaded = open_inputs(dataset, ed.SourceStageConfig(streaming=False))
    assert isinstance(loaded, datasets.Dataset)
    assert [row["text"] for row in streamed] == [row["text"] for row in loaded]


@effect(
    "SourceStageConfig.cloud_max_retries",
    "SourceStageConfig.cloud_retry_delay",
    "SourceStageConfig.storage_options",
)
def _(case):
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem
    from fsspec.registry import _registry

    class Flaky(MemoryFileSystem):
        cachable = False
        left = 2

        def __init__(self, key: str = "", **kwargs: Any) -> None:
            super().__init__(**kwargs)
            if key != "sesame":
                raise PermissionError("wrong key")

        def open(self, path, mode="rb", **kwargs):
            if "r" in mode and Flaky.left:
                Flaky.left -= 1
                raise ConnectionError("reset")
            return super().open(path, mode, **kwargs)

    with fsspec.filesystem("memory").open("/flaky.txt", "wb") as file:
        file.write(b"hi")
    waited: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_registry, "memory", Flaky)
        patch.setattr("time.sleep", waited.append)
        given = {"dataset": {"data_files": "memory://flaky.txt"}}
        source = {"cloud_retry_delay": 0.5, "storage_options": {"key": "sesame"}}
        with pytest.raises(ed.SourceError, match="reset"):
            case.ids(**given, source={**source, "cloud_max_retries": 1})
        Flaky.left = 2
        waited.clear()
        assert case.ids(**given, source={**source, "cloud_max_retries": 2}) == [ord_of("hi")]
        assert waited == [0.5, 1.0]
        with pytest.raises(ed.SourceError):
            case.ids(**given)


@pytest.mark.parametrize("field", EFFECTS)
def test_effect(case, field):
    EFFECTS[field](case)
