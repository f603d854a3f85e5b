"""The configurations of tokenizers and datasets."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Number
from typing import Annotated, Any, Literal

from easydata.errors import UsageError
from easydata.pipeline.base import Config, config_of
from easydata.pipeline.checks import (
    AnyPath,
    ConfigError,
    Count,
    Folder,
    Names,
    Renaming,
    Text,
    check_path,
    each_item,
    nearest,
)
from easydata.pipeline.frozen import FrozenDict

__all__ = ["AnyTokenizer", "DatasetConfig", "DatasetType", "SavedFormat", "TokenizerConfig"]

DatasetType = Literal[
    "json", "jsonl", "parquet", "csv", "tsv", "arrow", "txt", "text", "hf", "huggingface"
]
SavedFormat = Literal["parquet", "arrow", "jsonl"]


def _is_object(value: object) -> bool:
    return not isinstance(value, Number | bytes | list | tuple | dict | type | None)


def _tokenizer_name(name: str, value: object) -> Any:
    if isinstance(value, str | os.PathLike):
        return check_path(name, value)
    if not _is_object(value) or isinstance(value, Config):
        raise UsageError(f"{name} is {value!r}; it must be a name, a path or a tokenizer object.")
    return value


def _any_tokenizer(name: str, value: object) -> Any:
    if isinstance(value, TokenizerConfig | dict | FrozenDict):
        return config_of(TokenizerConfig)(name, value)
    return _tokenizer_name(name, value)


def _data_files(name: str, value: object) -> Any:
    if isinstance(value, str | os.PathLike):
        return check_path(name, value)
    if isinstance(value, list | tuple) and value:
        return each_item(_data_file, name, value)
    # A DatasetDict is a dict, too.
    if type(value) is dict or not (_is_object(value) or isinstance(value, dict)):
        raise UsageError(
            f"{name} is {value!r}; it must be a path, folder, pattern or URL, a list of them, or "
            "a dataset object."
        )
    return value


def _data_file(name: str, value: object) -> Any:
    return value if type(value) is dict else _data_files(name, value)  # a dict is a row


def _tokenizer_kwargs(name: str, value: object) -> FrozenDict:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} is {value!r}; it must be a mapping of TokenizerConfig's fields.")
    known = [field.name for field in dataclasses.fields(TokenizerConfig)][1:]
    lines = [f"{name}.{key}: unknown; {nearest(key, known)}" for key in value if key not in known]
    kept = {key: item for key, item in value.items() if key in known}
    try:
        # A length, because whether there is one is not known before the tokenizer is.
        made = TokenizerConfig(**{"name_or_path": "any", "max_length": 1, **kept})
    except ConfigError as error:
        lines += [f"{name}.{line}" for line in error.lines]
    if lines:
        raise ConfigError("", lines)
    return FrozenDict({key: getattr(made, key) for key in kept})


def _callback(name: str, value: object) -> Any:
    if isinstance(value, str):
        raise UsageError(
            f"{name} is the text {value!r}; functions are never imported by name. Set it in "
            "Python, with dataclasses.replace."
        )
    if not callable(value):
        raise UsageError(f"{name} is {value!r}; it must be a function of a row.")
    return value


@dataclass(frozen=True)
class TokenizerConfig(Config):
    """A tokenizer and how it is called.

    Attributes:
        name_or_path: a file, a folder, a HuggingFace name, "bytes", or a tokenizer object.
        max_length: tokens to which rows are cut or padded; None: neither. (2048)
        truncation: cut rows to `max_length`. (True)
        padding: fill rows up to the "longest" of their batch or to "max_length"; False for
            neither. (False)
        add_special_tokens: end each row with the EOS token. (True)
        return_attention_mask: make a column `attention_mask` where rows are padded. (True)
        trust_remote_code: let a HuggingFace name run the code that it brings. (False)
    """

    name_or_path: Annotated[Any, _tokenizer_name]
    max_length: Count | None = 2048
    truncation: bool = True
    padding: Literal[False, "longest", "max_length"] = False
    add_special_tokens: bool = True
    return_attention_mask: bool = True
    trust_remote_code: bool = False

    @property
    def cut_length(self) -> int | None:
        """Tokens to which rows are cut; None if they are not."""
        return self.max_length if self.truncation else None

    def _contradictions(self, right: Callable[..., bool]) -> Iterable[str]:
        if not right("padding") or self.padding != "max_length":
            return
        if right("max_length") and self.max_length is None:
            yield "padding is 'max_length', but max_length is None; set max_length."
        if right("truncation") and not self.truncation:
            yield "padding is 'max_length', but truncation is False; longer rows would not fit."


AnyTokenizer = Annotated[Any, _any_tokenizer]


@dataclass(frozen=True)
class DatasetConfig(Config):
    """One dataset of a pipeline.

    Attributes:
        data_files: a path, folder, pattern or URL, a list of them, or a dataset object.
        name: by which the mixture and the result call it; None: "dataset_<position>". (None)
        type: of the files; None: by extension. "hf" or "huggingface": `data_files` is a name on
            the HuggingFace hub. (None)
        split: the split to read, where there are several. ("train")
        dataset_split_name: the configuration (subset) of a dataset on the hub. (None)
        num_rows: rows to read at most; None for all. (None)
        tokenizer: a name, path, object, TokenizerConfig or a mapping of its fields; None: the
            default of the tokenize stage, or else of the pipeline. (None)
        tokenizer_kwargs: values of TokenizerConfig's fields for this dataset only. (None)
        cache_path: a local folder for its results; None: one inside the pipeline's. (None)
        cache_enabled: keep its results for the next run. (True)
        save_path: where its rows are written; None: as the save stage says. (None)
        save_format: "parquet", "arrow" or "jsonl"; None: as the save stage says. (None)
        content_field: the field with the text, or with a list of messages, which the tokenizer's
            chat template renders. ("text")
        additional_fields: other fields to keep. (None)
        format_callback: a function from a row to a row, called before everything else; it can
            only be set in Python. (None)
        format_version: names what `format_callback` does, in place of a look at its code; to be
            changed whenever its results change. (None)
        format_fields: new names of fields, by their old names. (None)
        shard_column: rows with the same value in this field go to the same of `num_shards`
            files. (None)
        num_shards: files that are written; None: as the save stage says. (None)
    """

    data_files: Annotated[Any, _data_files]
    name: Text | None = None
    type: DatasetType | None = None
    split: Text = "train"
    dataset_split_name: Text | None = None
    num_rows: Count | None = None
    tokenizer: AnyTokenizer | None = None
    tokenizer_kwargs: Annotated[Mapping[str, Any], _tokenizer_kwargs] | None = None
    cache_path: Folder | None = None
    cache_enabled: bool = True
    save_path: AnyPath | None = None
    save_format: SavedFormat | None = None
    content_field: Text = "text"
    additional_fields: Names | None = None
    format_callback: Annotated[Callable[[dict[str, Any]], Any], _callback] | None = None
    format_version: Text | None = None
    format_fields: Renaming | None = None
    shard_column: Text | None = None
    num_shards: Count | None = None

    def _contradictions(self, right: Callable[..., bool]) -> Iterable[str]:
        is_known = right("format_callback", "format_version")
        if is_known and self.format_version is not None and self.format_callback is None:
            yield (
                f"format_version is {self.format_version!r}, but there is no format_callback; set "
                "it, or leave the version out."
            )
        if right("shard_column", "num_shards") and self.shard_column and self.num_shards is None:
            yield (
                f"num_shards is None, but shard_column is {self.shard_column!r}; say how many "
                "files its values go to."
            )
