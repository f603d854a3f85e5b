"""The mapped hash table, against a dict."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache.log.table import HashTable
from easydata.errors import CorruptShardError, StorageError
from tests.full_disk import full_disk

# Few different hashes, so that probing runs through neighbours, round the end, and past equals.
hashes = st.one_of(
    st.integers(0, 20), st.integers(2**64 - 20, 2**64 - 1), st.integers(0, 2**64 - 1)
)


def places_of(table: HashTable, key_hash: int) -> list[int]:
    """All places under a hash, in the order of probing."""
    found = []
    slot = table.find(key_hash)
    while slot is not None:
        found.append(table.place(slot))
        slot = table.find(key_hash, after=slot)
    return found


def test_what_was_added_is_found(tmp_path: Path) -> None:
    chance = random.Random(0)
    entries = [(chance.getrandbits(64), place) for place in range(40_000)]
    table = HashTable.create(tmp_path / "t", 65536)
    assert table.capacity == 65536
    for key_hash, place in entries:
        table.add(key_hash, place)
    assert len(table) == len(entries)
    assert all(places_of(table, key_hash) == [place] for key_hash, place in entries)
    assert all(table.find(chance.getrandbits(64)) is None for _ in range(1000))


@settings(max_examples=100)
@given(entries=st.lists(hashes, max_size=60), built=st.booleans())
def test_equal_and_neighbouring_hashes(
    tmp_path_factory: pytest.TempPathFactory, entries: list[int], built: bool
) -> None:
    path = tmp_path_factory.mktemp("table") / "t"
    if built:
        numbers = np.arange(len(entries), dtype=np.uint64)
        table = HashTable.build(path, np.array(entries, np.uint64), numbers)
    else:
        table = HashTable.create(path, 64)
        for place, key_hash in enumerate(entries):
            table.add(key_hash, place)
    known: dict[int, list[int]] = {}
    for place, key_hash in enumerate(entries):
        known.setdefault(key_hash or 1, []).append(place)
    for key_hash, places in known.items():
        assert sorted(places_of(table, key_hash)) == places
    assert len(table) == len(entries)
    found_hashes, found_places = table.entries()
    assert sorted(zip(found_hashes.tolist(), found_places.tolist(), strict=True)) == sorted(
        (key_hash, place) for key_hash, places in known.items() for place in places
    )
    # Another map of the same file says the same.
    again = HashTable(path)
    assert all(sorted(places_of(again, key_hash)) == known[key_hash] for key_hash in known)


def test_a_hash_of_zero_is_not_an_empty_slot(tmp_path: Path) -> None:
    table = HashTable.create(tmp_path / "t", 8)
    assert table.find(0) is None
    table.add(0, 5)
    assert places_of(table, 0) == [5]


def test_a_newer_place_replaces_the_older(tmp_path: Path) -> None:
    table = HashTable.create(tmp_path / "t", 8)
    table.add(3, 10)
    slot = table.find(3)
    assert slot is not None
    table.replace(slot, 11)
    assert places_of(table, 3) == [11]
    assert len(table) == 1


def test_another_process_sees_an_entry_at_once(tmp_path: Path) -> None:
    path = tmp_path / "t"
    table = HashTable.create(path, 1024)
    program = (
        "import sys; from pathlib import Path; from easydata.cache.log.table import HashTable\n"
        "table = HashTable(Path(sys.argv[1]))\n"
        "for line in sys.stdin:\n"
        "    slot = table.find(int(line))\n"
        "    print(-1 if slot is None else table.place(slot), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=-1, stdout=-1, text=True
    ) as reader:
        assert reader.stdin is not None
        assert reader.stdout is not None

        def ask(key_hash: int) -> int:
            print(key_hash, file=reader.stdin, flush=True)
            return int(reader.stdout.readline())

        for key_hash in range(1, 200):
            assert ask(key_hash) == -1
            table.add(key_hash, key_hash * 1000)
            assert ask(key_hash) == key_hash * 1000
        reader.stdin.close()


def test_how_full_it_gets(tmp_path: Path) -> None:
    table = HashTable.create(tmp_path / "t", 8)
    added = 0
    while table.has_room(1):
        table.add(added + 1, added)
        added += 1
    assert added == 5
    for _ in range(2):
        table.add(added + 1, added)
        added += 1
    # One slot stays empty, or a search for what is not there would have no end.
    with pytest.raises(ValueError, match="full"):
        table.add(99, 0)
    assert table.find(98) is None


def test_a_table_without_empty_slots_ends_every_search(tmp_path: Path) -> None:
    path = tmp_path / "t"
    HashTable.create(path, 8)
    data = bytearray(path.read_bytes())
    data[64:] = np.full((8, 2), 77, "<u8").tobytes()
    path.write_bytes(data)
    assert HashTable(path).find(5) is None


def test_building_leaves_half_of_the_slots_empty(tmp_path: Path) -> None:
    for count in (0, 1, 5, 64, 1000):
        path = tmp_path / str(count)
        numbers = np.arange(count, dtype=np.uint64)
        table = HashTable.build(path, numbers * np.uint64(2**40), numbers)
        assert table.capacity >= max(2 * count, 2)
        assert table.capacity <= max(4 * count, 2)
        assert os.path.getsize(path) == 64 + 16 * table.capacity


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[:40],
        lambda data: b"x" + data[1:],
        lambda data: data[:-16],
        lambda data: data + bytes(16),
        lambda data: data[:8] + (3).to_bytes(8, "little") + data[16 : 64 + 48],
        lambda data: data[:8] + bytes(8) + data[16:64],
    ],
    ids=["empty", "short", "magic", "cut", "long", "not a power", "no slots"],
)
def test_another_file_is_refused(tmp_path: Path, change) -> None:
    path = tmp_path / "t"
    HashTable.create(path, 8)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CorruptShardError, match="is no table"):
        HashTable(path)


def test_an_existing_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("mine")
    with pytest.raises(StorageError):
        HashTable.create(tmp_path / "t", 8)
    assert (tmp_path / "t").read_text() == "mine"
    with pytest.raises(FileNotFoundError):
        HashTable(tmp_path / "none")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with full_disk(1000), pytest.raises(StorageError, match="full"):
        HashTable.create(tmp_path / "t", 1024)
    assert list(tmp_path.iterdir()) == []
