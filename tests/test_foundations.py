"""The modules that everything else stands on."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

import easydata as ed
from easydata import CacheMetadata, errors
from easydata._optional import require
from easydata._paths import local_folder
from easydata._units import format_bytes, format_count, parse_bytes
from easydata.errors import DatasetError, MissingDependencyError, StorageError, UsageError
from easydata.fingerprint import fingerprint_bytes, fingerprint_json, fingerprint_strings


class TestPaths:
    @pytest.mark.parametrize("path", ["a/b", Path("a") / "b", "~/x", "a b", "."])
    def test_a_folder(self, path: str | Path) -> None:
        assert local_folder(path, name="path") == Path(path)

    @pytest.mark.parametrize("path", [5, None, "", b"a", ["a"], "a\0b"])
    def test_no_path(self, path: Any) -> None:
        for open_it in (ed.open_dataset, ed.open_splits):
            with pytest.raises(UsageError, match=r"path is .*; give the path of a folder\."):
                open_it(path)
        with pytest.raises(UsageError, match=r"cache_dir is .*; give the path of a folder\."):
            ed.TreeCacheManager(cache_dir=path)

    def test_a_url(self) -> None:
        with pytest.raises(UsageError, match="path is 's3://b/c'; give a folder of a local disk"):
            ed.open_dataset("s3://b/c")
        with pytest.raises(UsageError, match="out is 's3://b/c'; give a folder of a local disk"):
            ed.build("a.txt", tokenizer="a.json", out="s3://b/c")


class TestUnits:
    @pytest.mark.parametrize(
        ("size", "expected"),
        [
            (1, 1),
            ("1", 1),
            ("1b", 1),
            ("64 kB", 64_000),
            ("64KiB", 65_536),
            ("256MB", 256_000_000),
            ("256m", 256_000_000),
            (" 1.5 GiB ", 1_610_612_736),
            ("2T", 2 * 10**12),
            ("1Ti", 2**40),
        ],
    )
    def test_parse(self, size: int | str, expected: int) -> None:
        assert parse_bytes(size, name="size") == expected

    @pytest.mark.parametrize(
        "size", ["", "MB", "1 2", "-1", "1e6", "1PB", "0x10", "1ib", None, 1.5, True, b"1"]
    )
    def test_no_size(self, size: Any) -> None:
        with pytest.raises(UsageError, match=r"shard_size is .*; give a number of bytes"):
            parse_bytes(size, name="shard_size")

    @pytest.mark.parametrize("size", [0, -5, "0", "0.5", "0GB"])
    def test_too_small(self, size: int | str) -> None:
        with pytest.raises(UsageError, match="it must be at least 1 byte"):
            parse_bytes(size, name="shard_size")

    def test_format(self) -> None:
        sizes = [0, 999, 1000, 1_234_567, 10**9, 5 * 10**12, 10**16]
        assert [format_bytes(size) for size in sizes] == [
            "0 B",
            "999 B",
            "1.0 kB",
            "1.2 MB",
            "1.0 GB",
            "5.0 TB",
            "10000.0 TB",
        ]
        counts = [0, 999_999, 1_000_000, 21_600_000, 1_230_000_000]
        assert [format_count(count) for count in counts] == [
            "0",
            "999,999",
            "1.0 M",
            "21.6 M",
            "1.23 G",
        ]


class TestOptional:
    def test_what_is_there(self) -> None:
        assert require("json.decoder", extra="x", purpose="This") is json.decoder

    @pytest.mark.parametrize("module", ["surely_not_there", "surely_not_there.inner"])
    def test_what_is_not(self, module: str) -> None:
        message = (
            r"Plotting needs the package 'surely_not_there', which is not installed. "
            r"Run: pip install 'easydata\[notebooks\]'"
        )
        with pytest.raises(MissingDependencyError, match=message) as caught:
            require(module, extra="notebooks", purpose="Plotting")
        assert isinstance(caught.value, ImportError)

    def test_a_package_that_misses_another(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "half_installed.py").write_text("import surely_not_there")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(ModuleNotFoundError, match="surely_not_there") as caught:
            require("half_installed", extra="x", purpose="This")
        assert not isinstance(caught.value, MissingDependencyError)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def ordered(value: Any) -> Any:
    """The value with the keys of all objects in reverse."""
    if isinstance(value, dict):
        return {key: ordered(item) for key, item in reversed(value.items())}
    return [ordered(item) for item in value] if isinstance(value, list) else value


class TestFingerprint:
    def test_golden_values(self) -> None:
        # Of the empty input, from the xxHash project's test vectors.
        assert fingerprint_bytes(b"") == "99aa06d3014798d86001c324468d497f"
        value = {"b": [1, 2.5, None], "a": "é"}
        assert fingerprint_json(value) == (
            xxhash.xxh3_128_hexdigest(b'{"a":"\\u00e9","b":[1,2.5,null]}')
        )
        assert (
            fingerprint_json({"b": [1, 2.5, None], "a": "é"}) == "974953dc80160ecb129057da98353a5e"
        )
        assert fingerprint_strings(["a", "b"]) == xxhash.xxh3_128_hexdigest(b'["a","b"]')

    @given(_json)
    def test_order_of_keys_does_not_count(self, value: Any) -> None:
        assert fingerprint_json(ordered(value)) == fingerprint_json(value)

    @given(_json, _json)
    def test_other_values_differ(self, one: Any, other: Any) -> None:
        same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
        assert (fingerprint_json(one) == fingerprint_json(other)) == same

    def test_near_misses_differ(self) -> None:
        values = [1, True, "1", 1.0, [1], {"1": 1}, None, "", [], {}, "null", [[]], 0, False]
        assert len({fingerprint_json(value) for value in values}) == len(values)
        strings = [["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], [], [""]]
        assert len({fingerprint_strings(value) for value in strings}) == len(strings)

    @pytest.mark.parametrize(
        "value", [{1: 2}, {"a": [{None: 1}]}, ({True: 1},), {1, 2}, object(), b"x"]
    )
    def test_no_json(self, value: object) -> None:
        with pytest.raises(TypeError):
            fingerprint_json(value)

    @pytest.mark.parametrize("value", [float("nan"), [float("inf")]])
    def test_no_number(self, value: object) -> None:
        with pytest.raises(ValueError, match="JSON compliant"):
            fingerprint_json(value)

    def test_same_in_every_process(self) -> None:
        program = (
            "from easydata.fingerprint import fingerprint_json as f;"
            "print(f({'b': [1, {'x': 'ß'}], 'a': None}))"
        )
        found = {
            subprocess.run(
                [sys.executable, "-c", program],
                env={**os.environ, "PYTHONHASHSEED": seed},
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for seed in ("0", "1")
        }
        assert found == {fingerprint_json({"a": None, "b": [1, {"x": "ß"}]})}


class TestMetadata:
    FULL = CacheMetadata("2", 12.5, "s", "t", "x", 7, "c", {"k": [1, None]})

    def test_round_trip(self) -> None:
        assert CacheMetadata.from_json(self.FULL.to_json()) == self.FULL
        assert CacheMetadata.from_json(self.FULL.to_json().encode()) == self.FULL
        assert json.loads(self.FULL.to_json())["extra"] == {"k": [1, None]}

    def test_content_only(self) -> None:
        text = self.FULL.to_json(content_only=True)
        assert "created_at" not in json.loads(text)
        assert CacheMetadata.from_json(text).created_at == 0
        later = CacheMetadata("2", 99.0, "s", "t", "x", 7, "c", {"k": [1, None]})
        assert later.to_json(content_only=True) == text
        assert later != self.FULL

    def test_fields_of_a_newer_version_are_ignored(self) -> None:
        assert CacheMetadata.from_json('{"config_hash": "a", "new": 1}').config_hash == "a"

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '"x"', b"\xff"])
    def test_not_readable(self, text: str | bytes) -> None:
        with pytest.raises(DatasetError, match="cache metadata is not readable"):
            CacheMetadata.from_json(text)

    def test_validity(self) -> None:
        assert self.FULL.is_valid_for()
        hashes = {"config_hash": "c", "source_hash": "s", "tokenizer_hash": "t"}
        hashes["transform_hash"] = "x"
        assert self.FULL.is_valid_for(**hashes)
        for name in hashes:
            assert not self.FULL.is_valid_for(**{**hashes, name: "other"})
            assert not CacheMetadata().is_valid_for(**{name: "given"})

    def test_diff(self) -> None:
        assert self.FULL.diff(self.FULL) == []
        assert CacheMetadata(created_at=1).diff(CacheMetadata(created_at=2)) == []
        other = CacheMetadata("2", 0, "s", None, "x", 7, "c", {"k": []})
        assert self.FULL.diff(other) == [
            "tokenizer_hash: 't' here, None there",
            "extra: {'k': [1, None]} here, {'k': []} there",
        ]


@pytest.mark.parametrize("name", errors.__all__)
def test_errors_pass_between_processes(name: str) -> None:
    kind = getattr(errors, name)
    error = kind(errno.ENOSPC, "what") if kind is StorageError else kind("what")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == "what"
    assert isinstance(again, errors.EasyDataError)
    if kind is StorageError:
        assert again.errno == errno.ENOSPC


def test_the_suite_treats_warnings_as_errors() -> None:
    with pytest.raises(UserWarning):
        warnings.warn("x", stacklevel=1)
