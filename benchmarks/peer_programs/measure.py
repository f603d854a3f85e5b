"""What is measured of one program, in a process of its own. Arguments and results are JSON."""

from __future__ import annotations

import importlib
import itertools
import os
import time
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from benchmarks.peer_programs import memmap
from benchmarks.peer_programs.reading import Reader, Shape, Tokens, Variant, samples

__all__ = ["first_batch", "rates", "write"]

_SECONDS_BETWEEN = 0.05


def write(program: str, file: str, folder: str, lengths: list[int]) -> dict[str, Any]:
    """Store the tokens in the program's format, for samples of each length.

    Returns:
        versions: of the program's packages; how: each of its variants is driven.
    """
    module = _module(program)
    for seq_len in lengths:
        where = Path(folder) / str(seq_len)
        where.mkdir(parents=True)
        module.write(Path(file), where, seq_len)
    return {
        "versions": ", ".join(f"{name} {version(name)}" for name in module.PACKAGES),
        "how": {name: variant.how for name, variant in module.VARIANTS.items()},
    }


def rates(
    program: str,
    names: list[str],
    file: str,
    folder: str,
    shapes: list[list[int]],
    rounds: list[bool],
    seconds: float,
) -> list[dict[str, list[float]]]:
    """Tokens a second of each variant, and of NumPy's limit in turn with it, in each round.

    Args:
        program: the name of its module.
        names: of its variants.
        file: the tokens, dtype[n], named tokens.npy.
        folder: what `write` made.
        shapes: of batches, as in `Shape`.
        rounds: which of them count.
        seconds: after which a round ends, if the epoch has not.

    Returns:
        for each shape, the rates by name.
    """
    module = _module(program)
    for name in names:
        module.load(name)
    limit = memmap.VARIANTS[memmap.LIMIT]
    found = []
    for shape in map(_shape, shapes):
        rows = samples(Path(file), shape.seq_len)
        sides = {memmap.LIMIT: (limit, Path(file).parent)}
        sides |= {name: (module.VARIANTS[name], _at(folder, shape)) for name in names}
        readers: dict[str, Reader | None] = {}
        for name, (variant, where) in sides.items():
            reader = variant.open(where, shape)
            _check(name, variant, reader, shape, rows)
            readers[name] = None if variant.is_opened_anew else reader
            del reader
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for seed, counts in enumerate(rounds):
            for name, (variant, where) in sides.items():
                speed = _speed(variant, readers[name], where, shape, seed, seconds)
                if counts:
                    speeds[name].append(speed)
        found.append(speeds)
    return found


def first_batch(
    program: str, name: str, folder: str, shape: list[int], seconds: float
) -> dict[str, Any]:
    """Milliseconds from a closed dataset to its first batch, with everything imported, and the
    anonymous memory that reading takes above that of the imports.
    """
    module = _module(program)
    module.load(name)
    imported = anonymous_bytes()
    wanted = _shape(shape)
    variant = module.VARIANTS[name]
    where = _at(folder, wanted)
    start = time.perf_counter()
    batches = iter(variant.open(where, wanted)(0))
    batch = next(batches)
    milliseconds = 1000 * (time.perf_counter() - start)
    peak = anonymous_bytes()
    measured = time.perf_counter()
    end = measured + seconds
    del batch
    for batch in batches:
        now = time.perf_counter()
        if now - measured > _SECONDS_BETWEEN:
            peak, measured = max(peak, anonymous_bytes()), now
        del batch
        if now > end:
            break
    return {"ms": milliseconds, "MB": (peak - imported) / 1e6}


def _module(program: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.peer_programs.{program}")


def _shape(values: list[int]) -> Shape:
    batch_size, seq_len, is_shuffled = values
    return Shape(batch_size, seq_len, bool(is_shuffled))


def _at(folder: str, shape: Shape) -> Path:
    return Path(folder) / str(shape.seq_len)


def _speed(
    variant: Variant, reader: Reader | None, where: Path, shape: Shape, seed: int, seconds: float
) -> float:
    """Tokens a second of one round, which ends with the epoch or after so many seconds."""
    if reader is None:
        start = time.perf_counter()
        # Until the time is taken it stays open, as those do that were opened before.
        opened = variant.open(where, shape)
        batches = opened(seed)
    else:
        batches = reader(seed)
        start = time.perf_counter()
    deadline = start + seconds
    if shape.is_shuffled:
        tokens = _read(variant, batches, shape.batch_size * shape.seq_len, deadline)
    else:
        tokens = _read_and_copy(variant, batches, deadline)
    return tokens / (time.perf_counter() - start)


def _read(variant: Variant, batches: Iterable[Any], size: int, deadline: float) -> int:
    """Each batch is dropped before the next."""
    tokens = 0
    for batch in batches:
        tokens += sum(map(len, variant.arrays(batch))) if variant.has_documents else size
        del batch
        if time.perf_counter() > deadline:
            break
    return tokens


def _read_and_copy(variant: Variant, batches: Iterable[Any], deadline: float) -> int:
    """The same, and each is copied into one buffer, as a transfer to a device would.

    Without the copy, who gives views would read nothing.
    """
    tokens = 0
    buffer: Tokens | None = None
    for batch in batches:
        for array in variant.arrays(batch):
            flat = array.reshape(-1)
            if buffer is None or len(buffer) < len(flat):
                buffer = np.empty(2 * len(flat), flat.dtype)
            buffer[: len(flat)] = flat
            tokens += len(flat)
            del array, flat
        del batch
        if time.perf_counter() > deadline:
            break
    return tokens


def _check(name: str, variant: Variant, reader: Reader, shape: Shape, rows: Tokens) -> None:
    """Raise if the first batches are not those tokens."""
    flat = rows.reshape(-1)
    is_in_order = variant.keeps_order and not shape.is_shuffled
    known = set() if is_in_order else {hash(row.tobytes()) for row in rows}
    seen = 0
    for batch in itertools.islice(reader(0), min(3, len(rows) // shape.batch_size)):
        for array in variant.arrays(batch):
            if is_in_order:
                right = np.array_equal(array.reshape(-1), flat[seen : seen + array.size])
            else:  # shuffled documents are not known
                right = variant.has_documents or all(
                    hash(row.astype(rows.dtype).tobytes()) in known for row in array
                )
            if not right:
                raise RuntimeError(f"{name} gave other tokens than it was to read.")
            seen += array.size
        del batch
    if not seen or not (variant.has_documents or seen % (shape.batch_size * shape.seq_len) == 0):
        raise RuntimeError(f"{name} gave {seen} tokens in its first batches of {shape}.")


def anonymous_bytes() -> int:
    """Memory of this process and all below it that no file backs; what forks share counts once."""
    total = 0
    front = [os.getpid()]
    while front:
        folder = Path(f"/proc/{front.pop()}")
        try:
            lines = (folder / "smaps_rollup").read_text().splitlines()
            children = [(task / "children").read_text() for task in (folder / "task").iterdir()]
        except OSError:
            continue  # it has ended meanwhile
        front += [int(pid) for some in children for pid in some.split()]
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss_Anon:"))
    return total
