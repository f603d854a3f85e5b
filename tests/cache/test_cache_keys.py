"""compute_key: one key for what is the same, another for what is not, none for what has no form."""

from __future__ import annotations

import collections
import datetime as dt
import enum
import functools
import http
import math
import os
import pathlib
import random
import re
import struct
import subprocess
import sys
import zoneinfo
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from easydata.cache.keys import compute_key
from easydata.errors import UsageError
from easydata.metadata import CacheMetadata


class Colour(enum.Enum):
    RED = 1
    GREEN = 2
    ALSO_RED = 1  # noqa: PIE796


class Level(enum.IntEnum):
    LOW = 1


class Shade(enum.Enum):
    RED = 1


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


@dataclass
class Model:
    name: str
    layers: Any = 2


@dataclass(frozen=True, slots=True)
class Other:
    name: str
    layers: Any = 2


@dataclass
class Half:
    name: str
    made: int = field(init=False)


@dataclass
class Keyed(dict[str, int]):
    name: str = ""


class Point(NamedTuple):
    x: int


def of_a_local_class() -> Any:
    @dataclass
    class Local:
        x: int = 1

    return Local()


STRUCTURED = np.dtype([("a", "i1"), ("b", ">f8", (2,)), ("c", [("d", "U3")])], align=True)
BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
EAST = dt.timezone(dt.timedelta(hours=1))

# Never change a key: everything that a user has cached would be computed again.
GOLDEN: dict[str, tuple[Any, str]] = {
    "none": (None, "059738b8dabbb8846fb7362a92054cd4"),
    "true": (True, "4fb70c504be3b2fcf99565fd23293672"),
    "zero": (0, "c852232e50c2d40347355f68d279d3e5"),
    "negative": (-129, "80676a58a358a3c1e7d8aa173718a680"),
    "large": (10**5000, "a74a3458bf314dc9c3746abbff3c6845"),
    "float": (0.1, "8631ca6cde6868353a673895f21a6b69"),
    "nan": (math.nan, "06b7b7dde925967ecc62de65da68f669"),
    "str": ("größe 😀", "46a831bedbec33f8d5a7837f107d5387"),
    "surrogate": ("\udcff", "7057171b04bf4bddae8c9f4459b77696"),
    "bytes": (b"\x00\xff", "528d5302b7eeff512735cadb70bf5d51"),
    "list": ([1, [2, []]], "791f5f2da292cfb613470bb792f864f5"),
    "tuple": ((1, (2, ())), "b0ffed5d130654ddb033adf834dbe5b8"),
    "set": ({"b", "a", 3, None}, "fd416c1619a9f4f2e9bee048f04ea85a"),
    "frozenset": (frozenset({1, (2,)}), "5e7d6649e75a1f540708c3ee88aee517"),
    "dict": (
        {"b": 1, "a": [None], 7: 2, (1, b"x"): 3, None: 4, 1.5: 5, False: 6},
        "3d356ed95d6db0642170dfaf0aafb00b",
    ),
    "path": (pathlib.PurePosixPath("a//b/./c"), "0b95dc066e7487f5cc24878d254819ba"),
    "windows path": (pathlib.PureWindowsPath("C:\\a/b"), "4e86f21713bf84cf1827d2cdfeb02c7b"),
    "date": (dt.date(2024, 2, 29), "e3a6c341bd08a53ef75fdd59a34491a4"),
    "datetime": (dt.datetime(2024, 2, 29, 1, 2, 3, 4), "c2103407909ee06c7cd9717b8341d59f"),
    "zoned": (
        dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
        "9cd26650c9911d72ad091d5db551d310",
    ),
    "time": (dt.time(1, 2, tzinfo=dt.UTC), "74a4aa23132a713eef40ad03efe1ff97"),
    "timedelta": (
        dt.timedelta(days=-1, seconds=5, microseconds=7),
        "4a04c258ec27e5dd5dc74186d2a6f2a5",
    ),
    "enum": (http.HTTPStatus.OK, "7a139d46345614982d694d8866ff20a4"),
    "flag": (re.IGNORECASE | re.MULTILINE, "66defc72dd10fd6130d9868d7faa1e23"),
    "metadata": (CacheMetadata(created_at=1.0, extra={"a": 1}), "48bb09e69848d68b2e1aeb153333dd71"),
    "scalar": (np.float32(1.5), "bc60487a1ba79483b9cad85a54d215d9"),
    "str scalar": (np.str_("a"), "2508c120e90fc3248963c08bb423a3aa"),
    "array": (np.arange(6, dtype="<u2").reshape(2, 3), "0051b7360affd0dc0c7b09d7d6de2811"),
    "bfloat16": (np.ones(2, ml_dtypes.bfloat16), "aae10e37b45d0ce79eb1c404a192d39e"),
    "structured": (np.array([(1, [2, 3], ("x",))], STRUCTURED), "442a7c9db83d6342a5de44849bbbfb66"),
}

# In each group no two are the same.
DIFFERENT: dict[str, list[Any]] = {
    "one": [
        1,
        1.0,
        True,
        "1",
        b"1",
        [1],
        (1,),
        {1},
        frozenset({1}),
        {1: 1},
        {1: True},
        {"1": 1},
        {1.0: 1},
        {True: 1},
        {b"1": 1},
        {(1,): 1},
        np.int64(1),
        np.int32(1),
        np.float64(1),
        np.bool_(True),
        np.array(1),
        np.array([1]),
        np.array([[1]]),
        np.array([1], ">i8"),
        np.str_("1"),
        np.bytes_(b"1"),
        np.array(["1"]),
        Level.LOW,
        Colour.RED,
        Shade.RED,
        Rights.READ,
        pathlib.PurePosixPath("1"),
        dt.timedelta(1),
    ],
    "nothing": [
        None,
        "None",
        "",
        b"",
        [],
        (),
        {},
        set(),
        frozenset(),
        0,
        False,
        0.0,
        -0.0,
        np.array([]),
        np.array([], "f4"),
        np.zeros((0, 2)),
        np.zeros((2, 0)),
        np.str_(""),
        np.bytes_(b""),
        np.bytes_(b"\0"),
        pathlib.PurePosixPath(),
        pathlib.PureWindowsPath(),
        {None: None},
        [None],
        np.str_("\x00"),
        np.str_("\x00\x00"),
    ],
    "nesting": [
        [[1], 2],
        [[1, 2]],
        [[[1, 2]]],
        [1, 2],
        [[1], [2]],
        [[], 1, 2],
        [1, 2, []],
        {"a": {"b": 1}},
        {"a": {}, "b": 1},
        {"a": "b", "b": 1},
        ["a", "b", 1],
        {"a": ["b", 1]},
    ],
    "text": [
        "ab",
        ["a", "b"],
        ["ab", ""],
        ["", "ab"],
        "a\0b",
        b"ab",
        "é",
        "e\u0301",
        "\udce9",
        "\ud800\udc00",
        "\U00010000",
    ],
    "large": [2**63, -(2**63), 2**64, 2**63 - 1, float(2**63), 255, -1, 256, 127, 128, -128],
    "float": [math.nan, math.inf, -math.inf, 5e-324, "nan", np.float64("nan")],
    "path": [
        pathlib.PurePosixPath("a/b"),
        pathlib.PureWindowsPath("a/b"),
        "a/b",
        pathlib.PurePosixPath("a\\b"),
    ],
    "time": [
        dt.date(2024, 1, 1),
        dt.datetime(2024, 1, 1),
        "2024-01-01",
        np.datetime64("2024-01-01"),
    ]
    + [np.datetime64("2024-01-01", "s"), dt.datetime(2024, 1, 1, fold=1), dt.time(0)]
    + [dt.datetime(2024, 1, 1, tzinfo=zone) for zone in (dt.UTC, BERLIN, EAST)]
    + [dt.time(0, tzinfo=dt.UTC), dt.time(0, fold=1), dt.timedelta(0), dt.timedelta(0, 1)],
    "class": [
        Model("a"),
        Other("a"),
        {"name": "a", "layers": 2},
        Model("a", 2.0),
        Colour.GREEN,
        "GREEN",
        2,
        Rights.WRITE,
        Rights.READ | Rights.WRITE,
        Rights(0),
    ],
    "array": [
        np.zeros(2, kind) for kind in ("u2", "i2", "f2", "S2", "V2", ">u2", ml_dtypes.bfloat16)
    ]
    + [np.zeros(2, [("a", "u2")]), np.zeros(2, [("b", "u2")]), np.zeros(2, [("a", "u1", (2,))])]
    + [np.zeros(2, [("a", "u1"), ("b", "u1")]), np.zeros(2, [("a", "u1", (2, 1))])]
    + [
        np.zeros(1, [("a", "u2")])[0],
        np.zeros(2, "U1"),
        np.zeros(2, "m8[s]"),
        np.zeros(2, "m8[h]"),
    ],
}

SAME: dict[str, list[Any]] = {
    "dict": [{"a": 1, "b": 2}, {"b": 2, "a": 1}, dict(zip("ba", [2, 1], strict=True))],
    "set": [{"a", "b", 1}, {1, "b", "a"}],
    "nan": [math.nan, -math.nan, struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]],
    "path": [
        pathlib.PurePosixPath("a/b"),
        pathlib.PosixPath("a//b"),
        pathlib.PurePosixPath("a", "b"),
    ],
    "layout": [np.eye(3)[::2], np.asfortranarray(np.eye(3)[::2]), np.eye(3)[::2].copy()],
    "alias": [Colour.RED, Colour.ALSO_RED],
    "zone": [dt.time(0, tzinfo=dt.UTC), dt.time(0, tzinfo=dt.timezone(dt.timedelta(0), "name"))],
    "shared": [[[1], [1]], [*[[1]] * 2]],
}


class TestForm:
    def test_prefix_config_and_content(self) -> None:
        key = compute_key({"a": 1})
        assert len(key) == 32
        assert set(key) <= set("0123456789abcdef")
        assert compute_key({"a": 1}, prefix="p_") == f"p__{key}"
        both = compute_key({"a": 1}, prefix="p", include_content_hash=True, content="text")
        prefix, config, content = both.split("_")
        assert (prefix, config, len(content)) == ("p", key, 32)
        assert compute_key({"a": 1}, "", True, "text") == f"{key}_{content}"

    def test_contents_that_differ(self) -> None:
        contents = ["", b"", "a", b"a", ["a"], 0, np.zeros(2)]
        keys = {compute_key({}, "", True, content) for content in contents}
        assert len(keys) == len(contents)

    def test_the_hash_of_a_content_is_not_that_of_an_equal_config(self) -> None:
        config, content = compute_key("x", "", True, "x").split("_")
        assert config != content

    def test_content_is_missing_or_would_be_ignored(self) -> None:
        with pytest.raises(UsageError, match="needs a content"):
            compute_key({}, include_content_hash=True)
        with pytest.raises(UsageError, match="would be ignored"):
            compute_key({}, content="")

    def test_prefix_is_a_string(self) -> None:
        with pytest.raises(UsageError, match="prefix is 3"):
            compute_key({}, prefix=3)  # type: ignore[arg-type]

    def test_the_encoding_is_the_one_described(self) -> None:
        def piece(tag: bytes, count: int, payload: bytes) -> bytes:
            return tag + struct.pack("<Q", count) + payload

        text = functools.partial(piece, b"S")
        items = piece(b"I", 1, b"\xff") + piece(b"N", 0, b"") + piece(b"B", 1, b"\1")
        value = piece(b"L", 4, items + piece(b"F", 8, struct.pack("<d", 1.5)))
        shape = piece(b"T", 1, piece(b"I", 1, b"\1"))
        array = text(3, b"<u2") + shape + piece(b"Y", 2, b"\5\0")
        entries = text(1, b"a") + value + text(1, b"b") + piece(b"A", 3, array)
        expected = b"easydata config 1\n" + piece(b"D", 4, entries)
        config = {"b": np.array([5], "<u2"), "a": [-1, None, True, 1.5]}
        assert compute_key(config) == xxhash.xxh3_128_hexdigest(expected)


class TestGolden:
    @pytest.mark.parametrize("name", GOLDEN)
    def test_keys_never_change(self, name: str) -> None:
        value, key = GOLDEN[name]
        assert compute_key(value) == key

    def test_keys_are_the_same_in_every_process(self) -> None:
        program = (
            "from easydata.cache.keys import compute_key\n"
            "from pathlib import PurePosixPath\n"
            "words = [f'word {i}' for i in range(50)]\n"
            "config = {'set': set(words), 'of sets': {frozenset(words[:i]) for i in range(9)},\n"
            "    'dict': dict.fromkeys(set(words)), 'path': PurePosixPath('a'), 'x': [1.5, None]}\n"
            "print(compute_key(config, 'p', True, set(words)))"
        )
        running = [
            subprocess.Popen(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONHASHSEED": str(seed)},
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(20)
        ]
        keys = {process.communicate()[0] for process in running}
        assert [process.returncode for process in running] == [0] * 20
        assert keys == {"p_d4f1c3a7025f16d28c56b727706b3a61_7f5ca776818df2d1052e34fe65f5fe74\n"}


class TestSameAndDifferent:
    @pytest.mark.parametrize("values", DIFFERENT.values(), ids=DIFFERENT)
    def test_no_two_are_the_same(self, values: list[Any]) -> None:
        for wrap in (lambda value: value, lambda value: {"a": [value]}):
            keys = [compute_key(wrap(value)) for value in values]
            twice = [values[i] for i, key in enumerate(keys) if key in keys[:i]]
            assert twice == []

    @pytest.mark.parametrize("values", SAME.values(), ids=SAME)
    def test_all_are_the_same(self, values: list[Any]) -> None:
        assert len({compute_key(value) for value in values}) == 1

    def test_padding_between_fields_does_not_count(self) -> None:
        zeros = np.zeros(2 * STRUCTURED.itemsize, "u1").view(STRUCTURED)
        ones = np.full(2 * STRUCTURED.itemsize, 255, "u1").view(STRUCTURED)
        for name in ("a", "b"):
            ones[name] = 0
        ones["c"]["d"] = ""
        assert zeros.tobytes() != ones.tobytes()
        assert compute_key(zeros) == compute_key(ones)
        assert compute_key(zeros[0]) == compute_key(ones[0]) != compute_key(zeros)


LEAVES = st.one_of(
    st.sampled_from([None, False, True, 0, 1, -1, 255, 0.0, -0.0, 1.0, math.nan, "", "1", "None"]),
    st.sampled_from([b"", b"1", "I", b"I\0", "\ud800", dt.date(2024, 1, 1), Colour.RED]),
    st.integers(),
    st.floats(),
    st.text(st.characters(), max_size=3),
    st.binary(max_size=3),
)
KEYS = st.one_of(
    st.sampled_from([None, True, 0, 1.5, "1", b"1", "a", "b"]), st.tuples(st.integers())
)
CONFIGS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(KEYS, inner, max_size=4),
        st.frozensets(LEAVES, max_size=3),
        st.sets(LEAVES, max_size=3),
        st.builds(Model, st.just("m"), inner),
    ),
    max_leaves=8,
)


def same(a: Any, b: Any) -> bool:
    """An oracle: compares without encoding, ordering or hashing."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or (
            a == b and math.copysign(1, a) == math.copysign(1, b)
        )
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, dict):
        return matched(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return matched(list(a), list(b))
    if isinstance(a, Model):
        return same(vars(a), vars(b))
    return bool(a == b)


def matched(some: list[Any], others: list[Any]) -> bool:
    for item in some:
        index = next((i for i, other in enumerate(others) if same(item, other)), None)
        if index is None:
            return False
        others.pop(index)
    return not others


def rebuilt(value: Any, rng: random.Random) -> Any:
    """The same value from new objects, its dicts and sets in another order."""
    if isinstance(value, dict):
        items = [(rebuilt(key, rng), rebuilt(item, rng)) for key, item in value.items()]
        rng.shuffle(items)
        return dict(items)
    if isinstance(value, set | frozenset):
        members = [rebuilt(item, rng) for item in value]
        rng.shuffle(members)
        return type(value)(members)
    if isinstance(value, list | tuple):
        return type(value)([rebuilt(item, rng) for item in value])
    if isinstance(value, Model):
        return Model(value.name, rebuilt(value.layers, rng))
    return struct.unpack("d", struct.pack("d", value))[0] if type(value) is float else value


class TestProperties:
    @given(CONFIGS, CONFIGS)
    def test_two_configs_share_a_key_exactly_if_they_are_the_same(self, a: Any, b: Any) -> None:
        assert (compute_key(a) == compute_key(b)) == same(a, b)

    @given(CONFIGS, st.randoms(use_true_random=False))
    def test_the_same_config_has_the_same_key(self, config: Any, rng: random.Random) -> None:
        again = rebuilt(config, rng)
        assert same(config, again)
        assert compute_key(config) == compute_key(again)

    @given(st.lists(LEAVES, min_size=2, max_size=4))
    def test_where_items_are_cut_counts(self, items: list[Any]) -> None:
        nested = [[items[:i], items[i:]] for i in range(len(items) + 1)]
        assert len({compute_key(value) for value in nested}) == len(nested)


def cycle(kind: str) -> Any:
    inner: list[Any] = [1]
    inner.append({"again": inner} if kind == "dict" else (inner,))
    return inner


def deep() -> Any:
    value: Any = 1
    for _ in range(101):
        value = [value]
    return value


def member_from_nowhere() -> Any:
    member = object.__new__(Colour)
    member._name_, member._value_ = "BLUE", 3
    return member


REFUSED: list[tuple[Callable[[], Any], str]] = [
    (object, "config['a'][1] is of type object, "),
    (lambda: len, "config['a'][1] is of type builtin_function_or_method, "),
    (lambda: lambda: 0, "config['a'][1] is of type function, "),
    (lambda: int, "config['a'][1] is of type type, "),
    (lambda: Model, "config['a'][1] is of type type, "),
    (lambda: (x for x in "a"), "config['a'][1] is of type generator, "),
    (lambda: bytearray(b"a"), "convert it with bytes(...)"),
    (lambda: collections.OrderedDict(a=1), "collections.OrderedDict, a kind of dict; convert"),
    (lambda: Point(1), "Point, a kind of tuple; convert it with tuple(...)"),
    (lambda: 1j, "config['a'][1] is of type complex, "),
    (lambda: range(3), "config['a'][1] is of type range, "),
    (lambda: {"b": {3: object()}}, "config['a'][1]['b'][3] is of type object"),
    (lambda: {"x" * 100: object()}, "config['a'][1]['" + "x" * 78 + "…] is of type object"),
    (lambda: {10**5000: object()}, "config['a'][1][…] is of type object"),
    (lambda: {b"b": (1, object())}, "config['a'][1][b'b'][1] is of type object"),
    (lambda: {(object,)}, "config['a'][1]{…}[0] is of type type"),
    (lambda: Model("a", [object()]), "config['a'][1].layers[0] is of type object"),
    (lambda: {object(): 1}, "config['a'][1] has a key of type object"),
    (lambda: {(1, (frozenset(),)): 1}, "config['a'][1] has a key of type frozenset"),
    (lambda: {np.float64(1): 1}, "config['a'][1] has a key of type numpy.float64"),
    (lambda: {Level.LOW: 1}, "Level; a key must be"),
    (lambda: {math.nan: 1, -math.nan: 2}, "config['a'][1] has two keys that are NaN"),
    (lambda: cycle("dict"), "config['a'][1][1]['again'] contains itself"),
    (lambda: cycle("tuple"), "config['a'][1][1][0] contains itself"),
    (deep, "is nested more than 100 deep"),
    (of_a_local_class, "Local, that cannot be found by its name"),
    (lambda: enum.Enum("Unknown", "A").A, "Unknown, that cannot be found by its name"),
    (member_from_nowhere, "config['a'][1] is no declared member of"),
    (lambda: Half("a"), "config['a'][1] has no value for its field 'made'"),
    (lambda: Keyed("a"), "Keyed, a dataclass with content outside its fields"),
    (lambda: np.array([None]), "config['a'][1] holds items of dtype object"),
    (lambda: np.longdouble(1), "config['a'][1] holds items of dtype "),
    (lambda: np.zeros(1, [("a", "O")]), "holds items of dtype object"),
    (lambda: np.array(["a"], np.dtypes.StringDType()), "holds items of dtype StringDType"),
    (lambda: np.ma.array([1]), "config['a'][1] is of type numpy.ma"),
    (lambda: np.rec.array([(1,)], dtype=[("a", "i1")])[0], "config['a'][1] holds items of dtype"),
    (lambda: dt.datetime(2024, 1, 1, tzinfo=Zone()), "config['a'][1] has a time zone of type "),
    (lambda: dt.time(0, tzinfo=Zone()), "config['a'][1] has a time zone of type "),
    (lambda: EAST, "config['a'][1] is of type datetime.timezone"),
]


class Zone(dt.tzinfo):
    def utcoffset(self, _: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(0)


class TestRefusals:
    @pytest.mark.parametrize(("make", "message"), REFUSED)
    def test_the_message_names_the_place(self, make: Callable[[], Any], message: str) -> None:
        with pytest.raises(UsageError) as caught:
            compute_key({"a": [0, make()]})
        assert str(caught.value).startswith("Cannot compute a key: config['a'][1]")
        assert message in str(caught.value)

    def test_in_a_content(self) -> None:
        with pytest.raises(UsageError, match=r"content\[0\] is of type object"):
            compute_key({}, "", True, [object()])

    def test_what_occurs_twice_is_no_cycle(self) -> None:
        shared = [1]
        assert compute_key([shared, shared]) == compute_key([[1], [1]])


def test_numpy_is_not_imported_for_plain_values() -> None:
    program = (
        "import sys, types\n"
        "sys.modules['easydata'] = package = types.ModuleType('easydata')\n"
        "package.__path__ = [sys.argv[1]]\n"
        "from easydata.cache.keys import compute_key\n"
        "compute_key({'a': [1, 'x', None]})\n"
        "assert 'numpy' not in sys.modules"
    )
    import easydata

    folder = str(pathlib.Path(easydata.__file__).parent)
    subprocess.run([sys.executable, "-c", program, folder], check=True)
