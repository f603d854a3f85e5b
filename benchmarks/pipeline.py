"""What a pipeline costs when there is nothing to do, or little; and what its pieces cost."""

from __future__ import annotations

import filecmp
import functools
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import corpus
from benchmarks.common import Bar, Options, Report, Spread
from benchmarks.fresh import call_fresh

_WORKERS = 2
_HASH_FNS = ("combined", "content", "path")
_STRATEGIES = ("concat", "greedy", "pool", "first_fit", "best_fit")
_SEQ_LEN = 2048
# Small neighbours share parts, in which each is known by itself.
_FILE_BYTES = 1_000_000


def run_pipeline(
    source: str, tokenizer: str, cache_dir: str, hash_fn: str, workers: int
) -> dict[str, Any]:
    """One pipeline from its configuration to its loader; counts what this process tokenizes."""
    import easydata as ed
    from easydata.stages.json_tokenizer import JsonTokenizer

    texts: list[int] = []
    encode = JsonTokenizer.encode

    def counting_encode(self: JsonTokenizer, batch: Any) -> Any:
        texts.append(len(batch))
        return encode(self, batch)

    JsonTokenizer.encode = counting_encode  # type: ignore[method-assign, assignment]
    from_config = ed.Pipeline.from_config
    start = time.perf_counter()
    pipeline = from_config(
        {
            "datasets": [{"data_files": source, "name": "code"}],
            "default_tokenizer": tokenizer,
            "tokenize": {"num_workers": workers},
            "cache": {"cache_dir": cache_dir, "hash_fn": hash_fn},
            "observability": {"progress_enabled": False, "log_level": "ERROR"},
        }
    )
    pipeline.source().tokenize().load().build()
    seconds = time.perf_counter() - start
    (found,) = pipeline.get_context().datasets.values()
    assert isinstance(found.tokens, ed.TokenDataset)
    return {
        **found.metrics(),
        "seconds": seconds,
        "calls": len(texts),
        "texts": sum(texts),
        "path": str(found.tokens.path),
    }


@dataclass(frozen=True)
class _Run:
    """A pipeline in a process of its own: what it did, and how long the whole process took."""

    did: dict[str, Any]
    process_seconds: float


class _Runs:
    """Runs pipelines over the same files."""

    def __init__(self, options: Options, files: Path) -> None:
        self.tokenizer = str(corpus.tokenizer(options))
        self.files = files
        self._scratch = options.scratch
        self._numbers = itertools.count()

    def new_cache(self) -> str:
        return str(self._scratch / f"pipeline-cache-{next(self._numbers)}")

    def run(self, cache_dir: str, hash_fn: str = "combined", workers: int = _WORKERS) -> _Run:
        given = (str(self.files), self.tokenizer, cache_dir, hash_fn, workers)
        start = time.perf_counter()
        did = call_fresh(run_pipeline, *given)
        return _Run(did, time.perf_counter() - start)

    def change_file(self, text: str) -> None:
        """Put a new row at the end of the file in the middle."""
        paths = sorted(self.files.iterdir())
        with paths[len(paths) // 2].open("a", encoding="utf-8") as file:
            file.write(json.dumps({"text": text}) + "\n")


def run(options: Options) -> Report:
    count = options.pick(100, 2)
    files = _write_files(options, count)
    report = Report(
        "what does a pipeline cost that has nothing to do, or little?",
        [
            f"{count} files of {_FILE_BYTES / 1e6} MB of JSONL; "
            f"{_WORKERS} workers; from the configuration to the loader; page cache warm",
            "each run in a process of its own: after imports, and the whole process with them",
            "what is tokenized after a change is counted in a further run, with one worker",
            f"packing: {_num_documents(options):,} documents with lengths from a lognormal "
            f"distribution, samples of {_SEQ_LEN} tokens",
        ],
    )
    rows = [
        *_identity_rows(options, files),
        *_packing_rows(options),
        _mixture_row(options),
    ]
    _wait_until_settled(files)
    pipeline_rows, report.bars = _pipeline_rows(options, _Runs(options, files))
    report.rows = [*pipeline_rows, *rows]
    return report


def _row(
    what: str, figure: Spread, unit: str, beside: str = "", *, first: Spread | None = None
) -> dict[str, Any]:
    share = figure.median / first.median if first else ""
    return {"what": what, "figure": figure, "unit": unit, "/ first run": share, "beside": beside}


def _write_files(options: Options, count: int) -> Path:
    """The corpus in a folder of files, which may be changed."""
    folder = options.scratch / "pipeline-files"
    copies = itertools.count()
    # Each file goes on where the one before stopped.
    texts = (f"# copy {copy}\n{text}" for copy in copies for text in corpus.shuffled_texts())
    for number in range(count):
        corpus.write_jsonl(folder / f"part-{number:03}.jsonl", texts, _FILE_BYTES)
    return folder


def _wait_until_settled(files: Path) -> None:
    """A file that was written a moment ago is read again, whatever its times say."""
    from easydata.fingerprint import FileStamp

    while not all(FileStamp.of_local(path).is_settled(time.time_ns()) for path in files.iterdir()):
        time.sleep(0.1)


def _pipeline_rows(options: Options, runs: _Runs) -> tuple[list[dict[str, Any]], list[Bar]]:
    caches = [runs.new_cache() for _ in range(options.pick(3, 1))]
    cache = caches[0]
    first = [runs.run(each) for each in caches]
    again: dict[str, list[_Run]] = {hash_fn: [] for hash_fn in _HASH_FNS}
    for counts in options.rounds(5):
        for hash_fn, found in again.items():
            one = runs.run(cache, hash_fn)
            if one.did["calls"] or not one.did["hit"]:
                raise SystemExit(f"The second run was to do nothing ({hash_fn}): {one.did}")
            if counts:
                found.append(one)

    runs.change_file("one more row")
    changed = runs.run(cache)
    runs.change_file("and another one")
    counted = runs.run(cache, workers=1)
    _check_identical(counted.did["path"], runs.run(runs.new_cache()).did["path"])

    rows = _run_rows("first run", first, first, f"{first[0].did['rows']:,} texts")
    bars = []
    for hash_fn, found in again.items():
        rows += _run_rows(f"second run, {hash_fn}", found, first, "0 calls of the tokenizer")
        share = rows[-2]["/ first run"]
        bars.append(Bar(f"second run / first run, {hash_fn}", share, 0.01, False, "issue 4"))
    did = counted.did
    beside = (
        f"{did['texts']:,} texts tokenized, {did['reused']} of {did['parts']} parts reused, "
        "shards as of a clean run"
    )
    return [*rows, *_run_rows("one file changed", [changed], first, beside)], bars


def _run_rows(what: str, runs: list[_Run], first: list[_Run], beside: str) -> list[dict[str, Any]]:
    inside, of_inside = (Spread.of([one.did["seconds"] for one in each]) for each in (runs, first))
    whole, of_whole = (Spread.of([one.process_seconds for one in each]) for each in (runs, first))
    return [
        _row(what, inside, "s", beside, first=of_inside),
        _row(f"{what}, whole process", whole, "s", first=of_whole),
    ]


def _check_identical(one: str, other: str) -> None:
    names = {path.name for folder in (one, other) for path in Path(folder).glob("data-*")}
    same, _, _ = filecmp.cmpfiles(one, other, names, shallow=False)
    if {*same} != names:
        raise SystemExit(f"After a change, the shards in {one} are not those of a clean run.")


def _identity_rows(options: Options, files: Path) -> Iterator[dict[str, Any]]:
    from easydata.fingerprint import FileStamp, fingerprint_file, identify_function
    from easydata.stages import load_tokenizer, tokenizer_source_hash

    times = options.pick(20, 3)
    large = options.scratch / "large-file"
    large.write_bytes(np.random.default_rng(0).bytes(options.pick(1 << 28, 1 << 22)))
    seconds = _time(lambda: fingerprint_file(large), times)
    yield _row("identity of a file's content", _rate(large.stat().st_size / 1e9, seconds), "GB/s")
    large.unlink()

    paths = list(files.iterdir())
    seconds = _time(lambda: [FileStamp.of_local(path) for path in paths], times)
    yield _row("stamp of a file", _scaled(seconds, 1e6 / len(paths)), "µs")

    seconds = _time(lambda: identify_function(_clean), times)
    parts = len(identify_function(_clean).parts)
    yield _row("identity of a function", _scaled(seconds, 1e6), "µs", f"of {parts} parts")

    tokenizer = corpus.tokenizer(options)
    seconds = _time(lambda: load_tokenizer(tokenizer).fingerprint, times)
    yield _row("identity of a tokenizer, loaded", _scaled(seconds, 1e3), "ms")
    seconds = _time(lambda: tokenizer_source_hash(tokenizer), times)
    yield _row("identity of its file, for a hit", _scaled(seconds, 1e3), "ms")


def _packing_rows(options: Options) -> Iterator[dict[str, Any]]:
    from easydata.loader.packing_plan import plan_packing

    count = _num_documents(options)
    lengths = np.random.default_rng(0).lognormal(6, 1, count).astype(np.int64) + 1
    for strategy in _STRATEGIES:
        planning = functools.partial(plan_packing, lengths, _SEQ_LEN, strategy)
        seconds = _time(planning, options.pick(3, 1))
        plan = planning()
        full = plan.num_tokens / (plan.num_samples * _SEQ_LEN)
        beside = f"{full:.3%} full, {plan.num_split_documents:,} documents cut"
        yield _row(f"packing plan, {strategy}", _rate(count, seconds), "documents/s", beside)


def _mixture_row(options: Options) -> dict[str, Any]:
    from easydata.loader.mixing import Mixture

    count = options.pick(1_000_000, 10_000)
    sources = {name: _Samples(count, name) for name in ("web", "code", "books")}
    mixture = Mixture(sources, weights={"web": 0.7, "code": 0.2, "books": 0.1})
    seconds = _time(lambda: mixture.start().take(count), options.pick(5, 1))
    return _row("order of a shuffled mixture", _rate(count, seconds), "samples/s", "of 3 sources")


@dataclass(frozen=True)
class _Samples:
    """Samples of which only the order is asked for."""

    num_samples: int
    fingerprint: str
    seq_len: int = _SEQ_LEN

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        return {"input_ids": np.zeros((len(samples), self.seq_len), np.uint16)}


_SPACES = re.compile(r"\s+")
_RENAMED = {"body": "text", "link": "url"}


def _clean(row: dict[str, Any]) -> dict[str, Any] | None:
    """A transform such as people write: it refers to a pattern, a table and a helper."""
    row = {_RENAMED.get(name, name): value for name, value in row.items()}
    row["text"] = _squeeze(row["text"])
    return row if len(row["text"]) > 100 else None


def _squeeze(text: str) -> str:
    return _SPACES.sub(" ", text).strip()


def _num_documents(options: Options) -> int:
    return int(options.pick(1_000_000, 10_000))


def _time(function: Callable[[], Any], times: int) -> list[float]:
    """Seconds of each call, after one that is not counted."""
    function()
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - start)
    return seconds


def _scaled(seconds: list[float], factor: float) -> Spread:
    return Spread.of([one * factor for one in seconds])


def _rate(amount: float, seconds: list[float]) -> Spread:
    return Spread.of([amount / one for one in seconds])
