"""pretokenize: rows that a function has made into columns, saved once."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from easydata._units import parse_bytes
from easydata.build.reading import SourceStream
from easydata.build.sources_changed import source_differences
from easydata.errors import UsageError
from easydata.fingerprint import (
    FunctionIdentity,
    HashMode,
    differences,
    fingerprint_json,
    identify_function,
)
from easydata.metadata import CacheMetadata
from easydata.pipeline.checks import nearest
from easydata.pipeline.pretokenize_rows import TransformedRows
from easydata.pipeline.save_formats import DEFAULT_CODECS
from easydata.pipeline.save_manifest import Manifest
from easydata.pipeline.save_rows import SavedRows
from easydata.pipeline.save_target import LocalTarget, Target, make_target
from easydata.pipeline.save_writing import Layout, log_saved, write_files
from easydata.sources import RowTransform, Source, find_sources

if TYPE_CHECKING:
    import pyarrow as pa

    from easydata.sources import TextRows

__all__ = ["pretokenize"]

_log = logging.getLogger("easydata")
_BLOCK_BYTES = 4 << 20
_KEY = "pretokenize"

Transform = Callable[[dict[str, Any]], Mapping[str, Any] | None]


def pretokenize(
    source: Any,
    transform: Transform,
    output_path: str | os.PathLike[str],
    *,
    transform_version: str | None = None,
    output_format: Literal["arrow", "parquet", "jsonl"] = "arrow",
    schema: Mapping[str, pa.DataType | str] | pa.Schema | None = None,
    type: str | None = None,
    text_rows: TextRows = "file",
    storage_options: Mapping[str, Any] | None = None,
    compression: str | None = None,
    num_shards: int | None = None,
    max_shard_size: int | str = "500MB",
    on_error: Literal["raise", "skip"] = "raise",
    hash_fn: HashMode = "combined",
    overwrite: bool = False,
) -> Path | str:
    """Save what a function makes of each row, such as token ids and labels; in order, and once.

    What is there and was made of the same sources, by the same function and with the same options,
    is a hit that says so. If one of these has changed, it is made anew, and the log says why.

    Args:
        source: a path, folder, pattern or fsspec URL, or a list of them; a `datasets.Dataset` or
            `IterableDataset`; an Arrow table; an iterable of dicts. All but a `Dataset` and files
            have no identity: they are read every time.
        transform: a function from a row (a dict of its own) to a dict of columns, or to None,
            which leaves the row out. Lists of whole numbers may be lists or NumPy arrays. It must
            be pure.
        transform_version: names what `transform` does, in place of a look at its code.
        output_path: the folder or URL to save to.
        output_format: "arrow" (what `datasets.load_from_disk` and, if there are `input_ids`,
            `easydata.open_dataset` open), "parquet" or "jsonl".
        schema: Arrow types of columns; the others follow from a sample of the rows. Lists of
            whole numbers become int32 where the sample fits.
        type: read every file as this; see `build`.
        text_rows: what is a row of a text file; there the text is the field "text".
        storage_options: for fsspec file systems.
        compression: of the files; None: none for arrow and jsonl, zstd for parquet.
        num_shards: files to write; None: by `max_shard_size`.
        max_shard_size: bytes in a file at most.
        on_error: "skip" leaves out rows that are broken, fail in `transform` or do not fit the
            types, counts and logs them.
        hash_fn: how a changed file is found; see `build`.
        overwrite: replace a result of something else, too.

    Returns:
        Where it was saved: a path, or a URL as text.

    Raises:
        BadRowError: a row is broken, fails or does not fit; the message names file and row.
        OutputExistsError: something else is there.
        EasyDataError: another one of its subclasses; what was there before stays.
    """
    for name, value, choices in (
        ("output_format", output_format, DEFAULT_CODECS),
        ("on_error", on_error, ("raise", "skip")),
        ("hash_fn", hash_fn, ("combined", "content", "path")),
    ):
        if value not in choices:
            raise UsageError(f"{name} is {value!r}; {nearest(value, choices)}")
    if num_shards is not None and (not isinstance(num_shards, int) or num_shards < 1):
        raise UsageError(f"num_shards is {num_shards!r}; it must be a whole number from 1 up.")
    identity = identify_function(transform, version=transform_version)
    sources = find_sources(source, type=type, storage_options=storage_options, text_rows=text_rows)
    target = make_target(os.fspath(output_path), storage_options)
    _refuse_own_output(target, source, sources)
    layout = Layout(
        output_format,
        compression,
        num_shards,
        parse_bytes(max_shard_size, name="max_shard_size"),
    )
    options = {
        **layout.to_json(),
        "type": type,
        "text_rows": text_rows,
        "on_error": on_error,
        "schema": _named_types(schema),
    }
    found = target.manifest()
    before = None if found is None else found.metadata.extra.get(_KEY)
    if found is not None and before is not None:
        reasons = _reasons(before, sources, identity, options, hash_fn)
        if not reasons:
            target.tidy()
            _log.info("%s is up to date; nothing to do.", target.path)
            return _place(target)
        _log.info("%s is made anew: %s.", target.path, "; ".join(reasons))
    stream = SourceStream(sources, None, _BLOCK_BYTES, None)
    made = TransformedRows(
        sources, stream, RowTransform(transform), schema, skips_bad=on_error == "skip"
    )
    metadata = CacheMetadata(
        transform_hash=identity.fingerprint, config_hash=fingerprint_json(options)
    )

    def final_metadata() -> CacheMetadata:
        entries = stream.entries()
        hashes = [entry["hash"] for entry in entries]
        return replace(
            metadata,
            source_hash=None if None in hashes else fingerprint_json(hashes),
            num_examples=made.num_rows,
            extra={_KEY: {"sources": entries, "transform": identity.to_json(), "options": options}},
        )

    rows = SavedRows(made.schema, made.batches, None, None, metadata, final_metadata=final_metadata)
    layout.check("source", rows)
    saved: list[Manifest] = []

    def write(folder: Path) -> Manifest:
        files, num_rows = write_files("source", rows, layout, folder)
        saved.append(Manifest(None, num_rows, files, final_metadata()))
        return saved[0]

    target.save(write, overwrite=overwrite or before is not None)
    log_saved("rows", target.path, saved[0])
    made.log_losses()
    return _place(target)


def _reasons(
    before: Mapping[str, Any],
    sources: Sequence[Source],
    identity: FunctionIdentity,
    options: Mapping[str, Any],
    hash_fn: HashMode,
) -> list[str]:
    """Why what is there must be made anew, in words."""
    found = [
        f"the transform changed: {line}"
        for line in differences(FunctionIdentity.from_json(before["transform"]), identity)
    ]
    old = before["options"]
    found += [
        f"{name} was {old.get(name)!r} and is {options.get(name)!r}"
        for name in {**old, **options}
        if old.get(name) != options.get(name)
    ]
    found += source_differences(before["sources"], sources, hash_fn)
    unknown = [entry["name"] for entry in before["sources"] if entry["hash"] is None]
    if unknown and not found:
        found = [f"nobody knows whether the {unknown[0]} are the same as before"]
    return found


def _named_types(schema: Any) -> dict[str, str] | None:
    if schema is None:
        return None
    if hasattr(schema, "names"):
        return {item.name: str(item.type) for item in schema}
    return {str(name): str(kind) for name, kind in schema.items()}


def _place(target: Target) -> Path | str:
    return Path(target.path) if isinstance(target, LocalTarget) else target.path


def _refuse_own_output(target: Target, given: Any, sources: Sequence[Source]) -> None:
    """What is saved must not become part of its own input when this is called again."""
    if not isinstance(target, LocalTarget):
        return
    folder = Path(target.path).resolve()
    items = given if isinstance(given, list | tuple) else [given]
    paths = [Path(item).resolve() for item in items if isinstance(item, str | os.PathLike)]
    inside = [str(path) for path in paths if folder.is_relative_to(path)]
    inside += [
        item.name
        for item in sources
        if item.is_file and Path(item.name).resolve().is_relative_to(folder)
    ]
    if inside:
        raise UsageError(
            f"output_path is {folder}, which lies in the input {inside[0]} or holds it; choose a "
            "folder apart from the input."
        )
