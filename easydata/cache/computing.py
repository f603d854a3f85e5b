"""Values that are computed when they are missing: one at a time, many, and calls of functions."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import xxhash

from easydata.cache.arguments import check_callable
from easydata.cache.flight import SingleFlight
from easydata.cache.keys import compute_key
from easydata.cache.stored_metadata import pack, unpack
from easydata.cache.values import Frozen, freeze
from easydata.errors import StorageError, UnsupportedValueError, UsageError
from easydata.metadata import CacheMetadata

__all__ = ["Memo", "Request", "Validate", "is_valid", "match"]

Validate = Callable[[CacheMetadata], object]


class _Cache(Protocol):
    def get(self, key: str) -> tuple[Any, CacheMetadata | None] | None: ...

    def contains(self, key: str) -> bool: ...

    def get_metadata(self, key: str) -> CacheMetadata | None: ...

    def put(
        self,
        key: str,
        value: Any,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None: ...


class _Result(NamedTuple):
    # Threads that wait for one computation get one object: it must be one that nobody can change.
    value: Frozen
    metadata: bytes


def is_valid(metadata: CacheMetadata | None, validate_fn: Validate | None) -> bool:
    """Whether an entry with this metadata may be used. Without metadata none passes a check."""
    return validate_fn is None or (metadata is not None and bool(validate_fn(metadata)))


class Request:
    """One thread's wish for the value of a key that it did not find.

    Attributes:
        wait_seconds: how long it waited for others, once `run` has ended.
        storage_error: why the computed value could not be stored; None if it was.
    """

    def __init__(
        self,
        cache: _Cache,
        key: str,
        compute_fn: Callable[[], Any],
        metadata: CacheMetadata | None,
        validate_fn: Validate | None,
        expiry_seconds: float | None,
    ) -> None:
        """
        Raises:
            UsageError: a function is none.
            UnsupportedValueError: the metadata cannot be stored.
        """
        check_callable(compute_fn, name="compute_fn")
        if validate_fn is not None:
            check_callable(validate_fn, name="validate_fn")
        self._cache = cache
        self._key = key
        self._compute_fn = compute_fn
        self._metadata = metadata
        self._packed = pack(metadata)
        self._validate_fn = validate_fn
        self._expiry_seconds = expiry_seconds
        self._turn_at: float | None = None  # when it was this thread's turn to look and compute
        self.wait_seconds = 0.0
        self.storage_error: StorageError | None = None

    def run(self, flight: SingleFlight) -> Any:
        """The value, from whoever computes it first; nobody else has the same object.

        Raises:
            UnsupportedValueError: a cache cannot hold what was computed.
            Exception: whatever the computation raised.
        """
        key_hash = xxhash.xxh3_64_intdigest(self._key.encode())
        while True:
            asked_at = time.perf_counter()
            try:
                result = flight.run(key_hash, self._key, self._look, self._compute)
            finally:
                self.wait_seconds += (self._turn_at or time.perf_counter()) - asked_at
            # Another thread was content with its result, which may be of no use here.
            if self._turn_at or is_valid(unpack(result.metadata), self._validate_fn):
                return result.value.thaw()

    def _look(self) -> tuple[_Result] | None:
        self._turn_at = time.perf_counter()
        # A miss was counted when the key was asked for; it should not be counted again.
        if self._validate_fn is None:
            is_there = self._cache.contains(self._key)
        else:
            is_there = is_valid(self._cache.get_metadata(self._key), self._validate_fn)
        found = self._cache.get(self._key) if is_there else None
        if found is None or not is_valid(found[1], self._validate_fn):
            return None
        return (_Result(freeze(found[0]), pack(found[1])),)

    def _compute(self) -> _Result:
        self._turn_at = self._turn_at or time.perf_counter()
        value = self._compute_fn()
        try:
            frozen = freeze(value)
        except UnsupportedValueError as error:
            raise UnsupportedValueError(f"Key {self._key!r}: {error}") from error
        try:
            self._cache.put(self._key, value, self._metadata, expiry_seconds=self._expiry_seconds)
        except StorageError as error:
            self.storage_error = error
        return _Result(frozen, self._packed)


def match(keys: list[str], computed: object) -> dict[str, Any]:
    """What a function computed for `keys`, by key, in their order.

    Raises:
        UsageError: it is neither a mapping of just these keys nor a list or tuple of as many
            values.
    """
    if isinstance(computed, Mapping):
        missing = [key for key in keys if key not in computed]
        unknown = [key for key in computed if key not in set(keys)]
        if missing or unknown:
            what, which = ("lacks", missing) if missing else ("has the unknown", unknown)
            raise UsageError(
                f"compute_fn was asked for {len(keys)} keys; the mapping that it returned {what} "
                f"key {which[0]!r}{_and_more(which)}. Return a value for each key of its argument."
            )
        return {key: computed[key] for key in keys}
    if not isinstance(computed, list | tuple):
        raise UsageError(
            f"compute_fn returned a {type(computed).__name__}; it must return a dict of key and "
            "value, or a list of values in the order of its argument."
        )
    if len(computed) != len(keys):
        raise UsageError(
            f"compute_fn was asked for {len(keys)} keys and returned {len(computed)} values. "
            "Return one for each key, in the same order."
        )
    return dict(zip(keys, computed, strict=True))


def _and_more(names: list[Any]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""


class Memo:
    """The keys of the calls of one function."""

    def __init__(self, fn: Callable[..., Any], prefix: str | None, version: object) -> None:
        """
        Args:
            fn: the function.
            prefix: its name in keys; None for its module and name.
            version: part of all keys, anything that `compute_key` takes.

        Raises:
            UsageError: it is no function, or `prefix` is None and its module and name do not
                tell it from others.
        """
        if not callable(fn):
            raise UsageError(f"memoize was given {fn!r}, which is not a function.")
        if prefix is not None and not isinstance(prefix, str):
            raise UsageError(f"prefix is {prefix!r}; it must be a string.")
        self._name = _name_of(fn) if prefix is None else prefix
        self._version = version
        compute_key(version)  # so that one that is no version fails here
        try:
            self._signature = inspect.signature(fn)
        except ValueError as error:
            raise UsageError(
                f"{fn!r} does not say what its arguments are ({error}). Wrap it in a function."
            ) from None

    def key(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The key of one call; the same however its arguments are passed.

        Raises:
            TypeError: the function cannot be called so.
            UsageError: an argument has no canonical form.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        config = {"arguments": dict(bound.arguments), "version": self._version}
        try:
            return compute_key(config, prefix=self._name)
        except UsageError as error:
            raise UsageError(
                f"A call of {self._name} has no key: {error} A memoized function takes what a key "
                "can be made of, and no object such as `self`: call it from the method."
            ) from error


def _name_of(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__qualname__", None)
    if name is None:
        why = "has no name"
    elif "<lambda>" in name:
        why = "is a lambda, and all lambdas of a module have one name"
    elif inspect.isfunction(fn) and fn.__closure__:
        names = ", ".join(fn.__code__.co_freevars)
        why = f"uses variables of the function around it ({names}), which no key would show"
    elif inspect.ismethod(fn) and not inspect.isclass(fn.__self__):
        why = f"is a method of a {type(fn.__self__).__name__}, whose state no key would show"
    else:
        return f"{fn.__module__}.{name}"
    raise UsageError(
        f"{fn!r} {why}: calls that differ would share their results. "
        "Pass prefix='…', a name of your own for exactly what it computes."
    )
