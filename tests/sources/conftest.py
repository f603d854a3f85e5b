"""How the tests of `easydata.sources` read a source from end to end."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lz4.frame
import pyarrow as pa
import pytest
import zstandard

from easydata.sources import Block, Fields, Source

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".lz4": lz4.frame.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


@dataclass
class Reading:
    """Everything that one reading of a source gave."""

    blocks: list[Block]
    texts: list[str]
    kept: dict[str, list[object]]
    bad: list[str]
    content_hash: str | None
    bytes_read: int


@pytest.fixture
def read() -> Callable[..., Reading]:
    """Read a source: read(source, text="text", block_bytes=100, kept_name=type, …)."""

    def read_source(
        source: Source, text: str = "text", block_bytes: int = 100, **keep: pa.DataType
    ) -> Reading:
        fields = Fields(text, keep)
        with source.open([text, *keep], block_bytes) as reader:
            blocks = list(reader)
        texts: list[str] = []
        kept: dict[str, list[object]] = {name: [] for name in keep}
        bad: list[str] = []
        for block in blocks:
            rows = block.rows(fields)
            assert len(rows.texts) == len(rows.records)
            texts.extend(rows.texts)
            for name, array in rows.kept.items():
                assert array.type == keep[name]
                assert len(array) == len(rows.texts)
                kept[name].extend(array.to_pylist())
            bad.extend(f"{block.locate(one.record)}: {one.reason}" for one in rows.bad)
        return Reading(blocks, texts, kept, bad, reader.content_hash, reader.bytes_read)

    return read_source


@pytest.fixture(params=sorted(COMPRESS))
def suffix(request: pytest.FixtureRequest) -> Any:
    """Each extension of a compressed file, and none."""
    return request.param


@pytest.fixture
def compress() -> Callable[[str, bytes], bytes]:
    """Compress data as files with an extension are."""
    return lambda suffix, data: COMPRESS[suffix](data)
