r"""One encoding of a configuration as bytes, and the hashes of it.

A configuration is encoded so that no two encodings are equal or begin alike, and the XXH3-128
of `easydata config 1\n` and the encoding is the config hash; that of `easydata content 1\n`
and the encoding of the content is the content hash. An encoding is one tag (an ASCII byte), a
number n (8 bytes, little-endian) and n bytes of payload, or, for tags marked *, n encodings:

    N   None       no payload
    B   bool       00 or 01
    I   int        two's complement, little-endian, `bit_length // 8 + 1` bytes
    F   float      IEEE 754 binary64, little-endian; every NaN is 7ff8000000000000
    S   str        UTF-8; a lone surrogate as if it were a character
    Y   bytes      as they are
    P   path       POSIX: its text as S         W   path      Windows: its text with / as S
    d   date       ISO 8601, ASCII
    M*  datetime   S (`YYYY-MM-DDTHH:MM:SS.ffffff`), I (fold), zone
    t*  time       S (`HH:MM:SS.ffffff`), I (fold), zone; a zone is N (none), m (the offset of
                   a `timezone`) or S (the key of a `ZoneInfo`)
    m*  timedelta  I (days), I (seconds), I (microseconds)
    L*  list       its items                    T*  tuple     its items
    E*  set        its items, sorted by encoding (in the order of bytes)
    Z*  frozenset  the same
    D*  dict       key, value, key, value, ... sorted by the encoding of the key; n counts both
    e*  enum       S (class), S (name of the member) or, for a Flag, I (its value)
    C*  dataclass  S (class), D (its fields); a class is `module:qualified name`
    n*  scalar     NumPy: dtype, T (no items), data
    A*  array      NumPy: dtype, T (its shape), data
        dtype      S (`dtype.str`, or `ml_dtypes.NAME`), for a structured one
                   T of I (itemsize) and for each field T (S (name), I (offset), dtype),
                   for a field that is an array T (dtype, T (its shape));
                   S (`str`) or S (`bytes`) for such a scalar
        data       Y (items in C order), for a structured one T (the data of each field);
                   S or Y for a str or bytes scalar
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import pathlib
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from easydata.errors import UsageError
from easydata.fingerprint.hashing import Hasher

if TYPE_CHECKING:
    import numpy as np

__all__ = ["canonical_hash", "fingerprint_config"]

_CONFIG = b"easydata config 1\n"
_MAX_DEPTH = 100
_BUILT_IN = (dict, list, tuple, set, frozenset, str, bytes, int, float)


def fingerprint_config(config: object) -> str:
    """Identity of a configuration: not of the order of its dicts, nor of the process.

    >>> fingerprint_config({"a": 1, "b": 2}) == fingerprint_config({"b": 2, "a": 1})
    True

    Args:
        config: what `easydata.compute_key` takes.

    Raises:
        UsageError: a value in `config` has no canonical form; the message says where it is.
    """
    return canonical_hash(_CONFIG, "config", config)


def canonical_hash(domain: bytes, name: str, value: object) -> str:
    """XXH3-128 of `domain` and the encoding of `value`.

    Args:
        domain: what the hash is of, so that no two kinds of hash meet; it ends with a newline.
        name: what a message calls `value`.
        value: what `easydata.compute_key` takes.

    Raises:
        UsageError: `value` has no canonical form; the message starts with `name`.
    """
    hasher = Hasher(domain)
    for piece in _Encoder(name).encode(value):
        hasher.update(piece)
    return hasher.hexdigest()


class _Encoder:
    """Encodes one value and knows where in it it is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._path: list[tuple[str, object]] = []
        self._open: list[int] = []

    def encode(self, value: object) -> Iterator[bytes]:
        """The encoding of `value`, in pieces.

        Raises:
            UsageError: it has none.
        """
        # Subclasses are looked at one by one: np.float64 is a float and np.str_ is a str.
        kind = type(value)
        if kind in _ATOMS:
            tag, payload = _ATOMS[kind]
            data = payload(value)
            yield _head(tag, len(data))
            yield data
            return
        if id(value) in self._open:
            raise self._refusal("contains itself")
        if len(self._open) >= _MAX_DEPTH:
            raise self._refusal(f"is nested more than {_MAX_DEPTH} deep")
        self._open.append(id(value))
        yield from self._composite(value)
        self._open.pop()

    def _composite(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        if kind is list or kind is tuple:
            yield _head(b"L" if kind is list else b"T", len(value))
            for index, item in enumerate(value):
                yield from self._inside("[]", index, item)
        elif kind is dict:
            yield from self._dict(value, "[]")
        elif kind is set or kind is frozenset:
            yield _head(b"E" if kind is set else b"Z", len(value))
            yield from sorted(b"".join(self._inside("{}", None, item)) for item in value)
        elif kind is dt.timedelta:
            yield from self._record(b"m", (value.days, value.seconds, value.microseconds))
        elif kind is dt.datetime or kind is dt.time:
            text = value.replace(tzinfo=None).isoformat(timespec="microseconds")
            tag = b"M" if kind is dt.datetime else b"t"
            yield from self._record(tag, (text, value.fold, self._zone(value.tzinfo)))
        elif isinstance(value, enum.Enum):
            yield from self._record(b"e", (self._class(kind), self._member(value)))
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from self._dataclass(value)
        elif _is_numpy(value):
            yield from self._numpy(value)
        else:
            raise self._refusal(f"is of type {_name(kind)}, {_remedy(value)}")

    def _inside(self, kind: str, name: object, item: object) -> Iterator[bytes]:
        self._path.append((kind, name))
        yield from self.encode(item)
        self._path.pop()

    def _record(self, tag: bytes, values: Iterable[object]) -> Iterator[bytes]:
        values = list(values)
        yield _head(tag, len(values))
        for value in values:
            yield from self.encode(value)

    def _dict(self, value: dict[Any, Any], kind: str) -> Iterator[bytes]:
        entries: dict[bytes, Any] = {}
        for key in value:
            self._check_key(key)
            code = b"".join(self.encode(key))
            if code in entries:
                raise self._refusal("has two keys that are NaN")
            entries[code] = key
        yield _head(b"D", 2 * len(entries))
        for code in sorted(entries):
            yield code
            yield from self._inside(kind, entries[code], value[entries[code]])

    def _check_key(self, key: object) -> None:
        if type(key) is tuple:
            for item in key:
                self._check_key(item)
        elif type(key) not in _KEYS:
            raise self._refusal(
                f"has a key of type {_name(type(key))}; a key must be None, a bool, int, float, "
                "str or bytes, or a tuple of these"
            )

    def _zone(self, zone: dt.tzinfo | None) -> object:
        if zone is None:
            return None
        if type(zone) is dt.timezone:
            return zone.utcoffset(None)
        key = getattr(zone, "key", None)
        if type(zone).__module__ == "zoneinfo" and isinstance(key, str):
            return key
        raise self._refusal(
            f"has a time zone of type {_name(type(zone))}, which has no canonical form; "
            "use a zoneinfo.ZoneInfo made from its name, or a datetime.timezone"
        )

    def _class(self, kind: type) -> str:
        # Two classes made by one function share their name, and what shares its name shares keys.
        found: object = sys.modules.get(kind.__module__)
        for part in kind.__qualname__.split("."):
            found = getattr(found, part, None)
        if found is not kind:
            raise self._refusal(
                f"is of a class, {_name(kind)}, that cannot be found by its name; "
                "define it at the top of a module"
            )
        return f"{kind.__module__}:{kind.__qualname__}"

    def _member(self, value: enum.Enum) -> object:
        if isinstance(value, enum.Flag):
            # How Python names a combination depends on its version.
            return int(value.value)
        name: str = value._name_
        if type(value).__members__.get(name) is not value:
            raise self._refusal(f"is no declared member of {_name(type(value))}")
        return name

    def _dataclass(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        if isinstance(value, _BUILT_IN):
            raise self._refusal(
                f"is of type {_name(kind)}, a dataclass with content outside its fields; "
                "pass what counts as a dict"
            )
        fields = {}
        for field in dataclasses.fields(value):
            if not hasattr(value, field.name):
                raise self._refusal(f"has no value for its field {field.name!r}")
            fields[field.name] = getattr(value, field.name)
        yield _head(b"C", 2)
        yield from self.encode(self._class(kind))
        yield from self._dict(fields, ".")

    def _numpy(self, value: Any) -> Iterator[bytes]:
        import numpy as np

        kind = type(value)
        if kind is np.str_:
            # str(value) would drop NULs at its end.
            yield from self._record(b"n", ("str", (), str.__str__(value)))
        elif kind is np.bytes_:
            yield from self._record(b"n", ("bytes", (), bytes(value)))
        elif kind is np.ndarray or kind is value.dtype.type:
            tag = b"A" if kind is np.ndarray else b"n"
            yield from self._record(
                tag, (self._dtype(value.dtype), value.shape, _data(np.asarray(value)))
            )
        else:  # a masked array, a record array, ...
            raise self._refusal(
                f"is of type {_name(kind)}, a kind of array that may say more than its items; "
                "pass numpy.asarray(...) of what counts"
            )

    def _dtype(self, dtype: np.dtype[Any]) -> object:
        import numpy as np

        if dtype.subdtype is not None:
            return self._dtype(dtype.subdtype[0]), dtype.subdtype[1]
        if dtype.names is not None and dtype.type is np.void:
            fields: Any = dtype.fields
            described = ((name, *fields[name][:2]) for name in dtype.names)
            return dtype.itemsize, *((name, at, self._dtype(kind)) for name, kind, at in described)
        if dtype.type.__module__ == "ml_dtypes":
            return f"ml_dtypes.{dtype.name}"  # whose dtype.str is that of plain bytes
        if dtype.kind in "biufcmMSUV" and dtype.char not in "gG" and dtype.names is None:
            return dtype.str
        raise self._refusal(
            f"holds items of dtype {dtype}, whose bytes are no canonical form; "
            "convert it to a list or to another dtype"
        )

    def _refusal(self, why: str) -> UsageError:
        where = self._name
        for kind, name in self._path:
            if kind == "{}":
                where += "{…}"
            else:
                where += f".{name}" if kind == "." else f"[{_show(name)}]"
        return UsageError(f"Cannot compute a key: {where} {why}.")


def _head(tag: bytes, count: int) -> bytes:
    return tag + count.to_bytes(8, "little")


def _int(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)


def _float(value: float) -> bytes:
    return struct.pack("<Q", 0x7FF8 << 48) if math.isnan(value) else struct.pack("<d", value)


def _text(value: str) -> bytes:
    return value.encode("utf-8", "surrogatepass")


def _path(value: pathlib.PurePath) -> bytes:
    return _text(value.as_posix())


# The types with a payload of their own, by exact type: (tag, payload).
_ATOMS: dict[type, tuple[bytes, Callable[[Any], bytes]]] = {
    type(None): (b"N", lambda _: b""),
    bool: (b"B", lambda value: b"\x01" if value else b"\x00"),
    int: (b"I", _int),
    float: (b"F", _float),
    str: (b"S", _text),
    bytes: (b"Y", bytes),
    pathlib.PurePosixPath: (b"P", _path),
    pathlib.PosixPath: (b"P", _path),
    pathlib.PureWindowsPath: (b"W", _path),
    pathlib.WindowsPath: (b"W", _path),
    dt.date: (b"d", lambda value: value.isoformat().encode("ascii")),
}
_KEYS = {type(None), bool, int, float, str, bytes}


def _is_numpy(value: object) -> bool:
    # Where numpy was never imported, nothing is a NumPy value.
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def _data(array: np.ndarray[Any, Any]) -> object:
    # Field by field: what lies between two fields is whatever was in memory.
    if array.dtype.names is not None:
        return tuple(_data(array[name]) for name in array.dtype.names)
    return array.tobytes()


def _remedy(value: object) -> str:
    if isinstance(value, type) or callable(value):
        return "which has no canonical form; pass its name and version instead"
    if isinstance(value, bytearray | memoryview):
        return "which can change; convert it with bytes(...)"
    for kind in _BUILT_IN:
        if isinstance(value, kind):
            return f"a kind of {kind.__name__}; convert it with {kind.__name__}(...)"
    return "which has no canonical form; pass the values that count, in dicts, lists and strings"


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _show(key: object) -> str:
    try:
        text = repr(key)
    except ValueError:  # an int of more digits than Python prints
        return "…"
    return text if len(text) <= 80 else f"{text[:79]}…"
