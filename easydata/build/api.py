"""The public function `build`: its arguments, their defaults, and what they mean.

What it does is in `run`, which is imported when it is first called: whoever only reads data
should not wait for what building needs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from easydata.dataset import TokenDataset, open_dataset, open_splits

if TYPE_CHECKING:
    from typing import Unpack

    import pyarrow as pa

    from easydata.build.estimate import BuildEstimate
    from easydata.build.progress import ProgressKind
    from easydata.format.codecs import ShardFormat
    from easydata.sources import TextRows

__all__ = ["BuildKeywords", "build"]

_CALL_ONLY = ("sources", "progress", "overwrite", "dry_run")


class BuildKeywords(TypedDict, total=False):
    """The keyword arguments of `build` that do not change the type of what it returns."""

    text_field: str
    keep_fields: Sequence[str]
    schema: Mapping[str, pa.DataType | str] | pa.Schema | None
    type: str | None
    text_rows: TextRows
    storage_options: Mapping[str, Any] | None
    compression: str
    format: ShardFormat | None
    workers: int | None
    dtype: str
    shard_size: int | str
    part_size: int | str
    add_bos: bool
    add_eos: bool
    bos_token: str | int | None
    eos_token: str | int | None
    parse_special: bool
    min_tokens: int
    max_length: int | None
    limit: int | None
    on_error: Literal["raise", "skip"]
    progress: ProgressKind
    overwrite: bool


@overload
def build(
    sources: Any,
    *,
    tokenizer: Any,
    out: str | os.PathLike[str],
    splits: None = None,
    dry_run: Literal[False] = False,
    **options: Unpack[BuildKeywords],
) -> TokenDataset: ...
@overload
def build(
    sources: Any,
    *,
    tokenizer: Any,
    out: str | os.PathLike[str],
    splits: Mapping[str, float],
    dry_run: Literal[False] = False,
    **options: Unpack[BuildKeywords],
) -> dict[str, TokenDataset]: ...
@overload
def build(
    sources: Any,
    *,
    tokenizer: Any,
    out: str | os.PathLike[str],
    splits: Mapping[str, float] | None = None,
    dry_run: Literal[True],
    **options: Unpack[BuildKeywords],
) -> BuildEstimate: ...
def build(
    sources: Any,
    *,
    tokenizer: Any,
    out: str | os.PathLike[str],
    text_field: str = "text",
    keep_fields: Sequence[str] = (),
    schema: Mapping[str, pa.DataType | str] | pa.Schema | None = None,
    type: str | None = None,
    text_rows: TextRows = "file",
    storage_options: Mapping[str, Any] | None = None,
    compression: str = "none",
    format: ShardFormat | None = None,
    workers: int | None = None,
    dtype: str = "auto",
    shard_size: int | str = "256MB",
    part_size: int | str = "32MB",
    add_bos: bool = False,
    add_eos: bool = True,
    bos_token: str | int | None = None,
    eos_token: str | int | None = None,
    parse_special: bool = False,
    min_tokens: int = 0,
    max_length: int | None = None,
    limit: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    splits: Mapping[str, float] | None = None,
    progress: ProgressKind = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
) -> TokenDataset | dict[str, TokenDataset] | BuildEstimate:
    """Tokenize `sources` into a dataset directory, once.

    Building what is already there, from the same inputs with the same options, does nothing.
    A build that was killed continues from its finished parts when it is run again. Either way
    the files are the same, byte for byte, with any number of workers. Until it is complete
    nothing of it can be opened, and a dataset that was there before stays.

    Args:
        sources: a path, folder, glob or fsspec URL, or a list of them; a `datasets.Dataset` or
            `IterableDataset`; an Arrow table; an iterable of dicts.
        tokenizer: a `tokenizer.json` file, a folder or HuggingFace name, a tokenizer object of
            `tokenizers` or `transformers`, a `CallableTokenizer`, or "bytes".
        out: the dataset directory to make.
        text_field: the field of a row that holds the text.
        keep_fields: other fields to keep as columns.
        schema: Arrow types of kept fields; the others are inferred from a sample of all files.
        type: read every file as "jsonl", "json", "text", "csv", "tsv", "parquet" or "arrow",
            whatever its extension.
        text_rows: what is a row of a text file: the whole "file", a "line" or a "paragraph".
        storage_options: for fsspec file systems.
        compression: "none" (memory-mapped, zero-copy), "lz4", "zstd", "zstd:LEVEL" or "gzip"
            (Parquet).
        format: "ipc" (what `datasets` opens) or "parquet"; by default IPC, Parquet with gzip.
        workers: how many pieces to tokenize at a time, in worker processes: threads of one
            process where the tokenizer releases Python's lock, else a process for each. By
            default one for each core, and no process for small inputs.
        dtype: type of the token ids: "auto" is uint16 if the vocabulary fits, else uint32.
        shard_size: bytes in a shard, at most, unless one part alone has more.
        part_size: bytes of input in a part, on average: the unit of resuming and of record
            batches.
        add_bos: put the BOS token before each row.
        add_eos: put the EOS token after each row.
        bos_token: which token or id; by default the one the tokenizer declares.
        eos_token: likewise.
        parse_special: let text that spells a special token become that token.
        min_tokens: leave out rows with fewer tokens, BOS and EOS not counted.
        max_length: cut rows to this many tokens, BOS and EOS included.
        limit: read this many records at most.
        on_error: "skip" leaves out broken rows, counts and logs them.
        splits: shares by name, such as {"train": 0.99, "validation": 0.01}; a row's split
            follows from a hash of its text.
        progress: "rich", "json" (lines on standard error), "none"; "auto" is "rich" on a
            terminal.
        overwrite: replace a dataset that was made from other inputs or with other options.
        dry_run: write nothing; estimate rows, tokens, bytes and seconds from a sample.

    Returns:
        The opened dataset; with `splits` a dict of them; with `dry_run` a `BuildEstimate`.

    Raises:
        EasyDataError: one of its subclasses; nothing that was there before is lost.
    """
    options = {name: value for name, value in locals().items() if name not in _CALL_ONLY}

    from easydata.build.run import estimate_build, run

    if dry_run:
        return estimate_build(sources, options)
    run(sources, options, progress=progress, overwrite=overwrite)
    return open_dataset(out) if splits is None else open_splits(out)
