"""A pipeline in a process of its own, killed again and again until it is complete."""

from __future__ import annotations

import json
import random
from pathlib import Path

import easydata as ed
from tests.build.killing import kill_after_new_names, start
from tests.build.support import rows, write

FILES = 12


def run_with_kills(folder: Path, *, kills: int, seed: int) -> int:
    """Run a pipeline that caches, packs, mixes and saves, killed up to `kills` times.

    In the middle of it a file changes. After each kill, what can be opened is whole; at the end
    every byte is that of a run that nobody disturbed. Returns how often it was killed.
    """
    chance = random.Random(seed)
    for name in ("a", "b"):
        for number in range(FILES):
            write(folder / name / f"{number}.jsonl", rows(150, seed=seed + number))
    done = 0
    for attempt in range(kills):
        if attempt == kills // 2:
            write(folder / "a" / "3.jsonl", rows(150, seed=seed + 1000))
        count = int(2 ** chance.uniform(0, 5.5))
        process = start("run", _config(folder, "out"))
        if kill_after_new_names(process, folder / "out", count):
            done += 1
        check_visible(folder / "out")
    write(folder / "a" / "3.jsonl", rows(150, seed=seed + 1000))
    _finish(folder, "out")
    _finish(folder, "whole")
    made, whole = results(folder / "out"), results(folder / "whole")
    different = {name for name in made.keys() | whole.keys() if made.get(name) != whole.get(name)}
    assert not different, f"seed {seed}: {sorted(different)}"
    return done


def results(folder: Path) -> dict[str, bytes]:
    """The shards of the cache, and what was saved, by name."""
    found = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("data-*"))
        if ".build" not in path.parts
    }
    assert any(name.startswith("saved") for name in found)
    assert any(name.startswith("cache") for name in found)
    return found


def check_visible(folder: Path) -> None:
    """What can be opened is whole."""
    for state in (folder / "cache").glob("*/*/state.json"):
        ed.open_dataset(state.parent, verify="open")
    if (folder / "saved" / ".easydata-save.json").exists():
        import pyarrow.parquet as pq

        assert pq.read_table(folder / "saved").num_rows


def _finish(folder: Path, out: str) -> None:
    process = start("run", _config(folder, out))
    _, messages = process.communicate(timeout=300)
    assert process.returncode == 0, messages.decode()


def _config(folder: Path, out: str) -> Path:
    path = folder / f"{out}.json"
    config = {
        "datasets": [{"name": name, "data_files": str(folder / name)} for name in ("a", "b")],
        "default_tokenizer": "bytes",
        "seed": 3,
        "tokenize": {"num_workers": 2},
        "cache": {"cache_dir": str(folder / out / "cache"), "hash_fn": "content"},
        "pack": {"enabled": True, "seq_length": 128, "pad_token_id": 0, "strategy": "best_fit"},
        "save": {
            "enabled": True,
            "output_dir": str(folder / out / "saved"),
            "max_shard_size": "200kB",
            "overwrite": True,
        },
        "observability": {"progress_enabled": False},
    }
    path.write_text(json.dumps(config))
    return path
