"""Identities of files by content and by stamp, and the hashes of values that never change."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import os
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import xxhash

from easydata.errors import SourceNotFoundError, UsageError
from easydata.fingerprint import (
    FileStamp,
    canonical_hash,
    fingerprint_bytes,
    fingerprint_config,
    fingerprint_file,
    fingerprint_json,
    fingerprint_strings,
)

SECOND = 1_000_000_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that was last changed long ago, as far as its time of modification says."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"hello")
    os.utime(path, ns=(10**18, 10**18))
    return path


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns() + 10 * SECOND
    monkeypatch.setattr("easydata.fingerprint.files.time.time_ns", lambda: now)


class TestGolden:
    def test_values(self) -> None:
        assert fingerprint_bytes(b"hello") == "b5e9c1ad071b3e7fc779cfaa5e523818"
        assert fingerprint_strings(["a", "b"]) == xxhash.xxh3_128_hexdigest(b'["a","b"]')
        assert fingerprint_json({"b": 1, "a": "ß"}) == "69061512545f332dc9883dae137376cd"
        assert fingerprint_config({"a": [1, 2.0]}) == "2ba8e7ab7851a23b5da8fd528cb6daf7"
        assert canonical_hash(b"easydata config 1\n", "x", {"a": [1, 2.0]}) == fingerprint_config(
            {"a": [1, 2.0]}
        )
        assert canonical_hash(b"another 1\n", "x", 1) != fingerprint_config(1)

    def test_stamps(self) -> None:
        stamp = FileStamp("/data/a.txt", 5, "1700000000000000000", "1 2")
        assert stamp.path_fingerprint == "df28865c195d394db1957bcc8564589b"
        remote = FileStamp("s3://bucket/a.txt", None, 'ETag "abc"')
        assert remote.path_fingerprint == "fc4cb87fa66cbea365cc25572791b598"


class TestContent:
    @pytest.mark.parametrize("size", [0, 5, (4 << 20) - 1, 4 << 20, (4 << 20) + 1, 9 << 20])
    def test_is_the_hash_of_the_bytes(self, tmp_path: Path, size: int) -> None:
        data = (b"hello" * (size // 5 + 1))[:size]
        (tmp_path / "file").write_bytes(data)
        assert fingerprint_file(tmp_path / "file") == xxhash.xxh3_128_hexdigest(data)

    def test_depends_on_nothing_else(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "copy").write_bytes(b"hello")
        assert fingerprint_file(file) == fingerprint_file(str(tmp_path / "copy"))

    def test_shows_an_edit_that_keeps_size_and_time(self, file: Path) -> None:
        before = fingerprint_file(file), fingerprint_file(file, "path")
        file.write_bytes(b"HELLO")
        os.utime(file, ns=(10**18, 10**18))
        assert fingerprint_file(file, "content") != before[0]
        assert fingerprint_file(file, "path") == before[1]  # as the docs say

    @pytest.mark.parametrize("mode", ["content", "path", "combined"])
    def test_no_such_file(self, tmp_path: Path, mode: Any) -> None:
        with pytest.raises(SourceNotFoundError, match="none does not exist"):
            fingerprint_file(tmp_path / "none", mode)


class TestPath:
    def test_location_size_and_time_count(self, file: Path, tmp_path: Path) -> None:
        found = [fingerprint_file(file, "path")]
        assert found[0] == FileStamp.of_local(file).path_fingerprint
        os.utime(file, ns=(10**18, 10**18 + 1))
        found.append(fingerprint_file(file, "path"))
        file.write_bytes(b"hello!")
        os.utime(file, ns=(10**18, 10**18))
        found.append(fingerprint_file(file, "path"))
        file.rename(tmp_path / "moved")
        found.append(fingerprint_file(tmp_path / "moved", "path"))
        assert len(set(found)) == 4

    def test_a_link_is_the_file_it_leads_to(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(file)
        assert FileStamp.of_local(tmp_path / "link") == FileStamp.of_local(file)
        assert FileStamp.of_local(os.path.relpath(file)).location == str(file.resolve())


class TestCombined:
    @pytest.mark.usefixtures("later")
    def test_takes_what_is_known_of_the_same_file(self, file: Path) -> None:
        stamp = FileStamp.of_local(file)
        assert fingerprint_file(file, "combined", known=(stamp, "known")) == "known"
        assert fingerprint_file(file, "combined") == fingerprint_file(file)

    @pytest.mark.usefixtures("later")
    def test_reads_what_has_changed(self, file: Path) -> None:
        stamp = FileStamp.of_local(file)
        for change in (
            {"location": "/other"},
            {"size": 4},
            {"modified": "1"},
            {"modified": ""},
            {"change": "1 1"},
        ):
            known = dataclasses.replace(stamp, **change), "known"
            assert fingerprint_file(file, "combined", known=known) == fingerprint_file(file)

    @pytest.mark.usefixtures("later")
    def test_shows_an_edit_whose_time_was_set_back(self, file: Path) -> None:
        known = FileStamp.of_local(file), fingerprint_file(file)
        replacement = file.with_name("new")
        replacement.write_bytes(b"HELLO")
        os.utime(replacement, ns=(10**18, 10**18))
        replacement.replace(file)
        assert fingerprint_file(file, "combined", known=known) == xxhash.xxh3_128_hexdigest(
            b"HELLO"
        )

    def test_reads_what_changed_a_moment_ago(
        self, file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = file.stat().st_ctime_ns + SECOND
        monkeypatch.setattr("easydata.fingerprint.files.time.time_ns", lambda: now)
        known = FileStamp.of_local(file), "known"
        assert fingerprint_file(file, "combined", known=known) == fingerprint_file(file)

    def test_wrong_arguments(self, file: Path) -> None:
        with pytest.raises(UsageError, match="mode is 'mtime'; it must be one of combined, con"):
            fingerprint_file(file, "mtime")  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="mode='content' does not use it"):
            fingerprint_file(file, known=(FileStamp.of_local(file), "known"))


class TestStamp:
    def test_of_a_local_file(self, file: Path) -> None:
        found = file.stat()
        change = f"{found.st_ctime_ns} {found.st_ino}"
        assert FileStamp.of_local(file) == FileStamp(str(file), 5, str(10**18), change)

    def test_settled(self) -> None:
        for modified, change in [(7, 3), (3, 7), (7, 7)]:
            stamp = FileStamp("/a", 1, str(modified * SECOND), f"{change * SECOND} 1")
            assert not stamp.is_settled(5 * SECOND)  # changed in the future
            assert not stamp.is_settled(9 * SECOND - 1)
            assert stamp.is_settled(9 * SECOND)
        assert FileStamp("s3://a/b", 1, "ETag x").is_settled(0)

    def test_matches(self) -> None:
        stamp = FileStamp("/a", 1, "2", "3 4")
        assert stamp.matches(FileStamp("/a", 1, "2", "3 4"))
        for other in (("/b", 1, "2", "3 4"), ("/a", 0, "2", "3 4"), ("/a", 1, "1", "3 4")):
            assert not stamp.matches(FileStamp(*other))
        assert not stamp.matches(FileStamp("/a", 1, "2", "3 5"))
        unknown = FileStamp("http://a", 1, "")
        assert not unknown.matches(unknown)
        assert unknown.path_fingerprint is None

    @pytest.mark.parametrize(
        ("info", "size", "modified"),
        [
            ({"size": 3, "ETag": '"abc"', "LastModified": 5}, 3, 'ETag "abc"'),
            ({"size": 3, "etag": "abc", "generation": "12"}, 3, "etag abc"),
            ({"size": "3", "md5Hash": "abc=="}, 3, "md5Hash abc=="),
            ({"generation": 12}, None, "generation 12"),
            ({"ETag": None, "mtime": 0.0}, None, "mtime 0.0"),
            ({"ETag": "", "md5": b"\x01\xff"}, None, "md5 01ff"),
            (
                {"LastModified": dt.datetime(2024, 1, 2, tzinfo=dt.UTC)},
                None,
                "LastModified 2024-01-02T00:00:00.000000+00:00",
            ),
            ({"size": 0, "type": "file", "name": "x"}, 0, ""),
        ],
    )
    def test_of_info(self, info: dict[str, Any], size: int | None, modified: str) -> None:
        assert FileStamp.of_info("s3://a/b", info) == FileStamp("s3://a/b", size, modified)

    def test_of_a_real_file_system(self) -> None:
        files = fsspec.filesystem("memory")
        files.pipe("/stamp/a", b"one")
        before = FileStamp.of_info("memory://stamp/a", files.info("/stamp/a"))
        assert before.size == 3
        assert before.matches(FileStamp.of_info("memory://stamp/a", files.info("/stamp/a")))
        files.pipe("/stamp/a", b"two")
        after = FileStamp.of_info("memory://stamp/a", files.info("/stamp/a"))
        assert not after.matches(before)
        files.rm("/stamp/a")

    def test_json(self, file: Path) -> None:
        for stamp in (FileStamp.of_local(file), FileStamp("s3://a", None, "")):
            assert FileStamp.from_json(json.loads(json.dumps(stamp.to_json()))) == stamp
        with pytest.raises(KeyError):
            FileStamp.from_json({"location": "a"})
