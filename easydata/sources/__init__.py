"""Files and objects as sources of rows: found, read in blocks, parsed."""

from __future__ import annotations

from easydata.sources.blocks import BadRow, Block, Fields, Rows
from easydata.sources.byteblock import ByteBlock
from easydata.sources.files import KNOWN_TYPES, find_sources
from easydata.sources.sample import infer_types
from easydata.sources.source import Source, SourceReader
from easydata.sources.tableblock import TableBlock
from easydata.sources.text import TextRows

__all__ = [
    "KNOWN_TYPES",
    "BadRow",
    "Block",
    "ByteBlock",
    "Fields",
    "Rows",
    "Source",
    "SourceReader",
    "TableBlock",
    "TextRows",
    "find_sources",
    "infer_types",
]
