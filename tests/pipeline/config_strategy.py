"""Random configurations that a file can hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from easydata.pipeline.config import DatasetConfig, PipelineConfig, TokenizerConfig

TEXT = st.sampled_from(["no", "1e-3", "null", "a: b", "é☃\U0001f600", "2024-01-01"]) | st.text(
    min_size=1, max_size=8
).filter(lambda text: "\0" not in text and "://" not in text)
COUNT = st.integers(1, 10**12)
FLAG = st.booleans()
AMOUNT = st.floats(1e-300, 1e300) | COUNT
SIZE = COUNT | st.sampled_from(["5MB", "1.5GiB"])
CODEC = st.sampled_from(["none", "lz4", "zstd", "zstd:9"])
NAMES = st.lists(TEXT, unique=True, max_size=3)
FREE = st.recursive(
    st.none() | FLAG | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
CALLING = {
    "max_length": COUNT,
    "truncation": FLAG,
    "padding": st.sampled_from([False, "longest", "max_length"]),
    "add_special_tokens": FLAG,
    "return_attention_mask": FLAG,
    "trust_remote_code": FLAG,
}


def choice(*names: str) -> st.SearchStrategy[str]:
    return st.sampled_from(names)


def some(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Values for some of the fields."""
    return st.fixed_dictionaries({}, optional=fields)


TOKENIZER = TEXT | st.builds(
    lambda name, fields: TokenizerConfig(name, **fields),
    TEXT,
    some(**CALLING).filter(lambda f: f.get("truncation", True) or f.get("padding") != "max_length"),
)
STAGES = {
    "source": some(
        streaming=FLAG,
        cloud_max_retries=st.integers(0, 9),
        cloud_retry_delay=AMOUNT | st.just(0),
        storage_options=st.dictionaries(TEXT, FREE, max_size=3),
    ),
    "tokenize": some(
        default_tokenizer=TOKENIZER,
        batch_size=COUNT,
        num_workers=COUNT,
        cache_tokenized=FLAG,
        remove_columns=NAMES,
        on_error=choice("raise", "skip"),
    ),
    "cache": some(
        enabled=FLAG,
        cache_type=choice("hierarchical", "memory", "disk"),
        cache_dir=TEXT,
        memory_cache_size=COUNT,
        disk_cache_expiry=AMOUNT,
        compression=CODEC | st.just("gzip"),
        hash_fn=choice("combined", "content", "path"),
    ),
    "pack": some(
        enabled=FLAG,
        seq_length=COUNT,
        eos_token_id=st.integers(0, 9),
        pad_token_id=st.integers(0, 9),
        strategy=choice("greedy", "concat", "pool", "first_fit", "best_fit"),
        num_packers=COUNT,
        include_segment_ids=FLAG,
        shuffle_packed=FLAG,
        shuffle_buffer_factor=COUNT,
    ),
    "load": some(
        batch_size=COUNT,
        prefetch_enabled=FLAG,
        prefetch_workers=COUNT,
        prefetch_buffer_size=COUNT,
        shuffle_buffer_size=COUNT,
        drop_last=FLAG,
        prefetch_to_device=FLAG,
    ),
    "save": some(
        enabled=FLAG,
        output_dir=TEXT,
        format=choice("parquet", "arrow", "jsonl"),
        num_shards=COUNT,
        compression=CODEC,
        max_shard_size=SIZE,
        overwrite=FLAG,
        hub_repo_id=TEXT,
        hub_private=FLAG,
    ),
    "ray": some(
        enabled=FLAG,
        num_workers=COUNT,
        resources_per_worker=st.dictionaries(TEXT, AMOUNT, max_size=2),
        use_gpu=FLAG,
        object_store_memory=SIZE,
    ),
    "observability": some(
        progress_enabled=FLAG,
        progress_type=choice("rich", "tqdm", "json", "none"),
        metrics_enabled=FLAG,
        log_level=choice("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"),
        log_interval=COUNT,
    ),
}
DATASET = some(
    type=choice("json", "jsonl", "parquet", "csv", "arrow", "txt", "hf", "huggingface"),
    split=TEXT,
    dataset_split_name=TEXT,
    num_rows=COUNT,
    tokenizer=TOKENIZER,
    tokenizer_kwargs=some(max_length=COUNT, add_special_tokens=FLAG, trust_remote_code=FLAG),
    cache_path=TEXT,
    cache_enabled=FLAG,
    save_path=TEXT,
    save_format=choice("parquet", "arrow", "jsonl"),
    content_field=TEXT,
    additional_fields=NAMES,
    format_fields=st.lists(st.tuples(TEXT, TEXT), unique_by=lambda pair: pair[1]).map(dict),
    num_shards=COUNT,
)
DATA_FILES = TEXT | st.lists(TEXT, min_size=1, max_size=3)


@st.composite
def shares(draw: st.DrawFn, names: list[str]) -> dict[str, float]:
    parts = [draw(st.integers(0, 100)) for _ in names]
    parts[0] += 1
    return {name: part / sum(parts) for name, part in zip(names, parts, strict=True)}


@st.composite
def mixes(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    mix = draw(
        some(
            weight_schedule_type=choice("step", "linear", "cosine"),
            block_size=COUNT,
            stop_strategy=choice("restart", "first_exhausted", "all_exhausted"),
            seed=st.integers(0, 2**64 - 1),
        )
    )
    kind = draw(choice("size", "weights", "schedule"))
    if kind == "weights":
        mix["weights"] = draw(shares(names))
    if kind == "schedule":
        steps = sorted(draw(st.sets(st.integers(0, 10**9), min_size=1, max_size=3)))
        mix["weight_schedule"] = [{"step": at, "weights": draw(shares(names))} for at in steps]
    return mix


@st.composite
def pipelines(draw: st.DrawFn) -> PipelineConfig:
    names = draw(st.lists(TEXT, unique=True, min_size=1, max_size=3))
    datasets = [DatasetConfig(draw(DATA_FILES), name=name, **draw(DATASET)) for name in names]
    fields = draw(some(streaming=FLAG, seed=st.integers(0, 2**64 - 1), **STAGES))
    if draw(FLAG):
        fields["mix"] = draw(mixes(names))
    return PipelineConfig(datasets, default_tokenizer=draw(TOKENIZER), **fields)
