"""The public function `build`: its arguments, their defaults, and what they mean.

What it does is in `run`, which is imported when it is first called: whoever only reads data
should not wait for what building needs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from easydata.dataset import TokenDataset, open_dataset, open_splits
from easydata.errors import UsageError
from easydata.loader._checks import check_flag, has_all

if TYPE_CHECKING:
    from typing import Unpack

    import pyarrow as pa

    from easydata.build.estimate import BuildEstimate
    from easydata.build.options import Padding
    from easydata.build.progress import ProgressKind
    from easydata.engine import Engine
    from easydata.fingerprint import HashMode
    from easydata.format.codecs import ShardFormat
    from easydata.loader.packing_plan import Strategy
    from easydata.sources import TextRows

__all__ = ["BuildKeywords", "build"]

_CALL_ONLY = ("sources", "progress", "overwrite", "dry_run", "engine")
_FLAGS = (
    *("add_bos", "add_eos", "parse_special", "trust_remote_code", "attention_mask", "shuffle"),
    *("segment_ids", "overwrite", "dry_run"),
)


class BuildKeywords(TypedDict, total=False):
    """The keyword arguments of `build` that do not change the type of what it returns."""

    text_field: str
    keep_fields: Sequence[str]
    rename_fields: Mapping[str, str] | None
    transform: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None
    transform_version: str | None
    schema: Mapping[str, pa.DataType | str] | pa.Schema | None
    type: str | None
    text_rows: TextRows
    storage_options: Mapping[str, Any] | None
    retries: int
    retry_delay: float
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
    trust_remote_code: bool
    min_tokens: int
    max_length: int | None
    padding: Padding | None
    pad_token: str | int | None
    attention_mask: bool
    batch_size: int | None
    seq_len: int | None
    pack: Strategy | None
    shuffle: bool
    seed: int
    segment_ids: bool
    limit: int | None
    on_error: Literal["raise", "skip"]
    hash_fn: HashMode
    progress: ProgressKind
    overwrite: bool
    engine: Engine | None


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
    rename_fields: Mapping[str, str] | None = None,
    transform: Callable[[dict[str, Any]], Mapping[str, Any] | None] | None = None,
    transform_version: str | None = None,
    schema: Mapping[str, pa.DataType | str] | pa.Schema | None = None,
    type: str | None = None,
    text_rows: TextRows = "file",
    storage_options: Mapping[str, Any] | None = None,
    retries: int = 3,
    retry_delay: float = 1.0,
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
    trust_remote_code: bool = False,
    min_tokens: int = 0,
    max_length: int | None = None,
    padding: Padding | None = None,
    pad_token: str | int | None = None,
    attention_mask: bool = False,
    batch_size: int | None = None,
    seq_len: int | None = None,
    pack: Strategy | None = None,
    shuffle: bool = False,
    seed: int = 0,
    segment_ids: bool = False,
    limit: int | None = None,
    on_error: Literal["raise", "skip"] = "raise",
    hash_fn: HashMode = "combined",
    splits: Mapping[str, float] | None = None,
    progress: ProgressKind = "auto",
    overwrite: bool = False,
    dry_run: bool = False,
    engine: Engine | None = None,
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
        text_field: the field of a row that holds the text; or a list of messages, which the
            tokenizer's chat template renders (then its special tokens count, and no BOS or EOS
            is added to what the template says).
        keep_fields: other fields to keep as columns.
        rename_fields: new names of fields by their old ones; after `transform`.
        transform: a function from a row (a dict of its own, with all fields) to a row, or to
            None, which leaves it out. It must be pure: the result is kept, and is made again
            when the function changes (its code, or anything of yours that it refers to). Worker
            processes import its module anew, and refuse if what they find is another function.
        transform_version: names what `transform` does, in place of a look at its code; needed
            where it refers to what has no identity. Change it whenever the results change. With
            it, workers compare nothing: the module alone must say what the function does.
        schema: Arrow types of kept fields; the others are inferred from a sample of all files.
        type: read every file as "jsonl", "json", "text", "csv", "tsv", "parquet" or "arrow",
            whatever its extension.
        text_rows: what is a row of a text file: the whole "file", a "line" or a "paragraph".
        storage_options: for fsspec file systems.
        retries: how often a failed read of a remote file is tried again.
        retry_delay: seconds before the first of these; each later one waits twice as long.
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
        trust_remote_code: let `transformers` run the code that comes with a tokenizer.
        min_tokens: leave out rows with fewer tokens, BOS and EOS not counted.
        max_length: cut rows to this many tokens, BOS and EOS included.
        padding: fill rows up: "longest" to the longest of each `batch_size` rows that follow each
            other, "max_length" to `max_length`.
        pad_token: with which token or id rows or samples are filled up; by default the one the
            tokenizer declares.
        attention_mask: keep a column `attention_mask` of 1 for tokens and 0 for padding.
        batch_size: texts in one call of the tokenizer, at most; by default as many as it likes.
        seq_len: make samples of so many tokens out of the documents, and write those as the
            rows. The documents are kept in the folder `documents` of `out`, a dataset like any
            other: it has the kept fields and the lineage, and other samples can be made of it
            without tokenizing.
        pack: how documents become samples, see `easydata.loader.packing_plan.plan_packing`; by
            default "concat". What fills no sample at its end is left out and counted, unless
            there is a `pad_token`; the other ways pad, and leave out nothing.
        shuffle: write the samples in a random order.
        seed: chooses that order, which is that of a loader's first epoch with the same seed.
        segment_ids: keep the columns `segment_ids` and `positions` of samples.
        limit: read this many records at most.
        on_error: "skip" leaves out broken rows, counts and logs them.
        hash_fn: how a file that was read before is told from a changed one. "content" reads it.
            "path" compares its place, size and time of change. "combined" reads it only if these
            differ. The last two miss an edit that keeps them all; where a store of remote files
            tells no time, they read.
        splits: shares by name, such as {"train": 0.99, "validation": 0.01}; a row's split
            follows from a hash of its text.
        progress: "rich", "tqdm", "json" (lines on standard error), "none"; "auto" is "rich" on a
            terminal.
        overwrite: replace a dataset that was made from other inputs or with other options.
        dry_run: write nothing; estimate rows, tokens, bytes and seconds from a sample.
        engine: where to tokenize, such as a `RayEngine`; by default worker processes.

    Returns:
        The opened dataset; with `splits` a dict of them; with `dry_run` a `BuildEstimate`.

    Raises:
        EasyDataError: one of its subclasses; nothing that was there before is lost.
    """
    given = locals()
    for name in _FLAGS:
        check_flag(given[name], name)
    if engine is not None and not has_all(engine, "map"):
        raise UsageError(f"engine is {engine!r}; give an engine such as easydata.RayEngine(...).")
    options = {name: value for name, value in given.items() if name not in _CALL_ONLY}

    from easydata.build.run import Replace, estimate_build, run

    if dry_run:
        return estimate_build(sources, options)
    replace: Replace = "always" if overwrite else "never"
    run(sources, options, progress=progress, replace=replace, engine=engine)
    return open_dataset(out) if splits is None else open_splits(out)
