"""Damaged files: an error that names the file, never other rows and never a crash."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import easydata as ed
from easydata.dataset._shards import Verify
from easydata.errors import CorruptShardError
from easydata.format.directory import write_state
from easydata.format.ledger import Ledger

from .conftest import Oracle

FLIPS = 32


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def shards_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("data-*"))


def read_rows(dataset: ed.TokenDataset) -> object:
    return [
        {**dataset[row], "input_ids": dataset[row]["input_ids"].tolist()}
        for row in range(len(dataset))
    ]


def read_stream(dataset: ed.TokenDataset) -> object:
    return dataset.tokens(0, dataset.num_tokens).tolist()


def gather_stream(dataset: ed.TokenDataset) -> object:
    starts = np.arange(dataset.num_tokens)
    return dataset.gather(starts, 1)[:, 0].tolist()


READERS: list[tuple[Callable[[ed.TokenDataset], object], str]] = [
    (lambda dataset: dataset.to_table().to_pylist(), "rows"),
    (lambda dataset: dataset.take(np.arange(len(dataset))).to_pylist(), "rows"),
    (read_rows, "rows"),
    (read_stream, "stream"),
    (gather_stream, "stream"),
]


def read_or_error(read: Callable[[ed.TokenDataset], object], dataset: ed.TokenDataset) -> object:
    try:
        return read(dataset)
    except CorruptShardError as error:
        return error


def positions(dataset: ed.TokenDataset, shard: int) -> tuple[list[int], list[int]]:
    """Random bytes to damage: within record batches, and around them."""
    rng = np.random.default_rng(shard)
    header, tail = dataset.ledger.region_ends[shard].tolist()
    size = int(dataset.ledger.shard_bytes[shard])
    first = int(dataset.ledger.first_batches[shard])
    message = int(dataset.ledger.batch_offsets[first])
    inside = [*range(message, message + 24), *rng.integers(header, tail, FLIPS).tolist()]
    return inside, [*rng.integers(0, header, 5).tolist(), *rng.integers(tail, size, 5).tolist()]


@pytest.mark.parametrize("shard", [0, 1])
def test_one_flipped_bit(copied: Path, way: str, oracle: Oracle, shard: int) -> None:
    path = shards_of(copied)[shard]
    data = path.read_bytes()
    inside, around = positions(ed.open_dataset(copied), shard)
    for number, position in enumerate([*inside, *around]):
        broken = bytearray(data)
        broken[position] ^= 1 << (number % 8)
        path.unlink()  # a new file, as the old one may still be mapped
        path.write_bytes(broken)
        read, what = READERS[number % len(READERS)]
        dataset = ed.open_dataset(copied)
        if position in inside:
            with pytest.raises(CorruptShardError, match=path.name):
                read(dataset)
        else:
            # Nothing that lies around the batches of an IPC stream is needed to read them.
            found = read_or_error(read, dataset)
            if isinstance(found, CorruptShardError):
                assert path.name in str(found)
            else:
                assert found == getattr(oracle, what)
                assert path.suffix == ".arrow"
        (error,) = dataset.find_damage()
        assert path.name in str(error)
        with pytest.raises(CorruptShardError, match=path.name):
            ed.open_dataset(copied, verify="open")
    assert "--overwrite" in str(error)


@pytest.mark.parametrize("change", ["another", "missing", "swapped"])
def test_a_state_that_names_other_shards_is_found(copied, change):
    state = json.loads((copied / "state.json").read_text())
    names = state["_data_files"]
    assert len(names) > 1
    state["_data_files"] = {
        "another": [*names[:-1], {"filename": "other.arrow"}],
        "missing": names[:-1],
        "swapped": names[::-1],
    }[change]
    (copied / "state.json").write_text(json.dumps(state))
    (error,) = ed.open_dataset(copied).find_damage()
    assert "state.json names other shards" in str(error)
    assert "--overwrite" in str(error)


_SURVIVE = """
import os
import sys
import numpy as np
import easydata as ed
from easydata.errors import CorruptShardError
folder, path, *flips = sys.argv[1:]
data = open(path, "rb").read()
seen = set()
for number, flip in enumerate(flips):
    position, bit = map(int, flip.split(":"))
    broken = bytearray(data)
    broken[position] ^= 1 << bit
    os.unlink(path)
    open(path, "wb").write(broken)
    ds = ed.open_dataset(folder, verify="never")
    for read in (
        lambda: ds.to_table().to_pylist(),
        lambda: [ds[i] for i in range(len(ds))],
        lambda: ds.tokens(0, ds.num_tokens).sum(),
        lambda: ds.gather(np.arange(ds.num_tokens - 8), 8).sum(),
    ):
        try:
            read()
            seen.add("read")
        except (CorruptShardError, MemoryError):
            seen.add("refused")
        except Exception as error:
            raise SystemExit(f"{flip}: {error!r}")
print(*sorted(seen))
"""


@pytest.mark.parametrize("name", ["none", "zstd"])
def test_unchecked_offsets_and_headers_do_not_crash(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    copy = Path(shutil.copytree(folders[name], tmp_path / "copy"))
    dataset = ed.open_dataset(copy)
    path = shards_of(copy)[0]
    start = int(dataset.ledger.batch_offsets[0])
    size = int(dataset.ledger.batch_bytes[0])
    message = pa.py_buffer(path.read_bytes()).slice(start, size)
    header = 8 + int.from_bytes(memoryview(message)[4:8], "little")
    batch = pa.ipc.read_record_batch(pa.ipc.read_message(message), dataset.schema)
    rng = np.random.default_rng(0)
    places = rng.integers(start + 8, start + header, 150).tolist()
    if name == "none":
        for column in batch.columns:
            for buffer in column.buffers():
                if buffer is not None and buffer.size:
                    at = start + buffer.address - message.address
                    places += range(at, at + min(buffer.size, 20))
    flips = [f"{place}:{rng.integers(8)}" for place in places]
    result = subprocess.run(
        [sys.executable, "-c", _SURVIVE, str(copy), str(path), *flips],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "refused" in result.stdout


def damage_truncate(paths: list[Path]) -> None:
    data = paths[1].read_bytes()
    paths[1].unlink()
    paths[1].write_bytes(data[:-1])


def damage_extend(paths: list[Path]) -> None:
    data = paths[1].read_bytes()
    paths[1].unlink()
    paths[1].write_bytes(data + bytes(64))


def damage_empty(paths: list[Path]) -> None:
    paths[1].unlink()
    paths[1].write_bytes(b"")


def damage_remove(paths: list[Path]) -> None:
    paths[1].unlink()


def damage_zero_tail(paths: list[Path]) -> None:
    """What is left after a power failure: the size is right, the end reads as zeros."""
    data = paths[1].read_bytes()
    paths[1].unlink()
    paths[1].write_bytes(data[: len(data) // 3].ljust(len(data), b"\0"))


def damage_swap(paths: list[Path]) -> None:
    spare = paths[0].with_name("spare")
    paths[1].rename(spare)
    paths[0].rename(paths[1])
    spare.rename(paths[0])


@pytest.mark.parametrize(
    "damage",
    [
        damage_truncate,
        damage_extend,
        damage_empty,
        damage_remove,
        damage_zero_tail,
        damage_swap,
    ],
)
def test_whole_files(copied: Path, oracle: Oracle, damage: Callable[[list[Path]], None]) -> None:
    paths = shards_of(copied)
    damage(paths)
    broken = paths[:2] if damage is damage_swap else paths[1:2]
    dataset = ed.open_dataset(copied)
    for read, _ in READERS:
        with pytest.raises(CorruptShardError, match=f"{broken[0].name}|{broken[-1].name}"):
            read(dataset)
    errors = list(dataset.find_damage())
    assert len(errors) == len(broken)
    assert all(path.name in str(error) for path, error in zip(broken, errors, strict=True))
    # Rows of undamaged shards can still be read.
    last = dataset[len(dataset) - 1]["input_ids"].tolist()
    if len(paths) > 2:
        assert last == oracle.rows[-1]["input_ids"]


@pytest.mark.parametrize("count", ["rows", "tokens"])
@pytest.mark.parametrize("verify", ["lazy", "never"])
def test_a_ledger_that_counts_wrongly(copied: Path, count: str, verify: Verify) -> None:
    ledger = ed.open_dataset(copied).ledger
    columns = ledger._batch.to_pylist()[0]
    columns["batches"][0][count] += 1
    columns["batches"][1][count] -= 1
    schema = ledger._batch.schema
    wrong = Ledger(
        pa.record_batch([pa.array([columns[f.name]], f.type) for f in schema], schema=schema)
    )
    assert wrong.problems() == []
    write_state(
        copied,
        shard_names=[path.name for path in shards_of(copied)],
        ledger_name=wrong.publish(copied),
        fingerprint="0" * 16,
        split=None,
    )
    for read, _ in READERS:
        with pytest.raises(CorruptShardError, match=r"rows and \d+ tokens where the ledger says"):
            read(ed.open_dataset(copied, verify=verify))
    with pytest.raises(CorruptShardError, match="ledger says"):
        ed.open_dataset(copied).verify()
