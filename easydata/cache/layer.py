"""CacheLayer: what memory, disk and tree have in common."""

from __future__ import annotations

import functools
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar, overload

import pyarrow as pa

from easydata.cache import keys as cache_keys
from easydata.cache.arguments import Items, check_callable, check_key, check_keys
from easydata.cache.clock import check_expiry
from easydata.cache.computing import Memo, Request, Validate, is_valid, match
from easydata.cache.flight import SingleFlight
from easydata.cache.stats import Counters
from easydata.cache.stored_metadata import pack
from easydata.cache.values import freeze
from easydata.errors import StorageError
from easydata.metadata import CacheMetadata

__all__ = ["CacheLayer"]

P = ParamSpec("P")
T = TypeVar("T")
_Function = Callable[P, T]


class CacheLayer(ABC):
    """Values by key, each with the metadata of what it was made from.

    Keys are strings. Values are None, numbers, strings, bytes, lists, tuples, dicts with string
    keys, NumPy arrays and scalars, dates and times, Arrow tables, DataFrames, and what is nested
    of these; they come back equal and of the same types. What is put in is copied, and what comes
    out belongs to the caller: changing either changes nothing in the cache. Arrays that come out
    are read-only.

    All methods may be called from several threads.
    """

    def __init__(self) -> None:
        self._counters = Counters()
        self._flight = SingleFlight(self.lock_path)
        self._warned_of_storage = False

    @property
    def lock_path(self) -> Path | None:
        """The file by which processes agree on who computes a value; None: not shared."""
        return None

    @abstractmethod
    def put(
        self,
        key: str,
        value: Any,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        """Store a value in place of what is there, metadata and expiry included.

        Args:
            key: any string.
            value: copied.
            metadata: what it was made from; None leaves no older one behind.
            expiry_seconds: how long it may be used; None for what the cache was made with.

        Raises:
            UnsupportedValueError: the value or the metadata would not come back as it is. The
                message names the place; nothing was written.
            UsageError: the key is no string, or the expiry no number above 0.
            StorageError: the disk is full, read-only or fails.
        """

    @abstractmethod
    def put_many(
        self,
        items: Items,
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> None:
        """Store many values at once, all with the same metadata. Raises as `put` does.

        Args:
            items: a mapping, or pairs of key and value, of which later ones win.
            metadata: as in `put`.
            expiry_seconds: as in `put`.
        """

    @abstractmethod
    def get(self, key: str) -> tuple[Any, CacheMetadata | None] | None:
        """The value and metadata of a key; None if there is none, or it is expired.

        Raises:
            UsageError: the key is no string.
        """

    @abstractmethod
    def get_many(self, keys: Iterable[str]) -> dict[str, tuple[Any, CacheMetadata | None]]:
        """What `get` gives for each key that is there, in the order of `keys`."""

    @abstractmethod
    def contains(self, key: str) -> bool:
        """Whether there is an entry that is not expired. Not counted as a hit or miss."""

    @abstractmethod
    def get_metadata(self, key: str) -> CacheMetadata | None:
        """The metadata of a key; None if it has none, or there is no entry. Not counted."""

    @abstractmethod
    def invalidate(self, key: str | None = None, *, prefix: str | None = None) -> None:
        """Forget one key, or all that begin with `prefix`, or, with neither, everything.

        Raises:
            UsageError: both are given, or one is no string.
        """

    @abstractmethod
    def keys(self, prefix: str = "") -> list[str]:
        """The keys that begin with `prefix`, sorted; those of expired entries left out."""

    @abstractmethod
    def __len__(self) -> int:
        """How many entries there are that are not expired."""

    @abstractmethod
    def get_table(self, key_or_keys: str | Iterable[str]) -> pa.Table:
        """What was put under a key, or under several: an Arrow table with a row for each.

        Its columns are those of the values, by name, and null where one lacks it. Numbers of
        different types under one name become the type that NumPy gives to both. An array of
        several dimensions is a list without its shape. What has no column (None, dates, and what
        lies inside lists) is not shown; an entry with nothing else is its `repr` in the column
        `value`, cut off after 200 characters.

        If one key is asked for whose value is a table, record batch or DataFrame, the result is
        that table. Keys that are not there are left out.
        """

    @property
    @abstractmethod
    def stats(self) -> dict[str, Any]:
        """What was counted, by name; see `Counters`."""

    @abstractmethod
    def flush(self) -> None:
        """Make all that was put survive a power failure, where there is a disk."""

    @abstractmethod
    def close(self) -> None:
        """Give back what the cache holds open and in memory."""

    compute_key = staticmethod(cache_keys.compute_key)

    def __contains__(self, key: str) -> bool:
        return self.contains(key)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get_or_compute(
        self,
        key: str,
        compute_fn: Callable[[], Any],
        metadata: CacheMetadata | None = None,
        validate_fn: Validate | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> Any:
        """The value of a key, computed and stored if it is not there.

        What several threads and processes of a machine ask for at once is computed once. A
        computed value is returned as a later call will find it: arrays read-only, a
        `BatchEncoding` as a dict. If it cannot be written, it is returned all the same.

        Args:
            key: any string.
            compute_fn: makes the value. It may ask for other keys.
            metadata: stored with a computed value.
            validate_fn: called with the metadata of an entry that was found; if what it returns
                is false, the value is computed again. An entry without metadata never passes.
            expiry_seconds: of a computed value, as in `put`.

        Raises:
            Exception: whatever `compute_fn` raised, here or in the thread that computed this
                key. It is not stored.
            UnsupportedValueError: the computed value, or the metadata, cannot be stored exactly.
            UsageError: the key is no string, or the expiry no number above 0.

        Warns:
            RuntimeWarning: once for this object, if a computed value could not be written.
        """
        key = check_key(key)
        check_expiry(expiry_seconds)
        found = self.get(key)
        if found is not None and is_valid(found[1], validate_fn):
            return found[0]
        request = Request(self, key, compute_fn, metadata, validate_fn, expiry_seconds)
        try:
            value = request.run(self._flight)
        finally:
            self._counters.wait_seconds += request.wait_seconds
        self._warn_of_storage(request.storage_error)
        return value

    def get_or_compute_many(
        self,
        keys: Iterable[str],
        compute_fn: Callable[[list[str]], Mapping[str, Any] | list[Any] | tuple[Any, ...]],
        metadata: CacheMetadata | None = None,
        *,
        expiry_seconds: float | None = None,
    ) -> dict[str, Any]:
        """The values of many keys; those that are missing are computed and stored in one go.

        It does not wait for others that compute the same keys.

        Args:
            keys: any strings.
            compute_fn: called at most once, with the list of the missing keys; returns a dict of
                their values, or a list of them in the same order.
            metadata: stored with the computed values.
            expiry_seconds: of the computed values, as in `put`.

        Returns:
            Key and value, in the order of `keys`.

        Raises:
            UsageError: what `compute_fn` returned does not fit the keys; or as in `put`.
            UnsupportedValueError: a computed value cannot be stored exactly. None was written.

        Warns:
            RuntimeWarning: once for this object, if the computed values could not be written.
        """
        wanted = check_keys(keys)
        check_callable(compute_fn, name="compute_fn")
        check_expiry(expiry_seconds)
        values = {key: value for key, (value, _) in self.get_many(wanted).items()}
        missing = [key for key in wanted if key not in values]
        pack(metadata)  # so that one that cannot be stored fails before anything is computed
        if missing:
            computed = match(missing, compute_fn(list(missing)))
            try:
                self.put_many(computed, metadata, expiry_seconds=expiry_seconds)
            except StorageError as error:
                self._warn_of_storage(error)
            # As a later call will find them.
            values |= {key: freeze(value).thaw() for key, value in computed.items()}
        return {key: values[key] for key in wanted}

    @overload
    def memoize(self, fn: _Function[P, T], /) -> _Function[P, T]: ...

    @overload
    def memoize(
        self,
        fn: None = None,
        /,
        *,
        prefix: str | None = None,
        version: object = None,
        expiry_seconds: float | None = None,
    ) -> Callable[[_Function[P, T]], _Function[P, T]]: ...

    def memoize(
        self,
        fn: Callable[..., Any] | None = None,
        /,
        *,
        prefix: str | None = None,
        version: object = None,
        expiry_seconds: float | None = None,
    ) -> Callable[..., Any]:
        """Decorate a function so that each call with new arguments is computed once and stored.

        The key begins with the function's module and name, and has a hash of its arguments and
        of `version`. It does not see the function's code: give another `version` when that
        changes. `invalidate(prefix=...)` forgets all its results.

        >>> from easydata.cache.memory import MemoryCache
        >>> cache = MemoryCache()
        >>> @cache.memoize
        ... def double(number: int) -> int:
        ...     print("computing")
        ...     return 2 * number
        >>> double(4), double(number=4)
        computing
        (8, 8)

        Args:
            fn: the function, where the decorator is used without arguments.
            prefix: what its keys begin with, instead of its module and name. Needed for lambdas,
                methods of objects, and functions that use variables of one around them.
            version: part of the keys: anything that `compute_key` takes.
            expiry_seconds: as in `put`.

        Raises:
            UsageError: it is no function, or needs a `prefix`; when called: an argument has no
                canonical form. And as `get_or_compute` does.
        """
        check_expiry(expiry_seconds)
        if fn is None:
            return functools.partial(
                self._memoize, prefix=prefix, version=version, expiry_seconds=expiry_seconds
            )
        return self._memoize(fn, prefix=prefix, version=version, expiry_seconds=expiry_seconds)

    def _memoize(
        self,
        fn: Callable[..., Any],
        *,
        prefix: str | None,
        version: object,
        expiry_seconds: float | None,
    ) -> Callable[..., Any]:
        check_expiry(expiry_seconds)
        memo = Memo(fn, prefix, version)

        @functools.wraps(fn)
        def remembered(*args: Any, **kwargs: Any) -> Any:
            return self.get_or_compute(
                memo.key(args, kwargs), lambda: fn(*args, **kwargs), expiry_seconds=expiry_seconds
            )

        return remembered

    def _warn_of_storage(self, error: StorageError | None) -> None:
        if error is not None and not self._warned_of_storage:
            self._warned_of_storage = True
            warnings.warn(
                f"Values are computed but not stored: {error}", RuntimeWarning, stacklevel=3
            )
