"""What an object consists of, when that is all it consists of."""

from __future__ import annotations

import copyreg
import datetime as dt
import functools
import json
import pathlib
import random
import sys
import types
import typing
from collections.abc import Iterator
from typing import Any

from easydata.fingerprint import _origin

__all__ = ["PLAIN", "Unknown", "attributes", "contents", "is_array", "rebuilt", "state"]

# What is its own description; `canonical` encodes each.
PLAIN = {
    *(type(None), bool, int, float, str, bytes),
    *(pathlib.PurePosixPath, pathlib.PosixPath),
    *(pathlib.PureWindowsPath, pathlib.WindowsPath),
    *(dt.date, dt.datetime, dt.time, dt.timedelta),
}
_POINTER = object.__basicsize__ // 2
# Attributes that follow from the others: kept by a call, or an address.
_DERIVED = {"numpy.vectorize": {"_ufunc"}, "pydantic.Decorator": {"cls_ref"}}


class Unknown(Exception):  # noqa: N818 - never leaves this package
    """An object has no identity; the message says what it is."""


def is_array(value: object) -> bool:
    """Whether `value` is a NumPy array or scalar."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, numpy.ndarray | numpy.generic)


def contents(value: Any) -> object:
    """All that a tokenizer, a dtype or a name in an annotation is; None for anything else.

    Raises:
        Unknown: it is a tokenizer that draws random numbers.
    """
    if isinstance(value, typing.ForwardRef):
        return value.__forward_arg__  # typing.get_type_hints keeps in it what it has found
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.dtype):
        return numpy.empty(0, value)  # whose dtype is encoded
    tokenizers = sys.modules.get("tokenizers")
    if tokenizers is None:
        return None
    if isinstance(value, tokenizers.Tokenizer):
        return _tokenizer(value, ()), value.encode_special_tokens
    transformers = sys.modules.get("transformers.tokenization_utils_tokenizers") or sys.modules.get(
        "transformers.tokenization_utils_fast"
    )
    if transformers is None or not isinstance(value, transformers.PreTrainedTokenizerFast):
        return None
    # A call sets truncation and padding from its arguments and counts its warnings.
    held = {k: v for k, v in vars(value).items() if k not in {"_tokenizer", "deprecation_warnings"}}
    return _tokenizer(value.backend_tokenizer, ("truncation", "padding")), held


def _tokenizer(value: Any, without: tuple[str, ...]) -> object:
    form = json.loads(value.to_str())
    if form["model"].get("dropout"):
        raise Unknown("a tokenizer with dropout, whose results are random")
    # Sorted: the library does not promise an order of its vocabulary.
    kept = {name: item for name, item in form.items() if name not in without}
    return json.dumps(kept, sort_keys=True)


def state(value: object) -> dict[str, Any] | None:
    """The attributes of `value` by name, or None if it holds something that is none.

    Raises:
        Unknown: what it gives depends on what it gave before, or on chance.
    """
    kind = type(value)
    _check_constant(value)
    slots = _slots(kind)
    # As in object.__reduce_ex__: a larger object holds what only its C code knows.
    pointers = len(slots) + (kind.__dictoffset__ > 0) + (kind.__weakrefoffset__ > 0)
    if kind.__itemsize__ or kind.__basicsize__ > object.__basicsize__ + pointers * _POINTER:
        return None
    return attributes(value)


def attributes(value: object) -> dict[str, Any]:
    """The attributes that `value` itself holds, less those that follow from the rest."""
    kind = type(value)
    derived = {"__doc__"}
    for base in kind.__mro__:
        derived |= _DERIVED.get(f"{str(base.__module__).partition('.')[0]}.{base.__name__}", set())
    slots = {name: getattr(value, name) for name in _slots(kind) if hasattr(value, name)}
    return {
        name: item
        for name, item in (getattr(value, "__dict__", {}) | slots).items()
        # What a cached property has kept follows from the rest.
        if name not in derived
        and not isinstance(getattr(kind, name, None), functools.cached_property)
    }


def _slots(kind: type) -> list[str]:
    return sorted(
        {
            name
            for base in kind.__mro__
            if "__slots__" in vars(base)
            for name, item in vars(base).items()
            if isinstance(item, types.MemberDescriptorType)
        }
    )


def rebuilt(value: object) -> str | tuple[object, ...]:
    """What `value` would be rebuilt from when it is copied: its own answer.

    Returns:
        A name, or what to call, its arguments, the state, the items and the pairs.

    Raises:
        Unknown: it cannot be copied, or no library has it under the name that it gives.
    """
    kind = type(value)
    reducer = copyreg.dispatch_table.get(kind)
    try:
        made: Any = value.__reduce_ex__(2) if reducer is None else reducer(value)
    except Exception as error:
        raise Unknown(f"{_what(value)}, which has no identity that lasts ({error})") from error
    if isinstance(made, str):
        module = getattr(value, "__module__", None)
        if not isinstance(module, str) or not _origin.libraries(module):
            module = ""
        if _origin.find(module, made) is not value:
            raise Unknown(f"{_what(value)}, which no library holds as {made!r}")
        return made
    function, arguments, *rest = made
    held, items, pairs = (*rest, None, None, None)[:3]
    return function, arguments, held, list(items or ()), list(pairs or ())


def _check_constant(value: object) -> None:
    numpy = sys.modules.get("numpy.random")
    generators: tuple[type, ...] = (random.Random,)
    if numpy is not None:
        generators += (numpy.Generator, numpy.RandomState, numpy.BitGenerator)
    if isinstance(value, generators):
        raise Unknown("a random generator")
    if isinstance(value, Iterator):
        raise Unknown(f"{_what(value)}, which gives its items only once")


def _what(value: object) -> str:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if kind.__module__ in {"_io", "io"}:
        return f"a file ({name})"
    return f"a lock ({name})" if "lock" in name.lower() else f"an object of type {name}"
