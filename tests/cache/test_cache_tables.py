"""Arrow tables of entries: get_table, to_table, and what leads to them."""

from __future__ import annotations

import datetime
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from easydata.cache import tables
from easydata.cache.disk import DiskCache
from easydata.cache.layer import CacheLayer
from easydata.cache.log.entry import Entry
from easydata.cache.log.layout import NEVER, EntryLayout
from easydata.cache.log.message import EntryCodec
from easydata.cache.log.table import HashTable
from easydata.cache.memory import MemoryCache
from easydata.cache.values import encode
from easydata.cache.values.columns import BUFFERS
from tests.cache.layers import stopped_clock
from tests.cache.values_strategy import VALUES

HASHES = st.one_of(
    st.integers(0, 20), st.integers(2**64 - 20, 2**64 - 1), st.integers(0, 2**64 - 1)
)
NAMES = [f"ключ/{number:03}" for number in range(50)]


def samples(names: list[str], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Values whose columns are of every family."""
    chance = np.random.default_rng(seed)
    return {
        name: {
            "input_ids": chance.integers(0, 60_000, chance.integers(0, 30)).astype(np.uint16),
            "grid": chance.random((2, 3), np.float32),
            "text": f"{name} {seed}",
            "raw": bytes([seed, 255]),
            "count": int(chance.integers(-9, 9)),
            "loss": float(chance.random()),
            "done": bool(chance.integers(2)),
        }
        for name in names
    }


def as_row(value: dict[str, Any]) -> dict[str, Any]:
    """A flat dict as a row of a table."""
    return {
        name: item.reshape(-1).tolist() if isinstance(item, np.ndarray) else item
        for name, item in value.items()
    }


def rows_of(table: pa.Table) -> list[dict[str, Any]]:
    table.validate(full=True)
    return table.to_pylist()


@pytest.fixture(params=["memory", "disk", "sealed", "zstd", "parquet", "readers"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CacheLayer]:
    """A cache with what `samples(NAMES)` gives, put in one batch."""
    kind = request.param
    compression = {"zstd": "zstd", "parquet": "gzip"}.get(kind, "none")
    made: CacheLayer = MemoryCache() if kind == "memory" else DiskCache(tmp_path, compression)
    made.put_many(samples(NAMES))
    if kind in {"sealed", "zstd", "parquet"}:
        made.close()
    if kind == "readers":
        with DiskCache(tmp_path, readonly=True) as reader:
            yield reader
    else:
        yield made
    made.close()


# Tables of keys


@pytest.mark.parametrize(
    "keys",
    [
        NAMES,
        NAMES[7:39],
        NAMES[::-1],
        NAMES[::2],
        NAMES[5:6],
        [*NAMES[3:20], "none", *NAMES[20:30], NAMES[0], *NAMES[40:]],
        ["none", *NAMES[:12], *NAMES[14:26]],
    ],
    ids=["all", "run", "reverse", "every second", "one", "gaps", "two runs"],
)
def test_rows_are_in_the_order_of_the_keys(cache: CacheLayer, keys: list[str]) -> None:
    values = samples(NAMES)
    expected = [as_row(values[key]) for key in keys if key in values]
    table = cache.get_table(keys)
    assert rows_of(table) == expected
    assert [str(kind) for kind in table.schema.types] == [
        *("list<item: uint16>", "list<item: float>", "string", "binary"),
        *("int64", "double", "bool"),
    ]


def test_a_key_alone_and_keys_that_are_not_there(cache: CacheLayer) -> None:
    assert rows_of(cache.get_table(NAMES[4])) == [as_row(samples(NAMES)[NAMES[4]])]
    for keys in ("none", ["none"], ["none", "neither"], []):
        table = cache.get_table(keys)
        assert table.shape == (0, 0)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_table_is_the_result_itself(kind: str, tmp_path: Path) -> None:
    made: CacheLayer = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    table = pa.table({"a": pa.array([1, 2, 3], pa.int8()), "b": ["x", None, "z"]})
    frame = pd.DataFrame({"c": [1.5, 2.5]}, index=pd.Index([7, 9], name="at"))
    with made as cache:
        cache.put_many({"t": table, "b": table.to_batches()[0], "f": frame, "n": {"t": table}})
        assert cache.get_table("t").equals(table)
        assert cache.get_table(["b"]).equals(table)
        pd.testing.assert_frame_equal(cache.get_table("f").to_pandas(), frame)
        # A table is one row beside others, and inside of a value: its Arrow stream.
        for row in [*rows_of(cache.get_table(["t", "b"])), {"value": None}][:2]:
            assert pa.ipc.open_stream(row["value"]).read_all().equals(table)
        (row,) = rows_of(cache.get_table("n"))
        assert pa.ipc.open_stream(row["t"]).read_all().equals(table)


def test_only_what_counts_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = stopped_clock(monkeypatch)
    old, new = samples(NAMES), samples(NAMES, 1)
    with DiskCache(tmp_path) as cache, DiskCache(tmp_path) as other:
        other.put_many(new)  # to a segment that clearing leaves in place
        cache.invalidate()
        assert cache.get_table(NAMES).num_rows == 0
        assert rows_of(cache.to_table()) == []
        cache.put_many(old)
        expected = {name: as_row(old[name]) for name in NAMES}

        def check() -> None:
            wanted = [expected[name] for name in NAMES if name in expected]
            for each in (cache, other):
                assert rows_of(each.get_table(NAMES)) == wanted
                found = {row.pop("key"): row for row in rows_of(each.to_table())}
                assert found == expected
                assert each.keys() == sorted(expected)

        check()
        other.invalidate(NAMES[20])
        del expected[NAMES[20]]
        check()
        cache.invalidate(NAMES[1])
        del expected[NAMES[1]]
        check()
        replaced = {name: new[name] for name in NAMES[30:45]}
        other.put_many(replaced)
        expected |= {name: as_row(value) for name, value in replaced.items()}
        check()
        cache.put(NAMES[2], new[NAMES[2]])
        expected[NAMES[2]] = as_row(new[NAMES[2]])
        check()
        cache.put_many({name: new[name] for name in NAMES[4:18]}, expiry_seconds=10)
        cache.put(NAMES[48], new[NAMES[48]], expiry_seconds=10)
        lasting = dict(expected)
        expected |= {name: as_row(new[name]) for name in [*NAMES[4:18], NAMES[48]]}
        check()
        clock.go(11)
        expected = lasting
        for name in [*NAMES[4:18], NAMES[48]]:
            del expected[name]
        check()
        assert cache.get_table(NAMES[48]).num_rows == 0


def test_what_was_deleted_together_is_not_found(tmp_path: Path) -> None:
    with DiskCache(tmp_path) as cache:
        cache.put_many(dict.fromkeys(NAMES))
        assert cache.get_table(NAMES).to_pydict() == {"value": ["None"] * len(NAMES)}
        cache.invalidate(prefix=NAMES[0][:-1])
        assert cache.get_table(NAMES).num_rows == len(NAMES) - 10
        cache.invalidate(prefix="")
        assert cache.get_table(NAMES).num_rows == 0


def test_an_older_value_does_not_stand_for_one_that_is_lost(tmp_path: Path) -> None:
    with DiskCache(tmp_path) as cache:
        cache.put_many(samples(NAMES))
    with DiskCache(tmp_path) as cache:
        cache.put_many(samples(NAMES[:20], 1))
    _, new = sorted(tmp_path.glob("seg-*.arrow"))
    data = new.read_bytes()
    new.write_bytes(data[:8] + bytes(100) + data[108:])
    expected = [as_row(value) for value in list(samples(NAMES).values())[20:]]
    cache = DiskCache(tmp_path, readonly=True)
    assert [name for name in NAMES if name in cache] == NAMES[20:]
    assert rows_of(cache.get_table(NAMES)) == expected
    assert cache.to_table()["key"].to_pylist() == NAMES[20:]


def test_a_place_of_another_key_is_not_taken_for_it(tmp_path: Path) -> None:
    with DiskCache(tmp_path) as cache:
        cache.put_many(samples(NAMES))
        (segment,) = cache._store.segments()
        slots = [segment.table.find(xxhash.xxh3_64_intdigest(n.encode())) for n in NAMES[:2]]
        assert slots[0] is not None
        assert slots[1] is not None
        segment.table.replace(slots[0], segment.table.place(slots[1]))
        expected = [as_row(value) for value in list(samples(NAMES).values())[1:]]
        assert rows_of(cache.get_table(NAMES)) == expected
        assert rows_of(cache.get_table(NAMES[::-1])) == expected[::-1]


def test_a_place_outside_of_its_block_leads_to_nothing(tmp_path: Path) -> None:
    with DiskCache(tmp_path) as cache:
        cache.put_many(samples(NAMES))
        (segment,) = cache._store.segments()
        slot = segment.table.find(xxhash.xxh3_64_intdigest(NAMES[-1].encode()))
        assert slot is not None
        segment.table.replace(slot, segment.table.place(slot) + 1)
        assert cache.get_table(NAMES).num_rows == len(NAMES) - 1


def test_damaged_blocks_are_missing(tmp_path: Path) -> None:
    first, second = NAMES[:25], NAMES[25:]
    with DiskCache(tmp_path) as writer:
        writer.put_many(samples(first))
        writer.put_many(samples(second))
        writer.put("single", samples(["single"])["single"])
        (path,) = tmp_path.glob("log-*.arrow")
        with path.open("r+b") as file:
            file.seek(path.read_bytes().index(f"{first[3]} 0".encode()))
            file.write(b"?")
        cache = DiskCache(tmp_path, readonly=True)
        intact = {key: as_row(value) for key, value in samples(second).items()}
        intact["single"] = as_row(samples(["single"])["single"])
        assert rows_of(cache.get_table([*NAMES, "single"])) == list(intact.values())
        assert cache.get_table(first).num_rows == 0
        assert {row.pop("key"): row for row in rows_of(cache.to_table())} == intact
        assert cache.stats["corrupt"] == len(first)


# Tables of everything


def test_the_key_comes_first_and_prefixes_choose(cache: CacheLayer) -> None:
    if isinstance(cache, MemoryCache):
        assert not hasattr(cache, "to_table")
        return
    assert isinstance(cache, DiskCache)
    table = cache.to_table()
    assert table.column_names[0] == "key"
    expected = [{"key": name} | as_row(value) for name, value in samples(NAMES).items()]
    assert rows_of(table) == expected
    assert rows_of(cache.to_table("ключ/01")) == expected[10:20]
    assert rows_of(cache.to_table("ключ/001")) == expected[1:2]
    assert cache.to_table("none").to_pydict() == {"key": []}
    assert cache.to_table("\ud800").num_rows == 0
    assert cache.keys("ключ/04") == NAMES[40:]
    assert cache.to_pandas()["count"].tolist() == [row["count"] for row in expected]


@pytest.mark.parametrize("together", [True, False], ids=["batch", "one by one"])
def test_own_fields_called_key_are_kept_apart(tmp_path: Path, together: bool) -> None:
    values = {
        "a": {"key": 1, "value": {"key": 2}},
        "b": {"key": "three"},
        "c": {"key": 4.5, "value.key": "x", "value": {"key:text": 6}},
    }
    with DiskCache(tmp_path) as cache:
        if together:
            cache.put_many(values)
        else:
            for key, value in values.items():
                cache.put(key, value)
        table = cache.to_table()
        assert len(set(table.column_names)) == table.num_columns
        found = {row.pop("key"): row for row in rows_of(table)}
        shown = {
            key: sorted(map(str, (item for item in row.values() if item is not None)))
            for key, row in found.items()
        }
        assert shown == {"a": ["1.0", "2"], "b": ["three"], "c": ["4.5", "6", "x"]}
        assert found["a"]["value.key"] == 2
        assert found["c"]["value.key:text"] == 6
        assert cache.get_table("b").to_pydict() == {"key": ["three"]}


def test_the_first_owner_of_a_name_keeps_it() -> None:
    sorts = [("key", "number"), ("value.key", "list"), ("key", "text"), ("x", "text")]
    sorts += [("x", "number"), ("x", "list"), ("x:list", "text"), ("value.key:number", "text")]
    assert tables._names(sorts, {"key"}) == {
        ("key", "number"): "value.key:number'",
        ("value.key", "list"): "value.key",
        ("key", "text"): "value.key:text",
        ("x", "text"): "x",
        ("x", "number"): "x:number",
        ("x", "list"): "x:list'",
        ("x:list", "text"): "x:list",
        ("value.key:number", "text"): "value.key:number",
    }


# Columns


def table_of(*values: Any) -> pa.Table:
    """A row for each value."""
    keys = [str(number) for number in range(len(values))]
    table = tables.encode_table(list(zip(keys, values, strict=True)), is_single=len(keys) == 1)
    table.validate(full=True)
    return table


def test_what_an_entry_lacks_is_null() -> None:
    table = table_of({"a": 1}, {"b": "x"}, {"a": 3, "b": None}, {"c": [1, 2]})
    assert table.to_pylist() == [
        {"a": 1, "b": None, "c": None},
        {"a": None, "b": "x", "c": None},
        {"a": 3, "b": None, "c": None},
        {"a": None, "b": None, "c": [1, 2]},
    ]


def test_numbers_become_the_type_that_holds_all() -> None:
    table = table_of(
        {"n": 2, "ids": np.array([1, 2], np.uint16), "t": "text"},
        {"n": 0.5, "ids": np.array([70_000], np.uint32), "t": b"\xff"},
        {"n": True, "ids": np.array([-1], np.int8), "t": "more"},
    )
    assert table.to_pydict() == {
        "n": [2.0, 0.5, 1.0],
        "ids": [[1, 2], [70_000], [-1]],
        "t": [b"text", b"\xff", b"more"],
    }
    assert table.schema.types == [pa.float64(), pa.list_(pa.int64()), pa.binary()]
    assert table_of({"n": True}, {"n": 2}).to_pydict() == {"n": [1, 2]}
    assert table_of({"n": True}, {"n": False}).to_pydict() == {"n": [True, False]}
    # As NumPy does it: rounded, where integers are beyond 2**53.
    assert table_of({"n": 2**62 + 1}, {"n": 0.5})["n"].to_pylist() == [2.0**62, 0.5]


@pytest.mark.parametrize(
    ("left", "right"),
    list(itertools.combinations(["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8"], 2))
    + list(itertools.product(["f2", "f4", "f8"], ["i1", "u1", "u2", "i4", "u4", "i8", "u8", "f4"])),
)
def test_lists_of_all_types_meet(left: str, right: str) -> None:
    table = table_of(np.array([1, 2], left), np.array([], right), np.array([3], right))
    assert table.to_pydict() == {"value": [[1, 2], [], [3]]}
    assert table.schema.types == [pa.list_(pa.from_numpy_dtype(np.promote_types(left, right)))]


def test_families_of_types_have_columns_of_their_own() -> None:
    table = table_of({"x": 1}, {"x": "one"}, {"x": [1]}, {"x": 2.5}, {"x": b"2"})
    assert table.to_pydict() == {
        "x": [1.0, None, None, 2.5, None],
        "x:text": [None, b"one", None, None, b"2"],
        "x:list": [None, None, [1], None, None],
    }


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_what_has_no_columns_is_shown_as_text(kind: str, tmp_path: Path) -> None:
    made: CacheLayer = MemoryCache() if kind == "memory" else DiskCache(tmp_path)
    values: dict[str, Any] = {
        "none": None,
        "list": [1, 2.5, None, {"x": b"y" * 100}],
        "date": {"when": datetime.date(2024, 2, 3)},
        "empty": {},
        "large": 10**5000,
        "surrogate": "\ud800",
        "wide": {f"k{number}": number for number in range(40)},
        "beside": {"a": 1, "rest": [None, "x" * 100]},
        "text": "plain",
    }
    with made as cache:
        cache.put_many(values)
        found = dict(zip(values, rows_of(cache.get_table(list(values))), strict=True))
        assert found["none"] == {"value": "None", "a": None}
        assert found["list"] == {"value": repr(values["list"]), "a": None}
        assert found["date"]["value"] == "{'when': datetime.date(2024, 2, 3)}"
        assert found["empty"]["value"] == "{}"
        assert found["large"]["value"].startswith("ValueError")
        assert found["surrogate"]["value"] == r"'\ud800'"
        assert found["wide"]["value"] == repr(values["wide"])[:199] + "…"
        assert found["beside"] == {"value": None, "a": 1}
        assert found["text"]["value"] == "plain"
        if isinstance(cache, DiskCache):
            assert {row.pop("key"): row for row in rows_of(cache.to_table())} == found


@settings(max_examples=60)
@given(data=st.data())
def test_tables_have_exactly_what_can_be_got(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    values = st.one_of(VALUES, st.sampled_from(list(samples(NAMES[:3]).values())))
    keys = st.sampled_from([f"k{number}" for number in range(12)])
    known: dict[str, Any] = {}
    folder = tmp_path_factory.mktemp("tables")
    compression = data.draw(st.sampled_from(["none", "lz4"]))
    with DiskCache(folder, compression) as cache:
        for _ in range(data.draw(st.integers(1, 5))):
            step = data.draw(st.sampled_from(["put", "put_many", "invalidate", "close"]))
            if step == "put":
                key, value = data.draw(keys), data.draw(values)
                cache.put(key, value)
                known[key] = value
            elif step == "put_many":
                batch = data.draw(st.dictionaries(keys, values, max_size=12))
                cache.put_many(batch)
                known.update(batch)
            elif step == "invalidate":
                key = data.draw(keys)
                cache.invalidate(key)
                known.pop(key, None)
            else:
                cache.close()
        whole = {row.pop("key"): row for row in rows_of(cache.to_table())}
        assert cache.keys() == sorted(known) == sorted(whole)
        assert len(set(cache.to_table().column_names)) == cache.to_table().num_columns
        order = data.draw(st.permutations([*known, "none"]))
        table = cache.get_table(order)
        order.remove("none")
        if len(order) == 1 and isinstance(known[order[0]], pa.Table | pa.RecordBatch):
            order = []
        rows = rows_of(table) if order else []
        assert len(rows) == len(order)
        for key, row in zip(order, rows, strict=True):
            check_row(row, known[key])
            check_row(whole[key], known[key])
        same = tables.encode_table([(key, known[key]) for key in order], is_single=len(order) == 1)
        if order:
            assert same.schema == table.schema
            assert without_addresses(same.to_pylist()) == without_addresses(rows)


def without_addresses(rows: list[dict[str, Any]]) -> str:
    """Rows to compare: Arrow's arrays say in their text where they lie."""
    return re.sub("0x[0-9a-f]+", "", repr(rows))


def check_row(row: dict[str, Any], value: Any) -> None:
    """Every column of a value, and nothing else, stands in a row."""
    columns = {c.name: c for c in encode(value).columns if c.name != BUFFERS}
    shown = {name: item for name, item in row.items() if item is not None}
    assert len(shown) == max(len(columns), 1)
    for name, column in columns.items():
        family = "list" if isinstance(column.data, np.ndarray) else "number"
        family = "text" if isinstance(column.data, bytes) else family
        own = [f"{name}:{family}", f"value.{name}:{family}", f"value.{name}", name]
        found = next(shown[title] for title in own if title in shown)
        if family == "text":
            found = found.encode() if isinstance(found, str) else found
            assert found == column.data
        else:
            np.testing.assert_array_equal(found, np.asarray(column.data).tolist())


# Without copies


def address_range(view: memoryview) -> tuple[int, int]:
    array = np.frombuffer(view, np.uint8)
    return array.ctypes.data, array.ctypes.data + array.nbytes


@pytest.mark.parametrize("sealed", [False, True])
def test_a_batch_is_a_view_of_the_file(tmp_path: Path, sealed: bool) -> None:
    with DiskCache(tmp_path) as cache:
        cache.put_many(samples(NAMES))
        if sealed:
            cache.close()
        (segment,) = cache._store.segments()
        view, _ = segment.blocks.block(next(segment.units()))
        start, end = address_range(view)
        for table in (
            cache.get_table(NAMES),
            cache.get_table(NAMES[10:40]),
            cache.to_table(),
            cache.to_table("ключ/00"),
        ):
            assert table.num_rows >= 10
            for name in ("input_ids", "grid", "text", "raw", "count", "loss"):
                (chunk,) = table.column(name).chunks
                buffers = [buffer for buffer in chunk.buffers() if buffer is not None]
                assert buffers
                assert all(start <= b.address and b.address + b.size <= end for b in buffers)


def test_a_table_outlives_its_cache(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.put_many(samples(NAMES))
    table = cache.get_table(NAMES)
    cache.invalidate()
    cache.close()
    del cache
    assert rows_of(table) == [as_row(value) for value in samples(NAMES).values()]


def test_pandas_is_not_imported_for_tables(tmp_path: Path) -> None:
    program = (
        "import sys, numpy as np; from easydata.cache.disk import DiskCache\n"
        "cache = DiskCache(sys.argv[1]); names = [str(n) for n in range(30)]\n"
        "cache.put_many({name: {'a': np.ones(3)} for name in names}); cache.put('x', None)\n"
        "tables = [cache.get_table([*names, 'x']), cache.get_table(names[::-1]),\n"
        "          cache.get_table([]), cache.get_table('x'), cache.to_table()]\n"
        "print([table.num_rows for table in tables], 'pandas' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout == "[31, 30, 0, 1, 31] False\n"


def test_rows_of_columns_with_more_bytes_than_offsets_count(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    many = 2**28 + 3
    with path.open("wb") as file:
        file.truncate(8 * (many + 4))
        file.seek(8 * many)
        file.write(np.arange(4.0).tobytes())
    with pa.memory_map(str(path)) as file:
        data = file.read_buffer()
    offsets = np.array([0, many, many + 1, many + 4], np.int32)
    items = pa.Array.from_buffers(pa.float64(), many + 4, [None, data])
    array = pa.Array.from_buffers(
        pa.list_(pa.float64()), 3, [None, pa.py_buffer(offsets)], children=[items]
    )
    assert tables._take(array, np.array([2, 1])).to_pylist() == [[1.0, 2.0, 3.0], [0.0]]


def test_rows_without_items_from_here_and_there(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path)
    cache.put_many({name: {"x": np.empty(0)} for name in "abc"})
    cache.close()
    cache.invalidate("b")
    assert cache.to_table().to_pylist() == [{"key": "a", "x": []}, {"key": "c", "x": []}]


def test_what_a_run_is() -> None:
    for rows, expected in (([3, 4, 5], True), ([7], True), ([3, 5, 4, 6], False), ([1, 3], False)):
        assert tables.is_run(np.array(rows)) is expected


def test_many_copies_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = samples(NAMES)
    with DiskCache(tmp_path) as cache:
        for number, (name, value) in enumerate(values.items()):
            cache.put(name, value if number % 3 else {"text": name})
        expected = [
            as_row(value) if number % 3 else dict.fromkeys(value) | {"text": name}
            for number, (name, value) in enumerate(values.items())
        ]
        whole = cache.get_table(NAMES[1:])
        assert whole["text"].num_chunks == 1
        assert rows_of(whole.select(sorted(whole.column_names))) == [
            dict(sorted(row.items())) for row in expected[1:]
        ]
        monkeypatch.setattr(tables, "_COPIED_ROWS", 7)
        assert cache.get_table(NAMES[1:]).equals(whole)
        assert cache.get_table(NAMES[1:])["text"].num_chunks == 7
        monkeypatch.setattr(tables, "_COPIED_BYTES", 100)
        assert cache.get_table(NAMES[1:]).equals(whole)
        assert cache.get_table(NAMES[1:])["text"].num_chunks > 20


# What finds many at once


@settings(max_examples=100)
@given(
    entries=st.lists(HASHES, max_size=60),
    asked=st.lists(HASHES, max_size=60),
    few=st.sampled_from([0, 5, 1000]),
)
def test_finding_many_is_finding_each(entries: list[int], asked: list[int], few: int) -> None:
    numbers = np.arange(len(entries), dtype=np.uint64)
    table = HashTable.of(np.array(entries, np.uint64), numbers)
    wanted = np.array(asked + entries, np.uint64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("easydata.cache.log.table._FEW", few)
        found, places = table.find_many(wanted)
    assert (found.dtype, places.dtype) == (np.bool_, np.uint64)
    for key_hash, is_found, place in zip(wanted.tolist(), found, places, strict=True):
        slot = table.find(key_hash)
        assert is_found == (slot is not None)
        assert slot is None or place == table.place(slot)


def test_finding_many_in_a_table_that_grows(tmp_path: Path) -> None:
    table = HashTable.create(tmp_path / "t", 4096)
    chance = np.random.default_rng(0)
    hashes = chance.integers(0, 2**64, 2700, np.uint64)
    for at, key_hash in enumerate(hashes[:2600].tolist()):
        table.add(key_hash, at)
    found, places = table.find_many(hashes)
    assert found.tolist() == [True] * 2600 + [False] * 100
    assert places[:2600].tolist() == list(range(2600))
    table.add(int(hashes[2600]), 7)
    assert table.find_many(hashes)[0].sum() == 2601


def test_finding_many_ends_where_no_slot_is_empty(tmp_path: Path) -> None:
    HashTable.create(tmp_path / "t", 8)
    data = bytearray((tmp_path / "t").read_bytes())
    data[64:] = np.full((8, 2), 77, "<u8").tobytes()
    (tmp_path / "t").write_bytes(data)
    found, _ = HashTable(tmp_path / "t").find_many(np.arange(100, dtype=np.uint64))
    assert found.nonzero()[0].tolist() == [77]


def test_keys_of_a_block() -> None:
    codec = EntryCodec(EntryLayout([("n", pa.int64())]))
    names = [b"ab", b"", "ключ".encode(), b"c", b"de"]
    entries = [Entry(name, 1, 2, NEVER, b"", b"1", (3,)) for name in names]
    rows = codec.locate_rows(bytes(codec.encode_rows(entries)), 0)
    assert rows.keys() == names
    assert rows.have_keys(0, names)
    assert rows.have_keys(1, names[1:4])
    assert rows.have_keys(4, [b"de"])
    assert not rows.have_keys(1, names[:2])
    assert not rows.have_keys(4, [b"de", b""])  # beyond the end
    assert not rows.have_keys(3, [b"cd", b"e"])  # the same letters
    assert not rows.have_keys(3, [b"c", b"df"])
