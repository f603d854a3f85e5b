"""Packing plans kept beside the data that they are for.

    plans/.lock              held while a plan is made
    plans/0f3a….arrow        an uncompressed Arrow IPC stream of one batch, then 16 bytes

The first 16 digits of a name follow from the identity of the documents, the others from how they
are packed. The 16 bytes at the end are the XXH3-128 of all that the name follows from and of all
bytes before them: a file that was cut, altered or renamed is noticed.
"""

from __future__ import annotations

import contextlib
import json
import logging
import shutil
import warnings
from collections.abc import Callable, Collection
from pathlib import Path

import numpy.typing as npt
import pyarrow as pa

from easydata._fs import exclusive, is_temporary, publish_file, storage_errors
from easydata.errors import StorageError, UsageError
from easydata.fingerprint import Hasher, fingerprint_json
from easydata.format.directory import remove_temporary
from easydata.format.mapping import map_file
from easydata.loader._checks import check_count
from easydata.loader.packing_plan import PackingPlan, check_strategy, plan_packing

__all__ = ["PLANS_FOLDER", "remove_plans", "stored_plan"]

_log = logging.getLogger("easydata")

PLANS_FOLDER = "plans"
_LOCK = ".lock"
_SUFFIX = ".arrow"
_PREFIX_DIGITS = 16
_DIGEST_BYTES = 16
_BLOCK_BYTES = 1 << 20
# To be raised when a strategy chooses other samples than before, or the files change.
_VERSION = 1


class _NoPlanError(Exception):
    """A file that should hold a plan does not."""


def stored_plan(
    directory: Path,
    identity: str,
    lengths: Callable[[], npt.ArrayLike],
    seq_len: int,
    strategy: str,
    *,
    num_packers: int = 4,
) -> PackingPlan:
    """The plan of `plan_packing`, made once and then mapped from a file in `directory`.

    A stored plan is checked as a whole when it is opened, which is one pass over its bytes: tens
    of milliseconds for 10^7 documents in the page cache. A damaged one is made anew and replaced,
    and a line is logged; it is never served.

    Of several processes one makes the plan, and the others wait for it.

    Args:
        directory: the dataset directory, in which a folder `plans` is made.
        identity: tells the documents, their lengths and their order, from all others; such as
            the fingerprint of the dataset.
        lengths: gives int64[documents]; called only if no such plan is stored.
        seq_len: tokens in a sample.
        strategy: see `plan_packing`; "concat" needs no plan.
        num_packers: open samples of "pool".

    Returns:
        A plan whose arrays are views of a memory map, which stays valid when the file goes.

    Raises:
        UsageError: an argument is out of range, or the documents hold no token.

    Warns:
        RuntimeWarning: the plan cannot be stored; it is in memory.
    """
    seq_len = check_count(seq_len, "seq_len")
    num_packers = check_count(num_packers, "num_packers")
    check_strategy(strategy)
    if strategy == "concat":
        raise UsageError("packing with 'concat' needs no plan; pack with easydata.pack.")
    if not identity:
        raise UsageError("the identity of the documents is empty; give the dataset's fingerprint.")
    packing = {
        "version": _VERSION,
        "seq_len": seq_len,
        "strategy": strategy,
        "num_packers": num_packers if strategy == "pool" else None,
    }
    seed = json.dumps([identity, packing]).encode()
    name = f"{_prefix(identity)}{fingerprint_json(packing)[:_PREFIX_DIGITS]}{_SUFFIX}"
    path = directory / PLANS_FOLDER / name
    with contextlib.suppress(_NoPlanError, OSError):  # what it was is seen under the lock
        return _read(path, seed)
    with contextlib.ExitStack() as lock:
        problem: OSError | _NoPlanError | None = None
        try:
            # A dataset directory that has been deleted is not made again.
            with storage_errors(path.parent):
                path.parent.mkdir(exist_ok=True)
            on_wait = f"Waiting for another process that packs documents of {directory} …"
            lock.enter_context(exclusive(path.parent / _LOCK, on_wait=on_wait))
        except StorageError as error:
            problem = error
        try:
            return _read(path, seed)
        except FileNotFoundError:
            pass
        except (_NoPlanError, OSError) as error:
            _log.warning("The packing plan %s is made anew: %s.", path, error)
        plan = plan_packing(lengths(), seq_len, strategy, num_packers=num_packers)
        if problem is None:
            try:
                with storage_errors(path.parent):
                    remove_temporary(path.parent)
                _write(path, seed, plan)
                return _read(path, seed)
            except (_NoPlanError, OSError) as error:
                problem = error
    warnings.warn(
        f"The packing plan is not stored, so each process makes it again: {problem}",
        RuntimeWarning,
        stacklevel=2,
    )
    return plan


def remove_plans(directory: Path, *, keep: Collection[str] = ()) -> None:
    """Delete the plans in a dataset directory, but for those of documents with these identities.

    Who has one mapped keeps reading it. If none is to be kept, the folder goes too, as far as it
    can be deleted.

    Raises:
        StorageError: some are to be kept, and another cannot be deleted.
    """
    folder = directory / PLANS_FOLDER
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)
        return
    kept = {_prefix(identity) for identity in keep}
    with storage_errors(folder, "clear"):
        for path in folder.glob(f"*{_SUFFIX}"):
            if path.name[:_PREFIX_DIGITS] not in kept and not is_temporary(path.name):
                path.unlink(missing_ok=True)


def _prefix(identity: str) -> str:
    return fingerprint_json(identity)[:_PREFIX_DIGITS]


def _read(path: Path, seed: bytes) -> PackingPlan:
    """The plan in a file, mapped.

    Raises:
        FileNotFoundError: there is no such file.
        _NoPlanError: it is not what was written under this name.
    """
    data = map_file(path)
    end = data.size - _DIGEST_BYTES
    hasher = Hasher(seed)
    hasher.update(memoryview(data)[: max(end, 0)])
    if end < 0 or hasher.digest() != data.slice(end).to_pybytes():
        raise _NoPlanError("the file is damaged")
    return PackingPlan.from_table(pa.ipc.open_stream(data.slice(0, end)).read_all())


def _write(path: Path, seed: bytes, plan: PackingPlan) -> None:
    table = plan.to_table()
    # What a power failure spoils is noticed and made anew, so nothing waits for the disk.
    with publish_file(path, sync=False) as file:
        with pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
        file.seek(0)
        hasher = Hasher(seed)
        while block := file.read(_BLOCK_BYTES):
            hasher.update(block)
        file.write(hasher.digest())
