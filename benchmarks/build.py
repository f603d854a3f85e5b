"""The cost of building over that of the tokenizing alone."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

from benchmarks import corpus
from benchmarks.common import Bar, Options, Report, Spread
from benchmarks.fresh import call_fresh

_THREADS = 2
_USUAL_BATCH = 1000
_BATCHES = (128,)  # besides the usual one
_MANY_THREADS = {"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": str(_THREADS)}
# Processes that tokenize at the same time have one thread each: as many in all.
_ONE_THREAD = {"TOKENIZERS_PARALLELISM": "false"}


def easydata_build(source: str, tokenizer: str, out: str) -> dict[str, Any]:
    import easydata as ed

    start = time.perf_counter()
    ds = ed.build(source, tokenizer=tokenizer, out=out, workers=_THREADS)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens": ds.num_tokens - len(ds)}


def bare_loop(source: str, tokenizer: str, out: str, batch: int) -> dict[str, Any]:
    """Tokenizes texts that lie in memory, and throws the result away."""
    del out
    import tokenizers

    core = tokenizers.Tokenizer.from_file(tokenizer)
    start = time.perf_counter()
    with Path(source).open(encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    read = time.perf_counter() - start
    tokens = 0
    start = time.perf_counter()
    for first in range(0, len(texts), batch):
        rows = core.encode_batch_fast(texts[first : first + batch], add_special_tokens=False)
        tokens += sum(map(len, rows))
    return {"seconds": time.perf_counter() - start, "reading": read, "tokens": tokens}


def datasets_map(source: str, tokenizer: str, out: str, num_proc: int | None) -> dict[str, Any]:
    import datasets
    import tokenizers

    datasets.disable_progress_bars()
    core = tokenizers.Tokenizer.from_file(tokenizer)

    def encode(rows: dict[str, list[str]]) -> dict[str, list[list[int]]]:
        found = core.encode_batch_fast(rows["text"], add_special_tokens=False)
        return {"input_ids": [row.ids for row in found]}

    loaded = datasets.Dataset.from_json(source, cache_dir=f"{out}-cache")
    start = time.perf_counter()
    result = loaded.map(encode, batched=True, remove_columns=["text"], num_proc=num_proc)
    result.save_to_disk(out)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "tokens": sum(map(len, result.with_format("arrow")["input_ids"]))}


def run(options: Options) -> Report:
    megabytes = options.pick(100, 0.3)
    source = corpus.jsonl(options, megabytes)
    batches = [*options.pick(_BATCHES, ()), _USUAL_BATCH]
    sides: dict[str, tuple[Any, list[Any], dict[str, str]]] = {
        "easydata.build": (easydata_build, [], {}),
        **{f"bare loop, batch {n}": (bare_loop, [n], _MANY_THREADS) for n in batches},
        "datasets.map + save_to_disk": (datasets_map, [None], _MANY_THREADS),
        "the same, num_proc=2": (datasets_map, [2], _ONE_THREAD),
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    reading: list[float] = []
    tokens: dict[str, int] = {}
    for _ in range(options.pick(5, 1)):
        for name, (function, arguments, env) in sides.items():
            out = options.scratch / "build-out"
            result = call_fresh(
                function, str(source), str(corpus.tokenizer(options)), str(out), *arguments, env=env
            )
            seconds[name].append(result["seconds"])
            tokens[name] = result["tokens"]
            reading += [result["reading"]] if "reading" in result else []
            for folder in (out, out.with_name("build-out-cache")):
                shutil.rmtree(folder, ignore_errors=True)
    if len(set(tokens.values())) != 1:
        raise SystemExit(f"The sides made different numbers of tokens: {tokens}")
    return _report(megabytes, {n: Spread.of(s) for n, s in seconds.items()}, reading, tokens)


def _report(
    megabytes: float, spreads: dict[str, Spread], reading: list[float], tokens: dict[str, int]
) -> Report:
    usual = spreads[f"bare loop, batch {_USUAL_BATCH}"].median
    loops = [name for name in spreads if name.startswith("bare loop")]
    best_loop = min(loops, key=lambda name: spreads[name].median)
    best = spreads[best_loop].median
    read = Spread.of(reading)
    ours, single = spreads["easydata.build"], spreads["datasets.map + save_to_disk"]
    report = Report(
        "what does building cost over the tokenizing alone?",
        [
            f"{megabytes} MB of JSONL; {_THREADS} threads or processes on every side; in turn, "
            "each in a fresh process, after imports",
            "easydata reads the file, tokenizes, adds EOS, writes, syncs and publishes; the loop "
            "has its texts in memory and keeps nothing; datasets has read its rows already",
            f"reading the same file with json.loads takes {read.median:.2f} s, not in the loop's "
            "time",
        ],
    )
    for name, spread in spreads.items():
        report.rows.append(
            {
                "what": name,
                "seconds": spread,
                "M tokens/s": tokens[name] / spread.median / 1e6,
                f"/ loop, batch {_USUAL_BATCH}": spread.median / usual,
                "/ best loop": spread.median / best,
                "/ best loop + reading": spread.median / (best + read.median),
            }
        )
    report.bars = [
        Bar(f"easydata / loop, batch {_USUAL_BATCH}", ours.median / usual, 1.1, False, "issue 2"),
        Bar(f"easydata / best loop ({best_loop})", ours.median / best, 1.1, False, "issue 2"),
        Bar("easydata / datasets.map", ours.median / single.median, 1.0, False, "issue 2"),
    ]
    return report
