"""Every write, flush and rename of a build fails once, in turn."""

from __future__ import annotations

import errno
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import easydata as ed
from easydata import _fs

from .reports import report
from .support import rows, shards, write


class Faults:
    """Counts calls of one kind, and lets the n-th fail."""

    def __init__(self) -> None:
        self.calls = 0
        self.fail_at: int | None = None

    def count(self) -> None:
        self.calls += 1
        if self.calls - 1 == self.fail_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def wrap(self, function: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object, **kwargs: object) -> object:
            self.count()
            return function(*args, **kwargs)

        return counted


@pytest.fixture(params=["replace", "fsync", "write"])
def faults(request, monkeypatch):
    found = Faults()
    if request.param == "write":

        class File(io.FileIO):
            def write(self, data: object) -> int:
                found.count()
                return super().write(data)

        monkeypatch.setattr(
            _fs, "open", lambda fd, mode: io.BufferedRandom(File(fd, "r+")), raising=False
        )
    else:
        monkeypatch.setattr(os, request.param, found.wrap(getattr(os, request.param)))
    return found


@pytest.mark.parametrize("with_old", [False, True], ids=["new", "overwrite"])
def test_a_failed_build_loses_nothing_and_the_next_one_continues(tmp_path, faults, with_old):
    source = write(tmp_path / "a.jsonl", rows(100))
    old_source = write(tmp_path / "old.jsonl", rows(20, seed=9))
    parts = report(source, tmp_path / "whole").outcome.parts
    assert parts >= 4
    whole = shards(tmp_path / "whole")
    report(old_source, tmp_path / "old")
    old = shards(tmp_path / "old")

    reused = []
    for number in range(1000):
        out = tmp_path / f"out-{number}"
        if with_old:
            shutil.copytree(tmp_path / "old", out)
        faults.calls, faults.fail_at = 0, number
        try:
            report(source, out, overwrite=with_old)
        except ed.StorageError as error:
            message = str(error)
        else:
            break
        finally:
            faults.fail_at = None
        assert "Free space and run again" in message
        assert str(out) in message
        finished = {path.name[12:44] for path in out.rglob("ledger-part-*")}
        assert not list(out.rglob(".tmp-*"))
        visible = visible_shards(out)
        assert visible in (whole, old if with_old else None)

        outcome = report(source, out, overwrite=with_old).outcome
        if outcome is None:  # the failure came after the commit
            assert visible == whole
        else:
            assert outcome.reused == (parts if visible == whole else len(finished))
            reused.append(outcome.reused)
        assert shards(out) == whole
        assert not (out / ".build").exists()
        ed.open_dataset(out, verify="open")
    assert faults.calls == number  # not one call was left out
    assert number > 5
    assert reused == sorted(reused)
    assert reused[-1] == parts


def visible_shards(out: Path) -> dict[str, bytes] | None:
    """The shards of the dataset that can be opened, if one can."""
    try:
        dataset = ed.open_dataset(out, verify="open")
    except ed.NotADatasetError:
        return None
    found = [dataset.ledger.shard_name(i) for i in range(dataset.ledger.num_shards)]
    return {name: (out / name).read_bytes() for name in found}


def test_where_links_do_not_exist_files_are_copied(tmp_path, monkeypatch):
    source = write(tmp_path / "a.jsonl", rows(100))
    report(source, tmp_path / "whole")

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    report(source, tmp_path / "out")
    assert shards(tmp_path / "out") == shards(tmp_path / "whole")


@pytest.mark.parametrize("hurt", ["flip", "cut", "empty", "remove"])
def test_damaged_finished_parts_are_made_again(tmp_path, monkeypatch, hurt, caplog):
    source = write(tmp_path / "a.jsonl", rows(100))
    report(source, tmp_path / "whole")
    out = tmp_path / "out"
    real = os.replace

    def stop_at_ledger(origin: str, target: str) -> None:
        if Path(target).parent == out:
            raise OSError(errno.EIO, "stop")
        real(origin, target)

    monkeypatch.setattr(os, "replace", stop_at_ledger)
    with pytest.raises(ed.StorageError, match="check the disk"):
        report(source, out)
    monkeypatch.undo()

    for path in [p for p in out.joinpath(".build").rglob("*.arrow") if "ledger" not in p.name]:
        data = bytearray(path.read_bytes())
        path.unlink()
        if hurt == "flip":
            data[len(data) // 2] ^= 1
        if hurt != "remove":
            path.write_bytes(data[: {"cut": len(data) // 2, "empty": 0}.get(hurt)])
    outcome = report(source, out).outcome
    assert outcome.reused < outcome.parts
    assert shards(out) == shards(tmp_path / "whole")


def test_torn_ledgers_of_parts_are_made_again(tmp_path, monkeypatch):
    source = write(tmp_path / "a.jsonl", rows(100))
    report(source, tmp_path / "whole")
    out = tmp_path / "out"

    def refuse(*args: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(os, "link", refuse)
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(ed.StorageError):
            report(source, out)
    ledgers = sorted(out.rglob("ledger-part-*"))
    assert len(ledgers) > 1
    for path in ledgers[1:]:
        path.write_bytes(b"\0" * path.stat().st_size)
    assert report(source, out).outcome.reused == 1
    assert shards(out) == shards(tmp_path / "whole")
