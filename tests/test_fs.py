"""Files that appear whole or not at all, and locks."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import filelock
import pytest

from easydata._fs import (
    exclusive,
    is_temporary,
    publish_bytes,
    publish_file,
    storage_errors,
    sync_directory,
)
from easydata.errors import StorageError


class TestPublish:
    def test_the_file_appears_when_it_is_whole(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with publish_file(path) as file:
            file.write(b"con")
            file.seek(0)
            assert file.read() == b"con"
            file.write(b"tent")
            assert not path.exists()
            (temporary,) = tmp_path.iterdir()
            assert is_temporary(temporary.name)
            assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        assert [item.name for item in tmp_path.iterdir()] == ["file"]
        assert path.read_bytes() == b"content"

    def test_mode_follows_the_umask(self, tmp_path: Path) -> None:
        before = os.umask(0o027)
        try:
            publish_bytes(tmp_path / "file", b"")
            assert os.umask(0o027) == 0o027
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640

    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_nothing_is_left_of_a_failure(self, tmp_path: Path, error: type[BaseException]) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"old")

        def fail() -> None:
            with publish_file(path) as file:
                file.write(b"new")
                raise error

        with pytest.raises(error):
            fail()
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_readers_of_the_old_file_keep_it(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        publish_bytes(path, b"old")
        with path.open("rb") as reader:
            publish_bytes(path, b"newer", sync=False)
            assert reader.read() == b"old"
        assert path.read_bytes() == b"newer"

    def test_a_killed_writer_leaves_a_temporary_file_only(self, tmp_path: Path) -> None:
        program = (
            "import os, sys, pathlib; from easydata._fs import publish_file\n"
            "with publish_file(pathlib.Path(sys.argv[1]) / 'file') as file:\n"
            "    file.write(b'x' * 100000); os._exit(9)"
        )
        result = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
        assert result.returncode == 9
        (left,) = tmp_path.iterdir()
        assert is_temporary(left.name)

    def test_a_full_disk(self, tmp_path: Path) -> None:
        """A limit on the size of files fails as a full disk does, in the middle of a write."""
        program = (
            "import resource, sys, pathlib; from easydata._fs import publish_bytes\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
            "publish_bytes(pathlib.Path(sys.argv[1]) / 'file', b'x' * 5000)"
        )
        result = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert "easydata.errors.StorageError: Cannot write" in result.stderr
        assert "is full. Free space and run again." in result.stderr
        assert list(tmp_path.iterdir()) == []

    def test_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match=r"Cannot write .*nothing.*No such file") as caught:
            publish_bytes(tmp_path / "nothing" / "file", b"")
        assert caught.value.errno == errno.ENOENT
        with pytest.raises(StorageError, match=r"Cannot flush .*nothing"):
            sync_directory(tmp_path / "nothing")
        sync_directory(tmp_path)

    def test_long_names(self, tmp_path: Path) -> None:
        path = tmp_path / ("n" * 255)
        publish_bytes(path, b"x")
        assert list(tmp_path.iterdir()) == [path]


class TestStorageErrors:
    @pytest.mark.parametrize(
        ("number", "remedy"),
        [
            (errno.ENOSPC, "full"),
            (errno.EDQUOT, "full"),
            (errno.EACCES, "permission denied. Choose a folder"),
            (errno.EROFS, "permission denied. Choose a folder"),
            (errno.EIO, "check the disk"),
        ],
    )
    def test_remedies(self, number: int, remedy: str) -> None:
        with (
            pytest.raises(StorageError, match=f"Cannot copy here: .*; .*{remedy}") as caught,
            storage_errors(Path("here"), "copy"),
        ):
            raise OSError(number, os.strerror(number))
        assert caught.value.errno == number
        assert isinstance(caught.value.__cause__, OSError)

    def test_only_once(self) -> None:
        with (
            pytest.raises(StorageError, match="Cannot write inner"),
            storage_errors(Path("outer")),
            storage_errors(Path("inner")),
        ):
            raise OSError(errno.EIO, "broken")

    def test_without_a_number(self) -> None:
        with pytest.raises(StorageError, match="odd") as caught, storage_errors(Path("x")):
            raise OSError("odd")
        assert caught.value.errno == errno.EIO

    def test_others_pass(self) -> None:
        with pytest.raises(KeyError), storage_errors(Path("x")):
            raise KeyError("x")


class TestExclusive:
    def test_one_at_a_time(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        program = (
            "import sys, pathlib; from easydata._fs import exclusive\n"
            "with exclusive(pathlib.Path(sys.argv[1]), on_wait='child waits'):\n"
            "    print('in', flush=True); sys.stdin.readline()"
        )
        lock = tmp_path / "lock"
        with subprocess.Popen(
            [sys.executable, "-c", program, str(lock)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == "in\n"

            class LetGo(logging.Handler):
                """Ends the child when this process says that it waits."""

                def emit(self, record: logging.LogRecord) -> None:
                    child.communicate("\n")

            handler = LetGo()
            logging.getLogger("easydata").addHandler(handler)
            try:
                with exclusive(lock, on_wait="this test waits"):
                    assert child.returncode == 0
            finally:
                logging.getLogger("easydata").removeHandler(handler)
        assert [record.message for record in caplog.records] == ["this test waits"]

    def test_it_is_free_again(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        for _ in range(2):
            with pytest.raises(KeyError), exclusive(tmp_path / "lock", on_wait="waits"):
                raise KeyError
        assert not caplog.records

    def test_no_locks_there(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise NotImplementedError

        monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
        entered = False
        with (
            pytest.warns(RuntimeWarning, match="has no locks; two processes"),
            exclusive(tmp_path / "lock", on_wait="waits"),
        ):
            entered = True
        assert entered

    def test_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with (
            pytest.raises(StorageError, match="Cannot lock"),
            exclusive(tmp_path / "file" / "lock", on_wait="waits"),
        ):
            pytest.fail("entered")


def test_the_folder_of_a_lock_goes_while_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "work" / "lock"
    lock.parent.mkdir()
    holder = filelock.FileLock(lock)
    holder.acquire()
    mkdir, raced = Path.mkdir, []

    def racing(path: Path, *args: Any, **kwargs: Any) -> None:
        if not raced:
            raced.append(path)
            holder.release()
            shutil.rmtree(lock.parent)
            raise FileExistsError(errno.EEXIST, "File exists", str(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", racing)
    with exclusive(lock, on_wait="waits"):
        assert raced == [lock.parent]
    monkeypatch.undo()


def test_a_folder_of_a_lock_that_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "work" / "lock"
    lock.parent.mkdir()
    holder = filelock.FileLock(lock)
    holder.acquire()
    mkdir = Path.mkdir

    def replaced(path: Path, *args: Any, **kwargs: Any) -> None:
        holder.release()
        shutil.rmtree(lock.parent, ignore_errors=True)
        lock.parent.write_text("mine")
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", replaced)
    with pytest.raises(StorageError, match="Cannot lock"), exclusive(lock, on_wait="waits"):
        pass
