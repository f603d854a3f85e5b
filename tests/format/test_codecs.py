from __future__ import annotations

import pyarrow as pa
import pytest

from easydata.errors import UsageError
from easydata.format.codecs import CODEC_NAMES, Codec, resolve_format
from easydata.format.stream import encode_batch


@pytest.mark.parametrize(
    ("text", "name", "level"),
    [
        ("none", "none", None),
        ("lz4", "lz4", None),
        ("zstd", "zstd", None),
        ("gzip", "gzip", None),
        *[(f"zstd:{level}", "zstd", level) for level in range(1, 23)],
    ],
)
def test_names(text: str, name: str, level: int | None) -> None:
    codec = Codec.parse(text)
    assert (codec.name, codec.level) == (name, level)
    assert str(codec) == text
    assert codec.is_zero_copy == (text == "none")


@pytest.mark.parametrize(
    "text",
    ["", "NONE", "snappy", "zstd:", "zstd:0", "zstd:23", "zstd:-1", "zstd:x", "lz4:1", "none:"],
)
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="choose one of none, lz4, zstd") as caught:
        Codec.parse(text)
    assert repr(text) in str(caught.value)
    assert all(name in str(caught.value) for name in CODEC_NAMES)


@pytest.mark.parametrize(
    ("asked", "codec", "given"),
    [
        (None, "none", "ipc"),
        (None, "zstd:3", "ipc"),
        (None, "gzip", "parquet"),
        ("ipc", "lz4", "ipc"),
        *[("parquet", codec, "parquet") for codec in ("none", "lz4", "zstd", "zstd:9", "gzip")],
    ],
)
def test_format_of_a_codec(asked: str | None, codec: str, given: str) -> None:
    assert resolve_format(asked, Codec.parse(codec)) == given


def test_contradictions_are_refused() -> None:
    with pytest.raises(UsageError, match="choose format='parquet'"):
        resolve_format("ipc", Codec("gzip"))
    with pytest.raises(UsageError, match="format is 'csv'"):
        resolve_format("csv", Codec("none"))


def test_levels_reach_the_compressor() -> None:
    batch = pa.record_batch({"a": [" ".join(map(str, range(20_000)))]})
    sizes = [
        sum(map(len, encode_batch(batch, Codec.parse(text))))
        for text in ("zstd:19", "zstd:1", "none")
    ]
    assert sizes == sorted(set(sizes))
    assert Codec.parse("zstd:7").parquet_options() == {
        "compression": "zstd",
        "compression_level": 7,
    }
    assert Codec("none").parquet_options()["compression"] == "none"
