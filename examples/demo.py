"""The main job in seven steps, on text that every machine with Python has: Python's own sources.

    make demo
    python examples/demo.py --corpus my/folder --pattern '*.md' --vocab-size 8000 --out .demo-mine

Run it twice: the second time it finds its tokenizer and its dataset, and tokenizes nothing.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

import easydata as ed

EOS = "<|endoftext|>"
BATCH_SIZE, SEQ_LEN = 32, 2048
# Enough text for 32,000 good tokens; all of the standard library would take thrice as long.
TRAINING_CHARACTERS = 10_000_000


def main() -> int:
    """Run the seven steps; the first check that fails ends the demo with exit code 1."""
    given = parse_arguments()
    # The few files that are not UTF-8 are counted below; there is no need to list them.
    logging.getLogger("easydata").setLevel(logging.ERROR)
    start = time.perf_counter()
    files = sorted(
        path
        for path in given.corpus.rglob(given.pattern)
        if path.is_file() and {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    )
    size = sum(path.stat().st_size for path in files)
    print(f"Corpus: {len(files):,} files, {size / 1e6:.1f} MB below {given.corpus}")

    tokenizer = given.out / "tokenizer.json"
    train_tokenizer(tokenizer, files, given.vocab_size)
    ds = build(given.out / "dataset", files, tokenizer)
    build_again(ds, files, tokenizer)
    verify(ds)
    show_rows(ds, given.corpus)
    read_an_epoch(ds)
    open_with_everything(ds)
    print(f"\nDone in {time.perf_counter() - start:.1f} s. The dataset stays in {ds.path}: try")
    command = Path(sys.executable).with_name("easydata")  # not on the PATH of every shell
    print(f"  {command} info {ds.path}")
    print(f"  {command} head {ds.path} -n 3 --decode")
    return 0


def train_tokenizer(path: Path, files: list[Path], vocab_size: int) -> None:
    """Use the tokenizer of an earlier run, or train one on a sample of the text."""
    step(1, "Train a byte-level BPE tokenizer, once")
    if path.exists():
        done(f"found in {path}: reused")
        return
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    start = time.perf_counter()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sample_texts(files), trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Under another name first, so that an interrupted run leaves no half of a tokenizer.
    temporary = path.with_suffix(".tmp")
    tokenizer.save(str(temporary))
    temporary.rename(path)
    done(f"{tokenizer.get_vocab_size():,} tokens, in {path}", start)


def sample_texts(files: list[Path]) -> Iterator[str]:
    """Texts of files in a seeded random order, until there are enough."""
    left = TRAINING_CHARACTERS
    for path in random.Random(0).sample(files, len(files)):
        text = path.read_bytes().decode(errors="ignore")
        yield text
        left -= len(text)
        if left < 0:
            return


def build(out: Path, files: list[Path], tokenizer: Path) -> ed.TokenDataset:
    """Step 2. Files that are not UTF-8 are skipped and counted."""
    step(2, "Build: tokenize every file into an Arrow cache, one row for each file")
    start = time.perf_counter()
    was_there = (out / "state.json").exists()
    try:
        ds = ed.build(files, tokenizer=tokenizer, out=out, type="text", on_error="skip")
    except ed.OutputExistsError:
        was_there = False
        print("   the files or the tokenizer have changed since the last run: replacing")
        ds = ed.build(
            files, tokenizer=tokenizer, out=out, type="text", on_error="skip", overwrite=True
        )
    skipped = ds.ledger.total("skipped")
    empty = sum(path.stat().st_size == 0 for path in files)
    check(
        len(ds) + skipped + empty == len(files),
        f"{len(ds)} rows, {skipped} skipped and {empty} empty files are {len(files)} files",
    )
    shards = shard_files(ds)
    bits = 8 * sum(path.stat().st_size for path in shards) / ds.num_tokens
    print(
        f"   {len(ds):,} rows, {ds.num_tokens:,} tokens as {ds.dtype}, {bits:.1f} bits/token, "
        f"{len(shards)} shard{'s' * (len(shards) != 1)}"
    )
    print(f"   left out: {skipped} files that are not UTF-8, {empty} that are empty")
    done("it was there: reused" if was_there else f"built in {out}", start)
    return ds


def build_again(ds: ed.TokenDataset, files: list[Path], tokenizer: Path) -> None:
    """Step 3. A build knows its inputs by their content, so it knows when it is done."""
    step(3, "Build again: the same files, tokenizer and options are a hit")
    start = time.perf_counter()
    written = (ds.path / "state.json").stat().st_mtime_ns
    again = ed.build(files, tokenizer=tokenizer, out=ds.path, type="text", on_error="skip")
    check(again.fingerprint == ds.fingerprint, "the same fingerprint")
    check((ds.path / "state.json").stat().st_mtime_ns == written, "nothing was written")
    done(f"nothing to do; fingerprint {ds.fingerprint}", start)


def verify(ds: ed.TokenDataset) -> None:
    """Step 4. Damage raises a `CorruptShardError` that names the file and the remedy."""
    step(4, "Verify: compare every byte with its checksum")
    start = time.perf_counter()
    ds.verify()
    size = sum(path.stat().st_size for path in shard_files(ds))
    done(f"{size / 1e6:.1f} MB undamaged", start)


def show_rows(ds: ed.TokenDataset, corpus: Path) -> None:
    """Step 5. The tokenizer lies beside the data, so decoding needs nothing else."""
    step(5, "Look at rows: which file they come from, and their text, decoded")
    for row in sorted(random.Random(1).sample(range(len(ds)), min(3, len(ds)))):
        source = Path(ds.lineage(row).source)
        text = ds.decode(row)
        check(text == source.read_bytes().decode(), f"row {row} decodes to {source}")
        ids = ds[row]["input_ids"]
        head = next((line.strip() for line in text.splitlines() if len(line) > 3), "…")
        print(f"   row {row:<5} {source.relative_to(corpus)}: {len(ids):,} tokens")
        print(f"     {head[:72]}")
        print(f"     {' '.join(map(str, ids[:12].tolist()))} …")
    done("every text equals its file")


def read_an_epoch(ds: ed.TokenDataset) -> None:
    """Step 6. A batch is a NumPy array, copied once out of the mapped file."""
    step(6, f"Feed one shuffled epoch of {BATCH_SIZE}×{SEQ_LEN} batches")
    loader = ds.loader(BATCH_SIZE, SEQ_LEN, shuffle=True, seed=0, epochs=1, drop_last=False)
    start = time.perf_counter()
    tokens = 0
    for batch in loader:
        tokens += batch["input_ids"].size  # uint16[32, 2048], ready for the model
    seconds = time.perf_counter() - start

    # The order is random, but every token must come exactly once.
    shuffled = sum(int(batch["input_ids"].sum(dtype=np.int64)) for batch in loader)
    in_order = int(ds.tokens(0, tokens).sum(dtype=np.int64))
    check(tokens == loader.num_samples * SEQ_LEN and shuffled == in_order, "every token comes once")
    done(f"{len(loader)} batches, {tokens:,} tokens: {tokens / seconds / 1e6:,.0f} M tokens/s")


def open_with_everything(ds: ed.TokenDataset) -> None:
    """Step 7. Shards are Arrow IPC streams, which many programs read."""
    step(7, "Open the same files elsewhere, without an export")
    expected = (len(ds), ds.num_tokens)
    for name, count in READERS.items():
        start = time.perf_counter()
        found = count(ds.path, shard_files(ds))
        check(found == expected, f"{name} finds {found} rows and tokens, easydata {expected}")
        seconds = time.perf_counter() - start
        print(f"   {name:<10} {found[0]:>7,} rows {found[1]:>12,} tokens   {seconds:5.2f} s")
    done("they all agree")


def count_with_datasets(folder: Path, shards: list[Path]) -> tuple[int, int]:
    """HuggingFace `datasets`: the folder is what `save_to_disk` writes."""
    del shards
    import datasets

    rows = datasets.load_from_disk(str(folder))
    return len(rows), count_tokens(rows.with_format("arrow")[:])


def count_with_pandas(folder: Path, shards: list[Path]) -> tuple[int, int]:
    """pandas, through pyarrow."""
    del folder
    import pandas as pd

    frame = pd.concat([pa.ipc.open_stream(pa.memory_map(str(p))).read_pandas() for p in shards])
    return len(frame), int(frame["input_ids"].map(len).sum())


def count_with_polars(folder: Path, shards: list[Path]) -> tuple[int, int]:
    """Polars, with its own Arrow reader."""
    del folder
    import polars as pl

    frame = pl.concat([pl.read_ipc_stream(path) for path in shards])
    return len(frame), int(frame["input_ids"].list.len().sum())


def count_with_duckdb(folder: Path, shards: list[Path]) -> tuple[int, int]:
    """DuckDB: SQL over the mapped Arrow table."""
    del folder
    import duckdb

    rows = pa.concat_tables(read_shard(path) for path in shards)
    with duckdb.connect() as connection:
        connection.register("rows", rows)
        query = "select count(*), sum(len(input_ids)) from rows"
        found = connection.execute(query).fetchall()[0]
    return int(found[0]), int(found[1])


def count_with_pyarrow(folder: Path, shards: list[Path]) -> tuple[int, int]:
    """Plain pyarrow."""
    del folder
    tables = [read_shard(path) for path in shards]
    return sum(map(len, tables)), sum(map(count_tokens, tables))


READERS: dict[str, Callable[[Path, list[Path]], tuple[int, int]]] = {
    "datasets": count_with_datasets,
    "pandas": count_with_pandas,
    "Polars": count_with_polars,
    "DuckDB": count_with_duckdb,
    "pyarrow": count_with_pyarrow,
}


def read_shard(path: Path) -> pa.Table:
    """A shard as a table whose columns are views of the mapped file."""
    return pa.ipc.open_stream(pa.memory_map(str(path))).read_all()


def count_tokens(table: pa.Table) -> int:
    """Token ids in all rows of a table."""
    return sum(len(chunk.flatten()) for chunk in table["input_ids"].chunks)


def shard_files(ds: ed.TokenDataset) -> list[Path]:
    """The files that hold the rows."""
    return sorted(ds.path.glob("data-*.arrow"))


def step(number: int, what: str) -> None:
    """Announce a step."""
    print(f"\n{number}. {what}", flush=True)


def done(what: str, start: float | None = None) -> None:
    """Say what came out of it."""
    took = "" if start is None else f"   ({time.perf_counter() - start:.1f} s)"
    print(f"   → {what}{took}", flush=True)


def check(holds: bool, what: str) -> None:
    """End the demo with exit code 1 unless `holds`."""
    if not holds:
        raise SystemExit(f"   ✗ this does not hold: {what}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="easydata in seven steps.")
    library = Path(sysconfig.get_path("stdlib"))
    parser.add_argument("--corpus", type=Path, default=library, help="a folder of text files")
    parser.add_argument("--pattern", default="*.py", help="which files below it")
    parser.add_argument("--vocab-size", type=int, default=32_000, help="tokens to train")
    parser.add_argument("--out", type=Path, default=Path(".demo"), help="where to work")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except ed.EasyDataError as error:
        sys.exit(f"   ✗ {error}")
