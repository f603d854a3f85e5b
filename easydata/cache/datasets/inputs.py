"""What `put` takes, as features and record batches of one schema, read as they are written."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from easydata.cache.datasets.views import without_views
from easydata.errors import UsageError
from easydata.format.features import HUGGINGFACE_KEY

__all__ = ["Rows", "can_be_read_again", "read_rows", "split_input"]

_ROWS_PER_READ = 256  # what is in memory at once, and as Python objects; rows may be large
_SPLIT_NAME = re.compile(r"\w+(\.\w+)*")
_KINDS = (
    "a datasets.Dataset, DatasetDict, IterableDataset or IterableDatasetDict, a pyarrow table, "
    "batch or RecordBatchReader, or an iterable of record batches"
)


@dataclass(frozen=True)
class Rows:
    """Rows of one dataset.

    Attributes:
        features: a `datasets.Features`.
        schema: the Arrow schema of these, without metadata.
        batches: of this schema. They are read once.
        split: the dataset's own name of its split, if it has one.
    """

    features: Any
    schema: pa.Schema
    batches: Iterator[pa.RecordBatch]
    split: str | None


def split_input(value: object) -> dict[str, object]:
    """The datasets in `value` by split; a single one by "".

    Raises:
        UsageError: it is nothing that can be put; nothing of it was read.
    """
    import datasets

    if not isinstance(value, Mapping):
        if not _is_readable(value):
            raise UsageError(f"dataset is a {_name(value)}; give {_KINDS}.")
        return {"": value}
    if not isinstance(value, datasets.DatasetDict | datasets.IterableDatasetDict):
        raise UsageError(
            f"dataset is a {_name(value)}; give {_KINDS}. "
            "For rows in a dict use Dataset.from_dict, for splits datasets.DatasetDict."
        )
    parts: dict[str, object] = {str(name): part for name, part in value.items()}
    if not parts:
        raise UsageError(f"The {_name(value)} has no splits; give one that has.")
    for name, part in parts.items():
        if not _SPLIT_NAME.fullmatch(name):
            raise UsageError(
                f"A split is called {name!r}; use letters, digits, underscores and inner dots."
            )
        if not _is_readable(part):
            raise UsageError(f"Split {name!r} is a {_name(part)}; give {_KINDS}.")
    if len({name.casefold() for name in parts}) < len(parts):
        raise UsageError(
            f"The splits {', '.join(parts)} differ in case only, which not every file system "
            "can keep apart; rename one."
        )
    return parts


def can_be_read_again(value: object) -> bool:
    """Whether all rows of something that was read, in part or as a whole, are still there.

    Only for what is known: an Arrow stream of an unknown object may give its rows once.
    """
    import datasets

    if isinstance(value, Mapping):
        return all(map(can_be_read_again, value.values()))
    rereadable = datasets.Dataset | datasets.IterableDataset | pa.Table | pa.RecordBatch
    return isinstance(value, rereadable | list | tuple)


def read_rows(value: Any) -> Rows:
    """The rows of one value of `split_input`.

    Raises:
        UsageError: there is nothing that tells the columns, or `datasets` cannot hold them.
    """
    import datasets

    if isinstance(value, datasets.Dataset):
        features, tables = value.features, _tables_of(value)
        split = None if value.split is None else str(value.split)
        return _declared(features, tables, split)
    if isinstance(value, datasets.IterableDataset):
        split = None if value.split is None else str(value.split)
        tables = _tables_of_stream(value)
        if value.features is not None:
            return _declared(value.features, tables, split)
        return _inferred(tables, split)
    if hasattr(value, "__arrow_c_stream__"):
        try:
            reader = pa.RecordBatchReader.from_stream(value)
        except pa.ArrowException as error:
            raise UsageError(
                f"Arrow cannot read this {_name(value)} as a table: {error}. "
                "Give a table, and cast columns whose type is not one of Arrow's."
            ) from error
        return _inferred(_tables(reader, "the stream"), None, reader.schema)
    return _inferred(_tables(value, "the iterable"), None)


def _is_readable(value: object) -> bool:
    import datasets

    if isinstance(value, datasets.Dataset | datasets.IterableDataset):
        return True
    if hasattr(value, "__arrow_c_stream__"):
        return True
    return isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)


def _tables_of(dataset: Any) -> Iterator[pa.Table]:
    if dataset._indices is None:  # noqa: SLF001 - nothing public tells
        # Views of the whole columns, whatever columns the format of the dataset shows.
        return (pa.Table.from_batches([batch]) for batch in dataset.data.table.to_batches())
    tables: Iterator[pa.Table] = dataset.with_format("arrow").iter(batch_size=_ROWS_PER_READ)
    return tables


def _tables_of_stream(dataset: Any) -> Iterator[pa.Table]:
    if dataset._ex_iterable.iter_arrow:  # noqa: SLF001 - nothing public tells
        yield from dataset.with_format("arrow").iter(batch_size=_ROWS_PER_READ)
        return
    # In the format "arrow" it would make a table of each row, and refuse to join that of a null
    # with that of a value.
    features = dataset.features
    plain = dataset.with_format(None)
    if features is not None:
        plain = plain.decode(False)
    for batch in plain.iter(batch_size=_ROWS_PER_READ):
        with _fitting():
            table = _table_of(batch, features)
        yield table


def _table_of(batch: Mapping[str, Any], features: Any) -> pa.Table:
    """As `Dataset.from_dict`, which takes 10 ms to make a fingerprint of each."""
    from datasets import Features
    from datasets.arrow_writer import OptimizedTypedSequence

    columns, found = {}, Features()
    for name, values in batch.items():
        feature = None if features is None else features[name]
        encoded = values if features is None else features.encode_column(values, name)
        typed = OptimizedTypedSequence(encoded, type=feature, col=name)
        columns[name] = pa.array(typed)
        found[name] = typed.get_inferred_type()
    return pa.table(columns).replace_schema_metadata(found.arrow_schema.metadata)


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    """Say what to do about rows that are not what their features say."""
    try:
        yield
    except (pa.ArrowException, ValueError, TypeError, KeyError, OverflowError) as error:
        raise UsageError(
            f"Rows do not fit together, or not the features of their dataset: {error}. "
            "Give it features that fit all of them (cast), or mend the rows."
        ) from error


def _tables(batches: Iterable[object], what: str) -> Iterator[pa.Table]:
    for at, batch in enumerate(batches):
        if isinstance(batch, pa.RecordBatch):
            yield pa.Table.from_batches([batch])
        elif isinstance(batch, pa.Table):
            yield batch
        else:
            raise UsageError(
                f"Item {at} of {what} is a {_name(batch)}; give record batches. "
                "For rows as dicts use datasets.IterableDataset.from_generator."
            )


def _declared(features: Any, tables: Iterator[pa.Table], split: str | None) -> Rows:
    """Rows whose features are known: each table is made to fit them, as `datasets` does."""
    from datasets.features.features import require_storage_embed
    from datasets.table import embed_table_storage, table_cast

    if not features:
        raise UsageError("The dataset has no columns, and so nothing to store. Give it some.")
    arrow_schema = features.arrow_schema
    schema = arrow_schema.remove_metadata()
    is_embedded = any(require_storage_embed(feature) for feature in features.values())

    def batches() -> Iterator[pa.RecordBatch]:
        for given in tables:
            with _fitting():
                table = table_cast(given.replace_schema_metadata(None), arrow_schema)
            if is_embedded:  # images and the like that lie in files: their bytes are stored
                table = embed_table_storage(table)
            yield from table.replace_schema_metadata(None).to_batches()

    return Rows(features, schema, batches(), split)


def _inferred(
    tables: Iterator[pa.Table], split: str | None, schema: pa.Schema | None = None
) -> Rows:
    """Rows whose features follow from their schema, or from that of the first table."""
    import datasets

    if schema is None:
        first = next(tables, None)
        if first is None:
            raise UsageError(
                "The dataset is empty and does not say what columns it has. Give it features "
                "(IterableDataset.cast), or put a pyarrow table with a schema."
            )
        schema, tables = first.schema, chain([first], tables)
    if not schema.metadata or HUGGINGFACE_KEY not in schema.metadata:
        # A frame says nothing about features. Those that are views, `datasets` cannot sort,
        # and categories that are views, Arrow cannot decode.
        schema, tables = _plain(schema), map(_without_views, tables)
    if len(set(schema.names)) < len(schema.names):
        raise UsageError(f"Two columns have one name: {', '.join(schema.names)}. Rename one.")
    try:
        features = datasets.Features.from_arrow_schema(schema)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise UsageError(
            f"HuggingFace datasets cannot represent these columns: {error}. "
            "Cast them to other types, or leave them out."
        ) from error
    plain = schema.remove_metadata()
    return _declared(features, (_same(table, plain) for table in tables), split)


def _plain(schema: pa.Schema) -> pa.Schema:
    kinds = (without_views(item.type) for item in schema)
    return pa.schema([item.with_type(kind) for item, kind in zip(schema, kinds, strict=True)])


def _without_views(table: pa.Table) -> pa.Table:
    schema = _plain(table.schema)
    return table if schema.equals(table.schema) else table.cast(schema)


def _same(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table that has the columns of `schema` and no value that must become another.

    Raises:
        UsageError: it has others.
    """
    found = table.schema.remove_metadata()
    if found.equals(schema):
        return table
    # `datasets` would write the number 5 as the text "5".
    try:
        fits = pa.unify_schemas([schema, found], promote_options="permissive").equals(schema)
    except pa.ArrowException:
        fits = False
    if not fits:
        raise UsageError(
            f"Rows have the columns {_shown(found)}, those before them {_shown(schema)}. "
            "Say what they are: IterableDataset.cast(features), or batches of one schema."
        )
    return table


def _shown(schema: pa.Schema) -> str:
    return ", ".join(f"{item.name}: {item.type}" for item in schema)


def _name(value: object) -> str:
    return type(value).__name__
