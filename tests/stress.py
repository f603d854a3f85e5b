"""The long forms of tests: `python -m tests.stress [kills] [seed]`, `… pipeline`, `… cache`.

Each round kills a build at random moments until it completes, and compares every byte with a
build that nobody disturbed. A new seed is drawn and printed unless one is given.

With `pipeline [kills]`, whole pipelines are killed (20 times unless told), while a file changes.

With `cache [keys]`, 4 processes write and read the same keys of one cache folder (100,000 unless
told), and every value must be one that was put for its key, none torn, none lost.
"""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

import easydata as ed
from tests.build.killing import OPTIONS, build_with_kills
from tests.build.support import rows, shards, write
from tests.cache.crowd import overlap
from tests.pipeline.killing import run_with_kills

SIZES = {"tokenizer": "bytes", "part_size": "4kB", "shard_size": "20kB"}
VARIANTS = [{}, {"compression": "zstd"}, {"format": "parquet"}]


def main() -> None:
    """What the command line says."""
    if sys.argv[1:2] == ["cache"]:
        stress_cache(*map(int, sys.argv[2:]))
    elif sys.argv[1:2] == ["pipeline"]:
        stress_pipelines(*map(int, sys.argv[2:]))
    else:
        stress_builds(*map(int, sys.argv[1:]))


def stress_cache(num_keys: int = 100_000) -> None:
    """Let processes write and read so many keys of one cache."""
    with tempfile.TemporaryDirectory() as folder:
        overlap(Path(folder) / "cache", num_keys)
    print(f"{num_keys:,} keys: every value as it was put.")


def stress_pipelines(wanted: int = 20) -> None:
    """Kill pipelines at least so many times in all."""
    done = 0
    while done < wanted:
        seed = secrets.randbelow(10**6)
        print(f"seed {seed}", flush=True)
        with tempfile.TemporaryDirectory() as folder:
            done += run_with_kills(Path(folder), kills=min(wanted, 20), seed=seed)
        print(f"{done} kills in all")
    print("Every byte as it should be.")


def stress_builds(wanted: int = 60, seed: int | None = None) -> None:
    """Kill builds of every variant, at least `wanted` times in all."""
    if seed is None:
        seed = secrets.randbelow(10**6)
    print(f"seed {seed}")
    done = rounds = 0
    while done < wanted:
        variant = VARIANTS[rounds % len(VARIANTS)]
        with_old = rounds % 2 == 1
        with tempfile.TemporaryDirectory() as folder:
            kills = one_round(Path(folder), variant, seed + rounds, with_old=with_old)
        done += kills
        rounds += 1
        over = " over a dataset" if with_old else ""
        print(f"round {rounds}: {variant or 'plain'}{over}: {kills} kills, {done} in all")
    print("Every byte as it should be.")


def one_round(folder: Path, variant: dict[str, str], seed: int, *, with_old: bool) -> int:
    """Build once undisturbed, once with up to 20 kills; how many there were."""
    source = write(folder / "a.jsonl", rows(1000, seed=seed))
    ed.build(source, out=folder / "whole", **SIZES, **variant)
    whole = shards(folder / "whole")
    out = folder / "out"
    command = ["build", source, *OPTIONS, "--out", out]
    for name, value in variant.items():
        command += [f"--{name}", value]
    old = None
    if with_old:
        ed.build(rows(200, seed=seed + 1), out=out, **SIZES)
        old = shards(out)
        command.append("--overwrite")
    return build_with_kills(command, out, kills=20, seed=seed, whole=whole, old=old)


if __name__ == "__main__":
    main()
