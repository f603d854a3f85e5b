"""From what a user passes as input to a list of sources."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import get_args

from easydata.errors import SourceError, SourceNotFoundError, UsageError
from easydata.sources.compression import CODEC_OF_SUFFIX
from easydata.sources.file_source import FileSource
from easydata.sources.objects import is_row, object_source
from easydata.sources.raw import Place
from easydata.sources.remote import remote_places
from easydata.sources.retry import Retry, check_retry
from easydata.sources.source import Source
from easydata.sources.text import TextRows

__all__ = ["KNOWN_TYPES", "find_sources", "type_and_codec"]

_TYPE_OF_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".txt": "text",
    ".text": "text",
    ".md": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
KNOWN_TYPES = ("jsonl", "json", "text", "csv", "tsv", "parquet", "arrow")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(://|::)")


@dataclass(frozen=True)
class _Found:
    """A file, and whether it was named one by one or found in a folder."""

    place: Place
    in_folder: bool


@dataclass(frozen=True)
class _FileOptions:
    type: str | None
    text_rows: TextRows
    storage_options: Mapping[str, object]
    retry: Retry


def find_sources(
    inputs: object,
    *,
    type: str | None = None,
    storage_options: Mapping[str, object] | None = None,
    text_rows: TextRows = "file",
    retries: int = 3,
    retry_delay: float = 1.0,
) -> list[Source]:
    """The sources that `inputs` names, in a fixed order.

    Args:
        inputs: one of these, or a list of them: a file; a folder (every file below it of a known
            extension; hidden ones and links to folders are left out); a pattern with `*`, `?`,
            `[…]` or `**`; an fsspec URL of any of these; a `datasets.Dataset` or
            `IterableDataset`; an Arrow table, or anything that exports an Arrow stream (a pandas
            or Polars frame). Or an iterable of dicts, one for each row.
        type: read every file as this ("jsonl", "json", "text", "csv", "tsv", "parquet",
            "arrow"), whatever its extension. Compression is still told from the extension.
        storage_options: for the fsspec file systems: keys, endpoints.
        text_rows: what becomes a row of a text file: "file", "line", or "paragraph" (lines
            between blank lines).
        retries: how often a server that does not answer, or breaks off, is asked again. Each
            read that succeeds starts the count anew.
        retry_delay: seconds before the first retry; doubles with each, up to a minute.

    Raises:
        SourceNotFoundError: a path, pattern or folder names no input.
        SourceError: a file was named twice, or is of an unknown type.
        UsageError: an argument is wrong.

    >>> [source.name for source in find_sources([{"text": "one"}, {"text": "two"}])]
    ['rows of list']
    """
    if type is not None and type not in KNOWN_TYPES:
        raise UsageError(f"type is {type!r}; give one of {', '.join(KNOWN_TYPES)} (--type).")
    if text_rows not in get_args(TextRows):
        raise UsageError(f"text_rows is {text_rows!r}; give 'file', 'line' or 'paragraph'.")
    options = _FileOptions(
        type, text_rows, storage_options or {}, check_retry(retries, retry_delay)
    )
    found: list[Source] = []
    for item in _items(inputs):
        if isinstance(item, str | os.PathLike):
            found.extend(_file_source(file, options) for file in _files(os.fspath(item), options))
            continue
        source = object_source(item)
        if source is None:
            kind = item.__class__.__name__
            raise UsageError(
                f"An input is a {kind}. Pass paths, a Dataset, an Arrow table or dicts."
            )
        found.append(source)
    _refuse_repetition(found)
    return found


def _items(inputs: object) -> Sequence[object]:
    if not isinstance(inputs, list | tuple):
        return [inputs]
    if not inputs:
        raise SourceNotFoundError("The list of inputs is empty. Pass at least one file.")
    # A list of dicts is rows; a list of anything else is inputs.
    return [inputs] if is_row(inputs[0]) else list(inputs)


def _files(path: str, options: _FileOptions) -> Iterator[_Found]:
    if not path:
        raise UsageError("An input path is empty.")
    if _URL.match(path):
        places, in_folder = remote_places(path, options.storage_options, options.retry)
        yield from _chosen(path, places, options, in_folder=in_folder)
        return
    if Path(path).is_dir():
        _refuse_saved_dataset(path)
        yield from _chosen(path, list(_walk(path)), options, in_folder=True)
    elif Path(path).exists():
        yield _Found(Place(path, path), in_folder=False)
    elif glob.has_magic(path):
        matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207
        files = [Place(match, match) for match in matches if Path(match).is_file()]
        if not files:
            what = "matches folders only; add /**" if matches else "matches no file"
            raise SourceNotFoundError(
                f"The pattern {path} {what} (from {Path.cwd()}). Check it, and its quotes."
            )
        yield from _chosen(path, files, options, in_folder=False)
    else:
        raise SourceNotFoundError(f"{path} does not exist (from {Path.cwd()}). Check the path.")


def _walk(folder: str) -> Iterator[Place]:
    for directory, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = str(Path(directory, name))
                yield Place(path, path)


def _chosen(
    path: str, places: Sequence[Place], options: _FileOptions, *, in_folder: bool
) -> Iterator[_Found]:
    if not in_folder:
        yield from (_Found(place, in_folder=False) for place in places)
        return
    known = [place for place in places if options.type or type_and_codec(place.file_name)[0]]
    if not known:
        there = sorted({_suffixes(place.file_name) or "none" for place in places})
        raise SourceNotFoundError(
            f"The folder {path} holds no file of a known type: it has {len(places)} files"
            + (f" with the extensions {', '.join(there[:10])}" if places else "")
            + f". Known are {_known_suffixes()}. Pass type=… (--type) to read the others."
        )
    yield from (_Found(place, in_folder=True) for place in sorted(known, key=lambda one: one.name))


def _file_source(found: _Found, options: _FileOptions) -> FileSource:
    place = found.place
    kind, codec = type_and_codec(place.file_name)
    kind = options.type or kind
    if kind is None:
        raise SourceError(
            f"{place.name} has the unknown extension {_suffixes(place.file_name) or '(none)'!r}. "
            f"Known are {_known_suffixes()}. Pass type=… (--type) to say what it is."
        )
    return FileSource(place, kind, codec, options.text_rows)


def type_and_codec(path: str) -> tuple[str | None, str | None]:
    """What the extension of a file says: its type, and how it is compressed; None for neither.

    >>> type_and_codec("a.jsonl.zst"), type_and_codec("notes.md"), type_and_codec("rows of list")
    (('jsonl', 'zstd'), ('text', None), (None, None))
    """
    name = PurePath(Place(path, path).file_name)
    codec = CODEC_OF_SUFFIX.get(name.suffix.lower())
    if codec is not None:
        name = name.with_suffix("")
    return _TYPE_OF_SUFFIX.get(name.suffix.lower()), codec


def _suffixes(path: str) -> str:
    name = PurePath(path)
    if name.suffix.lower() in CODEC_OF_SUFFIX:
        return name.with_suffix("").suffix + name.suffix
    return name.suffix


def _known_suffixes() -> str:
    return f"{' '.join(_TYPE_OF_SUFFIX)}, each also with {' '.join(CODEC_OF_SUFFIX)}"


def _refuse_saved_dataset(path: str) -> None:
    # Its .json files describe the rows; read as sources they would pass for rows.
    if all(Path(path, name).is_file() for name in ("state.json", "dataset_info.json")):
        raise UsageError(
            f"{path} is a dataset that was saved with save_to_disk. "
            f"Pass datasets.load_from_disk({path!r}), or {path}/*.arrow."
        )


def _refuse_repetition(sources: Sequence[Source]) -> None:
    names: dict[str, str] = {}
    for source in sources:
        if not isinstance(source, FileSource):
            continue
        first = names.get(source.place.identity)
        names[source.place.identity] = source.name
        if first is not None:
            also = "" if first == source.name else f" (as {first} and as {source.name})"
            raise SourceError(f"The file {source.name} is listed twice{also}. Name it once.")
