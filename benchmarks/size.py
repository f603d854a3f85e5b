"""The bits that a token takes on disk, with each codec."""

from __future__ import annotations

import easydata as ed
from benchmarks import corpus
from benchmarks.common import Bar, Options, Report

_BY_PATH, _AT_RANDOM = "by path", "random"
_CASES = (
    ("none", _BY_PATH),
    ("lz4", _BY_PATH),
    ("zstd", _BY_PATH),
    ("zstd:9", _BY_PATH),
    ("gzip", _BY_PATH),
    ("zstd", _AT_RANDOM),
)
_MOST_BITS = {"none": 16.2, "zstd": 6.5}


def run(options: Options) -> Report:
    report = Report(
        "how many bits does a token take on disk?",
        [
            "the standard library's sources, each once, in shards of up to 256 MB; gzip is Parquet",
            "neighbouring files resemble each other, so the order of the rows matters: the bars "
            "are for the order of the paths",
        ],
    )
    sources = {}
    for order, texts in (
        (_BY_PATH, corpus.stdlib_texts()),
        (_AT_RANDOM, corpus.shuffled_texts()),
    ):
        sources[order] = options.scratch / f"size-{order.replace(' ', '-')}.jsonl"
        # No text is written twice: the sources end long before twice their size.
        everything = 2 * sum(len(text.encode()) for text in texts)
        corpus.write_jsonl(sources[order], texts, options.pick(everything, 300_000))
    for number, (codec, order) in enumerate(_CASES):
        ds = ed.build(
            sources[order],
            tokenizer=corpus.tokenizer(options),
            out=options.scratch / f"size-{number}",
            compression=codec,
        )
        shards = [file.stat().st_size for file in ds.path.glob("data-*")]
        bits = 8 * sum(shards) / ds.num_tokens
        report.rows.append(
            {
                "codec": codec,
                "order of rows": order,
                "bits/token": bits,
                "shard bytes": sum(shards),
                "tokens": ds.num_tokens,
                "rows": len(ds),
                "dtype": ds.dtype.name,
            }
        )
        if order == _BY_PATH and codec in _MOST_BITS:
            most = _MOST_BITS[codec]
            report.bars.append(Bar(f"bits/token, {codec}", bits, most, False, "issue 2"))
    return report
