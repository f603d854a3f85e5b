from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import easydata as ed
from easydata.errors import UsageError
from easydata.loader.rows import Pieces
from easydata.loader.samples import ConcatSamples

PAD = 60_000


class Documents:
    """A source of documents that shares no code with `TokenDataset`: token i is i."""

    def __init__(self, lengths: Sequence[int], dtype: str = "uint16") -> None:
        self._lengths = np.array(lengths, np.int64)
        self._ids = np.arange(sum(lengths)).astype(dtype)
        self._ids.flags.writeable = False
        self.asked = 0

    @property
    def num_tokens(self) -> int:
        return len(self._ids)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._ids.dtype

    def lengths(self) -> npt.NDArray[np.int64]:
        return self._lengths

    @property
    def ids(self) -> npt.NDArray[Any]:
        return self._ids

    def locate(self, starts: npt.NDArray[np.int64], lengths: Any) -> Pieces:
        assert starts.dtype == np.int64
        lengths = np.broadcast_to(lengths, starts.shape)
        assert ((starts >= 0) & (lengths >= 0) & (starts + lengths <= len(self._ids))).all()
        self.asked += 1
        addresses = [self._ids[start:].ctypes.data for start in starts.tolist()]
        return Pieces(np.array(addresses, np.int64), lengths * self._ids.itemsize, None, self._ids)


def oracle(lengths: Sequence[int], seq_len: int, pad: int | None) -> dict[str, list[Any]]:
    """All samples, token by token."""
    stream = [
        (document, place) for document, length in enumerate(lengths) for place in range(length)
    ]
    found: dict[str, list[Any]] = {
        name: [] for name in ("input_ids", "segment_ids", "positions", "loss_mask")
    }
    for start in range(0, len(stream), seq_len):
        part = stream[start : start + seq_len]
        missing = seq_len - len(part)
        if missing and pad is None:
            break
        segments: list[int] = []
        positions: list[int] = []
        for number, (document, _) in enumerate(part):
            is_new = number == 0 or part[number - 1][0] != document
            segments.append((segments[-1] if segments else 0) + is_new)
            positions.append(0 if is_new else positions[-1] + 1)
        found["input_ids"].append([*range(start, start + len(part)), *[pad or 0] * missing])
        found["segment_ids"].append(segments + [0] * missing)
        found["positions"].append(positions + [0] * missing)
        found["loss_mask"].append([True] * len(part) + [False] * missing)
    return found


@settings(max_examples=400)
@given(
    lengths=st.lists(st.integers(0, 20), min_size=1, max_size=12),
    seq_len=st.integers(1, 12),
    pad=st.sampled_from([None, 0, PAD]),
    with_lengths=st.booleans(),
    data=st.data(),
)
def test_any_samples(
    lengths: list[int], seq_len: int, pad: int | None, *, with_lengths: bool, data: st.DataObject
) -> None:
    expected = oracle(lengths, seq_len, pad)
    source = Documents(lengths)
    options: dict[str, Any] = {"pad_token_id": pad, "lengths": lengths if with_lengths else None}
    count = len(expected["input_ids"])
    if not count:
        with pytest.raises(UsageError, match=f"seq_len is {seq_len}, but there are only"):
            ConcatSamples(source, seq_len, **options)
        return
    samples = ConcatSamples(source, seq_len, **options)
    assert samples.num_samples == count
    assert samples.seq_len == seq_len
    assert samples.tokens_left_out == (sum(lengths) % seq_len if pad is None else 0)
    numbers = data.draw(
        st.one_of(st.just(list(range(count))), st.lists(st.integers(0, count - 1), max_size=9))
    )
    found = samples.read(np.array(numbers, np.int64))
    names = ["input_ids"]
    names += ["segment_ids", "positions"] if with_lengths else []
    names += ["loss_mask"] if pad is not None else []
    assert sorted(found) == sorted(names)
    for name in names:
        assert found[name].shape == (len(numbers), seq_len)
        assert found[name].tolist() == [expected[name][number] for number in numbers]
    types = {"input_ids": "uint16", "loss_mask": "bool"}
    assert {name: array.dtype.name for name, array in found.items()} == {
        name: types.get(name, "int32") for name in names
    }


def test_a_view_where_the_numbers_follow_one_another() -> None:
    source = Documents([100])
    base = source.ids
    for pad in (None, PAD):
        samples = ConcatSamples(source, 8, pad_token_id=pad)
        view = samples.read(np.array([3, 4, 5]))["input_ids"]
        assert np.shares_memory(view, base)
        assert not view.flags.writeable
        assert not np.shares_memory(samples.read(np.array([3, 5]))["input_ids"], base)
        # As far apart as three that follow one another, but they do not.
        assert samples.read(np.array([3, 3, 5]))["input_ids"][:, 0].tolist() == [24, 24, 40]
    padded = ConcatSamples(source, 8, pad_token_id=PAD).read(np.array([11, 12]))["input_ids"]
    assert padded.tolist() == [list(range(88, 96)), [96, 97, 98, 99, PAD, PAD, PAD, PAD]]


@pytest.mark.parametrize("compression", ["none", "zstd", "gzip"])
def test_over_a_dataset(tmp_path: Path, compression: str) -> None:
    texts = [f"Satz {i}. " * (i * 7 % 23) for i in range(100)]
    dataset = ed.build(
        [{"text": text} for text in texts],
        tokenizer="bytes",
        out=tmp_path / "out",
        compression=compression,
        part_size=2048,
        shard_size="8kB",
    )
    stream = sum(([*text.encode(), 256] for text in texts), [])
    lengths = dataset.lengths()
    expected = oracle(lengths.tolist(), 61, 7)
    samples = ConcatSamples(dataset, 61, pad_token_id=7, lengths=lengths)
    numbers = np.random.default_rng(0).permutation(samples.num_samples)
    found = samples.read(numbers)
    stream += [7] * (-len(stream) % 61)
    assert found["input_ids"].tolist() == [stream[i * 61 : i * 61 + 61] for i in numbers.tolist()]
    for name in ("segment_ids", "positions", "loss_mask"):
        assert found[name].tolist() == [expected[name][i] for i in numbers.tolist()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seq_len": 0}, "seq_len is 0; it must be a whole number from 1 up"),
        ({"seq_len": True}, "seq_len is True"),
        ({"seq_len": 2.0}, r"seq_len is 2\.0"),
        ({"seq_len": 13}, "only 12 tokens; .* or give pad_token_id"),
        ({"pad_token_id": 65_536}, "pad_token_id is 65536, but the tokens are stored as uint16"),
        ({"pad_token_id": -1}, "pad_token_id is -1"),
        ({"pad_token_id": True}, "pad_token_id is True"),
        ({"pad_token_id": "0"}, "pad_token_id is '0'"),
        ({"lengths": [12, -1, 1]}, "document 1 has length -1"),
        ({"lengths": [12, 1]}, "add up to 13, but there are 12 tokens"),
        ({"lengths": [11]}, "add up to 11, but there are 12 tokens"),
        ({"lengths": [[5], [6, 1]]}, "the lengths are no array"),
        ({"lengths": [6.0, 6.0]}, "the lengths are float64 in 1 dimensions"),
        ({"lengths": [[6, 6]]}, "the lengths are int64 in 2 dimensions"),
    ],
)
def test_wrong_arguments(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ConcatSamples(Documents([5, 7]), **{"seq_len": 4, **changes})


def test_no_such_sample() -> None:
    samples = ConcatSamples(Documents([12]), 4)
    for bad in (-1, 3):
        with pytest.raises(IndexError, match=f"sample {bad} of 3"):
            samples.read(np.array([0, bad]))
    with pytest.raises(UsageError, match="only 0 tokens"):
        ConcatSamples(Documents([0]), 4, pad_token_id=0)


def test_the_fingerprint_tells_tokens_and_packing_apart() -> None:
    class Named(Documents):
        fingerprint = "a name"

    made = {
        "plain": ConcatSamples(Documents([5, 7]), 4),
        "other tokens": ConcatSamples(Documents([5, 8]), 4),
        "other type": ConcatSamples(Documents([5, 7], "uint32"), 4),
        "other seq_len": ConcatSamples(Documents([5, 7]), 3),
        "padded": ConcatSamples(Documents([5, 7]), 4, pad_token_id=0),
        "other pad": ConcatSamples(Documents([5, 7]), 4, pad_token_id=1),
        "named": ConcatSamples(Named([5, 7]), 4),
        "given": ConcatSamples(Named([5, 7]), 4, fingerprint="another"),
        "ends": ConcatSamples(Documents([5, 7]), 4, lengths=[5, 7]),
        "other ends": ConcatSamples(Documents([5, 7]), 4, lengths=[7, 5]),
    }
    assert len({samples.fingerprint for samples in made.values()}) == len(made)
    of_equal_ends = ConcatSamples(Documents([5, 7]), np.int32(4), lengths=[5, 0, 7])
    assert of_equal_ends.fingerprint == made["ends"].fingerprint
    again = ConcatSamples(Documents([5, 7]), 4, fingerprint="a name")
    assert again.fingerprint == made["named"].fingerprint
    assert again.fingerprint == "d186f359565a6b3d0d258ac97f847e3b"
    assert made["ends"].fingerprint == "838625b6a446ac3b310dbf675387d778"
