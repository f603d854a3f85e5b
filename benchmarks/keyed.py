"""The keyed cache on disk and in memory, against diskcache, joblib.Memory, pickles, cachetools."""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.common import Bar, Options, Report, Spread
from benchmarks.fresh import call_fresh
from benchmarks.keyed_cases import (
    DISKCACHE,
    EASYDATA,
    SIDES,
    Figures,
    as_lists,
    check,
    check_table,
    easydata_value,
    locked_lru,
    seconds_of,
    seconds_of_call,
    seconds_of_puts,
    token_dicts,
)
from benchmarks.keyed_processes import fill, open_and_get, operations_per_second

_PEERS = ("diskcache", "joblib", "cachetools")
_ORIGIN = "issue 3"
_CACHETOOLS = "cachetools.LRUCache, a lock"
_IN_MEMORY = "get, in memory, hot"
_TOGETHER, _COMPACTED = "put together", "put singly, compacted"
_FIRST, _HOT = "first touch", "hot"
_HOT_PASSES = 5  # one pass takes a few milliseconds only
_OTHER_FILES = 5  # marker, control, and the locks

_Values = Mapping[str, dict[str, Any]]


def run(options: Options) -> Report:
    arrays = token_dicts(options.pick(5000, 60))
    batch = options.pick(1000, 20)
    million = options.pick(1_000_000, 3000)
    report = Report(
        "how fast are put and get of tokenized dicts, and how much disk do they take?",
        [
            f"{len(arrays):,} dicts of input_ids uint16 and attention_mask uint8 with 50–500 "
            "tokens; where it says so, the same as Python lists",
            "; ".join(f"{name} {version(name)}" for name in _PEERS) + ", each as it comes",
            "in turn, after one round that is not counted; each result is dropped before the next "
            "and compared with what was put after the clock has stopped",
            "'first touch': a new object, page cache warm, nothing checked; 'hot': again. "
            "'growing': the one who put has not closed yet",
            f"joblib.Memory with a twentieth of the data; batches of {batch:,}; "
            "the ratio is that to diskcache's single calls, except where another is named",
        ],
    )
    figures = Figures()
    for figures.counts in options.rounds(5):
        _single_calls(options, figures, arrays, "arrays")
        _single_calls(options, figures, as_lists(arrays), "lists")
        _batches(options, figures, arrays, batch)
        _memory_hits(options, figures, arrays)
    _report_times(report, figures)
    _report_opening(report, options, million, batch)
    _report_processes(report, options, len(arrays))
    _report_bytes(report, options, arrays, batch)
    return report


def _single_calls(options: Options, figures: Figures, values: _Values, kind: str) -> None:
    """Single calls: put and get of one entry after another, on every side."""
    for name, side in SIDES.items():
        items = list(values.items())[: max(1, int(len(values) * side.share))]
        folder = options.scratch / "keyed"
        writer = side.open(folder)
        figures.add(f"put, {kind}", name, seconds_of_puts(writer.put, items), len(items))
        if name in {EASYDATA, DISKCACHE}:
            _read_twice(figures, folder, dict(items), name, f"get, growing, {kind}")
        seconds = seconds_of_call(writer.close)
        if name == EASYDATA:
            figures.add(f"sealing after put, {kind}", name, seconds, len(items))
        _read_twice(figures, folder, dict(items), name, f"get, {kind}")
        shutil.rmtree(folder)


def _read_twice(figures: Figures, folder: Path, values: _Values, name: str, what: str) -> None:
    side = SIDES[name]
    handle = side.open(folder)
    keys = list(values)
    for state, order in ((_FIRST, keys), (_HOT, _HOT_PASSES * keys)):
        figures.add(f"{what}, {state}", name, seconds_of(handle.get, order), len(order))
    check(values, lambda key: side.value(handle.get(key)))
    handle.close()


def _batches(options: Options, figures: Figures, values: _Values, batch: int) -> None:
    """Entries that were put in batches, and entries that were put singly and then compacted."""
    items = list(values.items())
    folders = {name: options.scratch / name for name in (_TOGETHER, _COMPACTED)}
    cache = SIDES[EASYDATA].open(folders[_TOGETHER]).cache
    batches = [dict(some) for some in _in_batches(items, batch)]
    figures.add("put_many", EASYDATA, seconds_of(cache.put_many, batches), len(items))
    seconds = seconds_of_call(cache.close)
    figures.add("sealing after put_many", EASYDATA, seconds, len(items))
    singly = SIDES[EASYDATA].open(folders[_COMPACTED]).cache
    for key, value in items:
        singly.put(key, value)
    singly.close()
    figures.add("compact()", EASYDATA, seconds_of_call(singly.compact), len(items))
    for name, folder in folders.items():
        _read_twice(figures, folder, values, EASYDATA, f"get of those {name}")
        for method in ("get_many", "get_table"):
            _read_batches(figures, folder, values, batch, method, name)
        shutil.rmtree(folder)


def _read_batches(
    figures: Figures, folder: Path, values: _Values, batch: int, method: str, name: str
) -> None:
    cache = SIDES[EASYDATA].open(folder).cache
    read = getattr(cache, method)
    keys = list(values)
    shuffled = random.Random(0).sample(keys, len(keys))
    for state, passes, order in (
        (_FIRST, 1, keys),
        (_HOT, _HOT_PASSES, keys),
        ("hot, random order", 1, shuffled),
    ):
        seconds = seconds_of(read, passes * _in_batches(order, batch))
        figures.add(f"{method} of those {name}, {state}", EASYDATA, seconds, passes * len(keys))
        for some in _in_batches(order, batch):
            found = read(some)
            if method == "get_many":
                got = {key: value for key, (value, _) in found.items()}
                check({key: values[key] for key in some}, got.__getitem__)
            else:
                check_table([values[key] for key in some], found)
    cache.close()


def _memory_hits(options: Options, figures: Figures, values: _Values) -> None:
    from easydata.cache.memory import MemoryCache
    from easydata.cache.tree import TreeCacheManager

    memory = MemoryCache(2 * len(values))
    tree = TreeCacheManager(options.scratch / "tree", 2 * len(values))
    memory.put_many(values)
    tree.put_many(values)

    def get_from_memory(key: str) -> Any:
        return memory.get(key)

    def get_from_tree(key: str) -> Any:
        return tree.get(key)

    keys = list(values)
    gets = {
        _CACHETOOLS: locked_lru(values),
        "MemoryCache": get_from_memory,
        "TreeCacheManager": get_from_tree,
    }
    for side, get in gets.items():
        for what, order in (
            ("get, in memory, first after put_many", keys),
            (_IN_MEMORY, _HOT_PASSES * keys),
        ):
            figures.add(what, side, seconds_of(get, order), len(order))
    check(values, lambda key: easydata_value(memory.get(key)))
    check(values, lambda key: easydata_value(tree.get(key)))
    tree.close()
    shutil.rmtree(options.scratch / "tree")


def _in_batches(sequence: list[Any], size: int) -> list[list[Any]]:
    return [sequence[first : first + size] for first in range(0, len(sequence), size)]


def _add(report: Report, what: str, side: str, value: Any, unit: str, ratio: Any = "–") -> None:
    report.rows.append({"what": what, "side": side, "value": value, "unit": unit, "ratio": ratio})


def _report_times(report: Report, figures: Figures) -> None:
    put, get = ("put, arrays", DISKCACHE), (f"get, arrays, {_HOT}", DISKCACHE)
    for what in figures.names:
        for side in figures.sides(what):
            base = _base(what, figures)
            ratio = figures.ratio(base, (what, side)) if base else "–"
            _add(report, what, side, figures.microseconds(what, side), "µs", ratio)
    for what, bound in (
        ("put, arrays", 6.0),
        (f"get, arrays, {_FIRST}", 2.0),
        (f"get, growing, arrays, {_FIRST}", 2.0),
        (f"get, arrays, {_HOT}", 3.0),
        (f"get, growing, arrays, {_HOT}", 3.0),
        ("put, lists", 2.5),
        (f"get, lists, {_FIRST}", 1.3),
        (f"get, lists, {_HOT}", 1.3),
    ):
        ratio = figures.ratio((what, DISKCACHE), (what, EASYDATA))
        report.bars.append(Bar(f"{what}, diskcache / easydata", ratio, bound, True, _ORIGIN))
    for what, base, bound in (
        ("put_many", put, 15.0),
        (f"get_many of those {_TOGETHER}, {_HOT}", get, 10.0),
        (f"get_table of those {_TOGETHER}, {_HOT}", get, 20.0),
    ):
        ratio = figures.ratio(base, (what, EASYDATA))
        report.bars.append(Bar(f"{what}, diskcache / easydata", ratio, bound, True, _ORIGIN))
    for what in ("get", "get_many", "get_table"):
        together, compacted = (
            (f"{what} of those {name}, {_HOT}", EASYDATA) for name in (_TOGETHER, _COMPACTED)
        )
        ratio = figures.ratio(together, compacted)
        name = f"{what}, hot, those {_COMPACTED} / {_TOGETHER}"
        report.bars.append(Bar(name, ratio, 0.9, True, _ORIGIN))
    for side in ("MemoryCache", "TreeCacheManager"):
        ratio = figures.ratio((_IN_MEMORY, _CACHETOOLS), (_IN_MEMORY, side))
        report.bars.append(Bar(f"{side} / cachetools, in memory", ratio, 0.4, True, _ORIGIN))


def _base(what: str, figures: Figures) -> tuple[str, str] | None:
    """What the ratio of this measurement is to."""
    for base in (DISKCACHE, _CACHETOOLS):
        if base in figures.sides(what):
            return what, base
    if what == "put_many":
        return "put, arrays", DISKCACHE
    if what.startswith("get"):
        state = _FIRST if what.endswith(_FIRST) else _HOT
        return f"get, arrays, {state}", DISKCACHE
    return None


def _report_opening(report: Report, options: Options, entries: int, batch: int) -> None:
    folder = options.scratch / "million"
    seconds = call_fresh(fill, str(folder), entries, batch)
    what = f"{entries:,} small entries"
    _add(report, f"{what}: put_many and sealing", EASYDATA, 1e6 * seconds, "µs")
    tables = sum(path.stat().st_size for path in folder.glob("*.table")) / entries
    files = sum(path.stat().st_size for path in folder.iterdir()) / entries
    _add(report, f"{what}: tables", EASYDATA, tables, "bytes")
    _add(report, f"{what}: all files", EASYDATA, files, "bytes")
    numbers = random.Random(0)
    for state, bound in (("with tables", 30.0), ("without tables", 1000.0)):
        milliseconds = []
        for counts in options.rounds(7):
            if state == "without tables":
                for path in folder.glob("*.table"):
                    path.unlink()
            found = call_fresh(open_and_get, str(folder), numbers.randrange(entries))
            if found["entries"] != entries:
                raise RuntimeError(f"{found['entries']} of {entries} entries are there.")
            if counts:
                milliseconds.append(found["ms"])
        spread = Spread.of(milliseconds)
        _add(report, f"{what}: open, first get, {state}", EASYDATA, spread, "ms")
        name = f"{what}, fresh process, open and first get {state}, ms"
        report.bars.append(Bar(name, spread.median, bound, False, _ORIGIN))
    report.bars.append(Bar("bytes of tables for each entry", tables, 100.0, False, _ORIGIN))
    shutil.rmtree(folder)


def _report_processes(report: Report, options: Options, entries: int) -> None:
    operations = options.pick(20_000, 50)
    rates: dict[str, list[float]] = {EASYDATA: [], DISKCACHE: []}
    for counts in options.rounds(5):
        for side, found in rates.items():
            folder = options.scratch / "processes"
            rate = operations_per_second(side, folder, entries, operations)
            shutil.rmtree(folder)
            if counts:
                found.append(rate)
    spreads = {side: Spread.of(found) for side, found in rates.items()}
    base = spreads[DISKCACHE].median
    for side, spread in spreads.items():
        what = "4 processes, 50 % puts"
        _add(report, what, side, spread, "operations/s", spread.median / base)
    ratio = spreads[EASYDATA].median / base
    name = "4 processes, 50 % puts, easydata / diskcache"
    report.bars.append(Bar(name, ratio, 4.0, True, _ORIGIN))


def _report_bytes(report: Report, options: Options, values: _Values, batch: int) -> None:
    from easydata.cache.disk import DiskCache

    folder = options.scratch / "bytes"
    handle = SIDES[DISKCACHE].open(folder)
    for key, value in values.items():
        handle.put(key, value)
    handle.close()
    base = _size(folder) / len(values)
    shutil.rmtree(folder)
    what = "on disk, for each entry"
    _add(report, what, DISKCACHE, base, "bytes", 1.0)
    for codec in ("none", "lz4", "zstd", "gzip"):
        with DiskCache(folder, codec) as cache:
            for some in _in_batches(list(values.items()), batch):
                cache.put_many(some)
        check(values, lambda key: easydata_value(cache.get(key)))
        size = _size(folder) / len(values)
        _add(report, f"{what}, {codec}", EASYDATA, size, "bytes", base / size)
        if codec == "zstd":
            report.bars.append(
                Bar("bytes on disk, zstd, easydata / diskcache", size / base, 0.5, False, _ORIGIN)
            )
            segments = len([*folder.glob("*.arrow"), *folder.glob("*.parquet")])
            files = len(list(folder.iterdir()))
            name = f"files of {segments} segments"
            most = 2.0 * segments + _OTHER_FILES
            report.bars.append(Bar(name, float(files), most, False, _ORIGIN))
        shutil.rmtree(folder)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
