from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import UsageError
from easydata.loader.packing import PackedSamples, PackingStats, pack
from easydata.loader.packing_plan import PackingPlan, plan_packing
from easydata.loader.samples import ConcatSamples

from .sources import Numbers
from .test_samples import PAD, Documents

STRATEGIES = ["concat", "greedy", "pool", "first_fit", "best_fit", "pad"]


def slow_read(plan: PackingPlan, pad: int | None) -> dict[str, list[list[int]]]:
    """All samples of a source whose token i is i, token by token."""
    names = ("input_ids", "segment_ids", "positions", "loss_mask")
    found: dict[str, list[list[int]]] = {name: [] for name in names}
    for sample in range(plan.num_samples):
        places: list[tuple[int, int, int, bool]] = []
        pieces = range(plan.first_piece[sample], plan.first_piece[sample + 1])
        for number, piece in enumerate(pieces, start=1):
            for place in range(int(plan.lengths[piece])):
                places.append((int(plan.starts[piece]) + place, number, place, True))
        places += [(pad or 0, 0, 0, False)] * (plan.seq_len - len(places))
        for name, values in zip(names, zip(*places, strict=True), strict=True):
            found[name].append(list(values))
    return found


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=150)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=30).filter(any),
    seq_len=st.integers(1, 33),
    include=st.booleans(),
    data=st.data(),
)
def test_any_samples(
    strategy: str, lengths: list[int], seq_len: int, *, include: bool, data: st.DataObject
) -> None:
    plan = plan_packing(lengths, seq_len, strategy)
    pad = data.draw(st.sampled_from([0, PAD] if plan.padding else [None, 0, PAD]))
    samples = PackedSamples(Documents(lengths), plan, pad_token_id=pad, include_segment_ids=include)
    count = samples.num_samples
    assert (count, samples.seq_len) == (plan.num_samples, seq_len)
    numbers = data.draw(
        st.one_of(st.just(list(range(count))), st.lists(st.integers(0, count - 1), max_size=9))
    )
    found = samples.read(np.array(numbers, np.int64))
    expected = slow_read(plan, pad)
    if not include:
        del expected["segment_ids"], expected["positions"]
    assert found.keys() == expected.keys()
    types = {"input_ids": "uint16", "loss_mask": "bool"}
    for name, array in found.items():
        assert array.shape == (len(numbers), seq_len)
        assert array.tolist() == [expected[name][number] for number in numbers]
        assert array.dtype.name == types.get(name, "int32")
    everything = samples.read(np.arange(count))
    tokens = everything["input_ids"][everything["loss_mask"]]
    assert sorted(tokens.tolist()) == list(range(sum(lengths)))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_over_a_dataset(tmp_path: Any, strategy: str, compression: str) -> None:
    texts = [f"Satz {i}. " * (i * 7 % 23) for i in range(100)]
    dataset = ed.build(
        [{"text": text} for text in texts],
        tokenizer="bytes",
        out=tmp_path / "out",
        compression=compression,
        part_size=2048,
        shard_size="8kB",
    )
    assert len(dataset.ledger.batch_offsets) > 3
    samples = pack(dataset, 100, strategy, pad_token_id=300)
    plan = plan_packing([len(text.encode()) + 1 for text in texts], 100, strategy)
    numbers = np.random.default_rng(0).permutation(plan.num_samples)
    expected = slow_read(plan, -1)
    stream = [*sum(([*text.encode(), 256] for text in texts), []), 300]
    found = samples.read(numbers)
    assert samples.num_samples == plan.num_samples
    assert found["input_ids"].tolist() == [
        [stream[token] for token in expected["input_ids"][number]] for number in numbers.tolist()
    ]
    for name in ("segment_ids", "positions", "loss_mask"):
        assert found[name].tolist() == [expected[name][number] for number in numbers.tolist()]


def test_long_documents_as_a_reference_got_them_wrong() -> None:
    """It lost all but the last piece, or gave 21 ids with a mask of 8."""
    for strategy in STRATEGIES:
        found = pack(Documents([20]), 8, strategy, pad_token_id=PAD).read(np.arange(3))
        ids = [*range(20), PAD, PAD, PAD, PAD]
        assert found["input_ids"].tolist() == [ids[:8], ids[8:16], ids[16:]]
        assert found["loss_mask"].tolist() == [[True] * 8] * 2 + [[True] * 4 + [False] * 4]
        assert found["positions"].tolist() == [[*range(8)]] * 2 + [[0, 1, 2, 3, 0, 0, 0, 0]]
        assert found["segment_ids"].tolist() == [[1] * 8] * 2 + [[1] * 4 + [0] * 4]


def test_a_batch_is_located_in_one_call() -> None:
    rng = np.random.default_rng(0)
    source = Documents(rng.integers(1, 200, 300).tolist(), "uint32")
    for strategy in STRATEGIES:
        samples = PackedSamples(
            source, plan_packing(source.lengths(), 256, strategy), pad_token_id=0
        )
        source.asked = 0
        samples.read(np.arange(samples.num_samples))
        assert source.asked == 1


def test_a_view_where_documents_follow_one_another() -> None:
    source = Documents([4] * 16)
    samples = PackedSamples(source, plan_packing(source.lengths(), 16, "greedy"), pad_token_id=None)
    assert np.shares_memory(samples.read(np.array([1, 2]))["input_ids"], source.ids)
    assert not np.shares_memory(samples.read(np.array([2, 0]))["input_ids"], source.ids)


def test_stats() -> None:
    source = Documents([20, 0, 3, 6, 8])
    samples = PackedSamples(source, plan_packing(source.lengths(), 8, "greedy"), pad_token_id=0)
    # 8 | 8 | 4 + 3 | 6 | 8
    assert samples.stats == PackingStats(
        num_documents=4,
        num_split_documents=1,
        num_pieces=6,
        num_tokens=37,
        padding_tokens=3,
        utilisation=37 / 40,
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda s, p: PackedSamples(s, p, pad_token_id=None),
            "'greedy' leaves 4 places .* pad_token_id",
        ),
        (
            lambda s, p: PackedSamples(s, p, pad_token_id=65_536),
            "pad_token_id is 65536, but .* uint16",
        ),
        (lambda s, p: PackedSamples(s, p, pad_token_id=True), "pad_token_id is True"),
        (
            lambda s, p: PackedSamples(Documents([13]), p, pad_token_id=0),
            "is for 12 tokens, but .* 13",
        ),
        (lambda s, p: pack(s, 8, "greedy"), "no pad_token_id"),
        (lambda s, p: pack(s, 8, "gready"), "did you mean 'greedy'"),
        (lambda s, p: pack(s, 0, "greedy"), "seq_len is 0"),
        (lambda s, p: pack(s, 0, "concat"), "seq_len is 0"),
        (lambda s, p: pack(s, 13, "concat"), "only 12 tokens"),
        (lambda s, p: pack(s, 8, "pool", num_packers=0), "num_packers is 0"),
        (
            lambda s, p: PackedSamples(s, None, pad_token_id=0),
            "plan is a NoneType; make one with plan_",
        ),
        (lambda s, p: pack(Numbers(5), 8), "a Numbers is no source of documents; give a dataset"),
        (lambda s, p: pack(None, 8, "concat"), "a NoneType is no source of documents"),
        (lambda s, p: pack(s.ids, 8), "a ndarray is no source of documents"),
    ],
)
def test_wrong_arguments(make: Callable[[Documents, PackingPlan], Any], message: str) -> None:
    source = Documents([5, 7])
    with pytest.raises(UsageError, match=message):
        make(source, plan_packing(source.lengths(), 8, "greedy"))


def test_no_such_sample() -> None:
    samples = pack(Documents([5, 7]), 8, pad_token_id=0)
    for bad in (-1, 2):
        with pytest.raises(IndexError, match=f"sample {bad} of 2"):
            samples.read(np.array([0, bad]))


def test_pack_chooses() -> None:
    source = Documents([5, 6, 7, 3, 2, 1])
    assert isinstance(pack(source, 8, "concat"), ConcatSamples)
    assert pack(source, 8, "concat").num_samples == 3
    found = pack(source, 8, "concat", pad_token_id=0, include_segment_ids=False)
    assert set(found.read(np.array([0]))) == {"input_ids", "loss_mask"}
    assert set(pack(source, 8, "concat").read(np.array([0]))) == {
        "input_ids",
        "segment_ids",
        "positions",
    }
    greedy = pack(source, 8, pad_token_id=0, include_segment_ids=False)
    assert isinstance(greedy, PackedSamples)
    assert greedy.plan.strategy == "greedy"
    assert set(greedy.read(np.array([0]))) == {"input_ids", "loss_mask"}
    assert pack(source, 8, "pool", pad_token_id=0).num_samples == 3
    assert pack(source, 8, "pool", pad_token_id=0, num_packers=1).num_samples == 4


def test_the_fingerprint_tells_tokens_and_packing_apart() -> None:
    lengths = [5, 6, 7, 3, 2, 1]

    class Named(Documents):
        fingerprint = "a name"

    made = [
        pack(Documents(lengths), 8, pad_token_id=0),
        pack(Documents(lengths), 8, pad_token_id=1),
        pack(Documents(lengths), 9, pad_token_id=0),
        pack(Documents(lengths), 8, "pool", pad_token_id=0),
        pack(Documents(lengths), 8, "concat", pad_token_id=0),
        pack(Documents(lengths[::-1]), 8, pad_token_id=0),
        pack(Documents(lengths, "uint32"), 8, pad_token_id=0),
        pack(Documents(lengths), 8, pad_token_id=0, include_segment_ids=False),
        pack(Documents(lengths), 8, "concat", pad_token_id=0, include_segment_ids=False),
        pack(Named(lengths), 8, pad_token_id=0),
    ]
    assert len({samples.fingerprint for samples in made}) == len(made)
    as_numpy = pack(Documents(lengths), np.int64(8), pad_token_id=np.uint8(0))
    assert as_numpy.fingerprint == made[0].fingerprint
    plan = plan_packing(lengths, 8, "greedy")
    given = PackedSamples(Documents(lengths), plan, pad_token_id=0, fingerprint="a name")
    assert given.fingerprint == made[-1].fingerprint


def test_the_padding_of_a_tokenizer_is_taken_unless_another_is_given() -> None:
    class Padded(Documents):
        pad_token_id = 9

    for pad, expected in ((None, 9), (8, 8)):
        found = pack(Padded([5, 9]), 10, "pad", pad_token_id=pad).read(np.arange(2))
        assert found["input_ids"][0, 5:].tolist() == [expected] * 5
