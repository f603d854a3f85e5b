"""Bytes that may not change unless FORMAT_VERSION does."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa

from easydata.format.codecs import Codec
from easydata.format.ledger import Ledger, PartEntry, ShardEntry, SpanEntry
from easydata.format.shards import IpcShardWriter

SCHEMA = pa.schema({"input_ids": pa.list_(pa.uint16())})
HEADER = {b"huggingface": b"{}", b"easydata": b"{}"}

# The body of the only batch: offsets 0, 2, 2, 3, then the ids 1, 256, 65535, each on 64 bytes.
BODY = bytes.fromhex("00000000 02000000 02000000 03000000").ljust(64, b"\0") + bytes.fromhex(
    "0100 0001 ffff"
).ljust(64, b"\0")
END = bytes.fromhex("ffffffff 00000000")
SHARD_SHA256 = "0b7dbc796ab9259b3b9642b70e8ab29e24a85b10a94371815bc497c3f551df8c"
LEDGER_SHA256 = "3c84191dc019a21b93a4be5dd04cf6a2b756c46314f5cdb001e906bb650c4d29"
CHECKSUMS = ["25bde10c6a41fb83", "99b68cd2412be121", "f0229c562a278d89"]
LEDGER_NAME = "ledger-d681d5e688bd1c02e6f09d2e6d65ad67.arrow"


def write_shard() -> tuple[bytes, ShardEntry]:
    file = io.BytesIO()
    writer = IpcShardWriter(file, SCHEMA, HEADER, Codec("none"))
    writer.write(
        pa.record_batch([pa.array([[1, 256], [], [65535]], SCHEMA.field(0).type)], SCHEMA), 3
    )
    entry = writer.finish("data-00000-of-00001-0123456789abcdef.arrow")
    return file.getvalue(), entry


def make_ledger(shard: ShardEntry) -> Ledger:
    return Ledger.build(
        SCHEMA,
        {"token_column": "input_ids", "shard_format": "ipc", "compression": "none"},
        shards=[shard],
        parts=[PartEntry("0" * 32, 1, (SpanEntry(0, 0, 4, 3, b"\xd0", "1" * 32, short=1),))],
        sources=[{"name": "a.jsonl", "bytes": 40, "hash": "1" * 32, "stamp": None}],
    )


def test_shard() -> None:
    data, entry = write_shard()
    assert data.endswith(BODY + END)
    assert hashlib.sha256(data).hexdigest() == SHARD_SHA256
    assert entry.nbytes == len(data)
    (batch,) = entry.batches.tolist()
    assert batch == [len(data) - batch[1] - 8, batch[1], 3, 3]
    assert [f"{value:016x}" for value in entry.checksums.tolist()] == CHECKSUMS


def test_ledger(tmp_path: Path) -> None:
    ledger = make_ledger(write_shard()[1])
    assert hashlib.sha256(ledger.to_bytes()).hexdigest() == LEDGER_SHA256
    assert ledger.publish(tmp_path) == LEDGER_NAME


def test_bytes_follow_from_content_alone() -> None:
    first, _ = write_shard()
    file = io.BytesIO()
    writer = IpcShardWriter(file, SCHEMA, dict(reversed(HEADER.items())), Codec("none"))
    offsets = np.array([0, 2, 2, 3], np.int32)
    values = np.array([9, 1, 256, 65535], np.uint16)[1:]
    column = pa.ListArray.from_arrays(
        pa.array(offsets), pa.array(values), type=SCHEMA.field(0).type
    )
    writer.write(pa.record_batch([column], SCHEMA), 3)
    writer.finish("another-name.arrow")
    again = file.getvalue()
    assert again.endswith(BODY + END)
    # Only the order of the schema's metadata is the caller's.
    start = first.index(b"\xff\xff\xff\xff", 4)
    assert first[start:] == again[start:]
