"""The options of a build: checked once, and the recipe that identifies what they make."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from easydata._units import parse_bytes
from easydata.build.sample_options import SampleOptions, check_samples
from easydata.errors import UsageError
from easydata.fingerprint import HashMode, fingerprint_json
from easydata.format.codecs import Codec, ShardFormat, resolve_format
from easydata.format.ledger import FORMAT_VERSION

__all__ = ["BuildOptions", "Padding", "Recipe", "check_options", "make_recipe", "option_values"]

_SPLIT_NAME = re.compile(r"\w+")
_MIN_PART_BYTES = 1024

Padding = Literal["longest", "max_length"]


@dataclass(frozen=True)
class BuildOptions:
    """The checked options of `build` that need neither the sources nor the tokenizer."""

    text_field: str
    keep_fields: tuple[str, ...]
    rename_fields: Mapping[str, str]
    type: str | None
    text_rows: str
    codec: Codec
    shard_format: ShardFormat
    workers: int | None
    shard_bytes: int
    part_bytes: int
    min_tokens: int
    max_length: int | None
    padding: Padding | None
    attention_mask: bool
    batch_size: int | None
    limit: int | None
    skip_bad: bool
    hash_fn: HashMode
    splits: Mapping[str, float] | None
    samples: SampleOptions | None

    @property
    def window(self) -> int:
        """Half the average size of a part: see `parts`."""
        return self.part_bytes // 2

    @property
    def part_codec(self) -> Codec:
        """How finished parts are encoded: as in the shards, where those hold IPC batches."""
        return self.codec if self.shard_format == "ipc" else Codec("none")

    @property
    def split_names(self) -> Sequence[str | None]:
        """The splits' names; one None without splits."""
        return list(self.splits) if self.splits else [None]


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the result, besides the content of the sources.

    Attributes:
        values: JSON values by name, for messages and for `fingerprint`.
    """

    values: Mapping[str, Any]

    # What decides where shards end, or which records are read, but not what a part becomes.
    _NOT_OF_PARTS = ("shard_size", "limit", "on_error", "format")

    @property
    def fingerprint(self) -> str:
        """Identity of the recipe."""
        return fingerprint_json(self.values)

    @property
    def part_fingerprint(self) -> str:
        """Identity of what a part's bytes depend on besides its records."""
        return fingerprint_json(
            {name: v for name, v in self.values.items() if name not in self._NOT_OF_PARTS}
        )


def check_options(
    *,
    text_field: str,
    keep_fields: Sequence[str],
    rename_fields: Mapping[str, str] | None,
    type: str | None,
    text_rows: str,
    compression: str,
    format: str | None,
    workers: int | None,
    shard_size: int | str,
    part_size: int | str,
    min_tokens: int,
    max_length: int | None,
    padding: str | None,
    attention_mask: bool,
    batch_size: int | None,
    limit: int | None,
    on_error: str,
    hash_fn: str,
    splits: Mapping[str, float] | None,
    seq_len: int | None,
    pack: str | None,
    shuffle: bool,
    seed: int,
    segment_ids: bool,
) -> BuildOptions:
    """Check the arguments of `build`.

    Raises:
        UsageError: the first argument that is wrong.
    """
    if isinstance(keep_fields, str):
        raise UsageError(f"keep_fields is the text {keep_fields!r}; give a list of names.")
    if len(set(keep_fields)) < len(keep_fields):
        raise UsageError(f"keep_fields names a field twice: {', '.join(keep_fields)}.")
    if on_error not in ("raise", "skip"):
        raise UsageError(f"on_error is {on_error!r}; choose 'raise' or 'skip'.")
    if hash_fn not in get_args(HashMode):
        raise UsageError(f"hash_fn is {hash_fn!r}; choose {', '.join(get_args(HashMode))}.")
    for name, value, least in (
        ("workers", workers, 1),
        ("min_tokens", min_tokens, 0),
        ("max_length", max_length, 1),
        ("batch_size", batch_size, 1),
        ("limit", limit, 1),
    ):
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"{name} is {value!r}; it must be a whole number from {least} up.")
    _check_padding(padding, max_length, batch_size, attention_mask=attention_mask)
    part_bytes = parse_bytes(part_size, name="part_size")
    if part_bytes < _MIN_PART_BYTES:
        raise UsageError(
            f"part_size is {part_size!r}; it must be at least {_MIN_PART_BYTES} bytes."
        )
    codec = Codec.parse(compression)
    return BuildOptions(
        text_field=text_field,
        keep_fields=tuple(keep_fields),
        rename_fields=_check_rename(rename_fields),
        type=type,
        text_rows=text_rows,
        codec=codec,
        shard_format=resolve_format(format, codec),
        workers=workers,
        shard_bytes=parse_bytes(shard_size, name="shard_size"),
        part_bytes=part_bytes,
        min_tokens=min_tokens,
        max_length=max_length,
        padding=padding,  # type: ignore[arg-type]  # it was checked above
        attention_mask=attention_mask,
        batch_size=batch_size,
        limit=limit,
        skip_bad=on_error == "skip",
        hash_fn=hash_fn,  # type: ignore[arg-type]  # likewise
        splits=_check_splits(splits),
        samples=check_samples(
            seq_len,
            pack,
            shuffle=shuffle,
            seed=seed,
            segment_ids=segment_ids,
            padding=padding,
            splits=splits,
        ),
    )


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # pragma: no cover - not on macOS and Windows
        return os.cpu_count() or 1


def make_recipe(
    options: BuildOptions,
    *,
    keep: Mapping[str, str],
    tokenizer: str,
    bos_id: int | None,
    eos_id: int | None,
    pad_id: int | None,
    dtype: str,
    transform: str | None,
    chat_template: str | None,
) -> Recipe:
    """The recipe of a build.

    Args:
        options: the checked options.
        keep: names and Arrow types of the kept fields.
        tokenizer: the tokenizer's fingerprint.
        bos_id: id put before each row, if any.
        eos_id: id put after each row, if any.
        pad_id: id that rows or samples are filled up with, if any.
        dtype: type of the token ids.
        transform: fingerprint of the function that rows go through, if any.
        chat_template: fingerprint of the template that conversations are rendered with, if any.
    """
    return Recipe(
        {
            "format_version": FORMAT_VERSION,
            **option_values(options),
            "keep_fields": [[name, kind] for name, kind in keep.items()],
            "tokenizer": tokenizer,
            "bos_id": bos_id,
            "eos_id": eos_id,
            "pad_id": pad_id,
            "dtype": dtype,
            "transform": transform,
            "chat_template": chat_template,
        }
    )


def option_values(options: BuildOptions) -> dict[str, Any]:
    """The part of a recipe that follows from the options alone: JSON values by name."""
    return {
        "text_field": options.text_field,
        "rename_fields": sorted([old, new] for old, new in options.rename_fields.items()),
        "type": options.type,
        "text_rows": options.text_rows,
        "min_tokens": options.min_tokens,
        "max_length": options.max_length,
        "padding": options.padding,
        "attention_mask": options.attention_mask,
        # How texts are batched shows where each batch is padded to its longest row.
        "batch_size": options.batch_size if options.padding == "longest" else None,
        "compression": str(options.codec),
        "format": options.shard_format,
        "shard_size": options.shard_bytes,
        "part_size": options.part_bytes,
        "limit": options.limit,
        "on_error": "skip" if options.skip_bad else "raise",
        "splits": [[n, s] for n, s in options.splits.items()] if options.splits else None,
        **(options.samples.values if options.samples else {}),
    }


def _check_padding(
    padding: str | None, max_length: int | None, batch_size: int | None, *, attention_mask: bool
) -> None:
    if padding not in (None, *get_args(Padding)):
        raise UsageError(f"padding is {padding!r}; choose None, 'longest' or 'max_length'.")
    if padding == "max_length" and max_length is None:
        raise UsageError("padding='max_length' needs a max_length, to which rows are padded.")
    if padding == "longest" and batch_size is None:
        raise UsageError(
            "padding='longest' needs a batch_size: rows are padded to the longest of so many."
        )
    if attention_mask and padding is None:
        raise UsageError(
            "attention_mask=True marks what is no padding, but nothing is padded. "
            "Pass padding=..., or leave it out."
        )


def _check_rename(rename: Mapping[str, str] | None) -> Mapping[str, str]:
    if rename is None:
        return {}
    if not isinstance(rename, Mapping) or not all(
        isinstance(name, str) for pair in rename.items() for name in pair
    ):
        raise UsageError(f"rename_fields is {rename!r}; give names by name, as {{'old': 'new'}}.")
    twice = [new for new in rename.values() if list(rename.values()).count(new) > 1]
    if twice:
        raise UsageError(f"rename_fields gives two fields the name {twice[0]!r}.")
    return dict(rename)


def _check_splits(splits: Mapping[str, float] | None) -> Mapping[str, float] | None:
    if splits is None:
        return None
    if not isinstance(splits, Mapping):
        raise UsageError(f"splits is {splits!r}; give shares by name, as {{'train': 0.99, …}}.")
    if not splits or len(splits) > 254:
        raise UsageError(f"splits has {len(splits)} names; give 1 to 254.")
    for name, share in splits.items():
        if not isinstance(name, str) or not _SPLIT_NAME.fullmatch(name):
            raise UsageError(f"splits has the name {name!r}; use letters, digits and _.")
        if isinstance(share, bool) or not isinstance(share, int | float) or not share > 0:
            raise UsageError(f"splits gives {name!r} the share {share!r}; it must be above 0.")
    if abs(sum(splits.values()) - 1) > 1e-6:
        raise UsageError(
            f"splits adds up to {sum(splits.values()):g}; the shares must add up to 1."
        )
    return dict(splits)
