"""Files and objects as sources of rows: found, read in blocks, parsed."""

from __future__ import annotations

from easydata.sources.blocks import BadRow, Block, Fields, Rows
from easydata.sources.byteblock import ByteBlock
from easydata.sources.features import kept_features
from easydata.sources.files import KNOWN_TYPES, find_sources, type_and_codec
from easydata.sources.parse import parse_rows
from easydata.sources.sample import infer_types
from easydata.sources.source import Source, SourceReader
from easydata.sources.tableblock import TableBlock
from easydata.sources.text import TextRows
from easydata.sources.text_kind import TextKind, sample_text_kind
from easydata.sources.transform import RowTransform

__all__ = [
    "KNOWN_TYPES",
    "BadRow",
    "Block",
    "ByteBlock",
    "Fields",
    "RowTransform",
    "Rows",
    "Source",
    "SourceReader",
    "TableBlock",
    "TextKind",
    "TextRows",
    "find_sources",
    "infer_types",
    "kept_features",
    "parse_rows",
    "sample_text_kind",
    "type_and_codec",
]
