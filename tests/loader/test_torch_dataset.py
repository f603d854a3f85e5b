from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
)

import easydata as ed
from easydata.errors import CorruptShardError, UsageError
from easydata.loader.array_tokens import ArrayTokens
from easydata.loader.mixing import Mixture
from easydata.loader.packing import pack
from easydata.loader.torch_data import TorchDataset
from tests.loader.sources import Numbers

# Other tests of this process may have started threads, of which its children know nothing; and this
# machine may have less cores than the tests have workers.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*fork:RuntimeWarning",
    "ignore:.*fork:DeprecationWarning",
    "ignore:This DataLoader will create",
)

TEXTS = [f"Satz {i}. " * (i * 7 % 23) for i in range(120)]
PAD = 257


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    out = tmp_path_factory.mktemp("torch") / "out"
    return ed.build([{"text": text} for text in TEXTS], tokenizer="bytes", out=out)


def documents() -> list[list[int]]:
    return [[*text.encode(), 256] for text in TEXTS]


def samples(seq_len: int) -> npt.NDArray[np.int64]:
    stream = np.array(sum(documents(), []))
    return stream[: len(stream) // seq_len * seq_len].reshape(-1, seq_len)


class Counting(Numbers):
    def __init__(self, num_samples: int, **options: Any) -> None:
        super().__init__(num_samples, **options)
        self.reads: list[int] = []

    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        assert samples.dtype == np.int64
        self.reads.append(len(samples))
        return super().read(samples)


class Damaged(Numbers):
    def read(self, samples: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[Any]]:
        if 7 in samples:
            raise CorruptShardError("shard 3, batch 1 differs")
        return super().read(samples)


def first_ids(batches: Any) -> list[list[int]]:
    return [batch["input_ids"][:, 0].tolist() for batch in batches]


@pytest.mark.parametrize("dtype", [None, "int32", "uint16"])
def test_items_are_the_samples_in_order(dataset: ed.TokenDataset, dtype: str | None) -> None:
    expected = samples(48)
    found = TorchDataset(dataset, 48, dtype=dtype)
    assert len(found) == len(expected)
    kind = torch.int64 if dtype is None else getattr(torch, dtype)
    for number, item in enumerate(found):
        assert item.keys() == {"input_ids"}
        assert item["input_ids"].dtype == kind
        assert item["input_ids"].tolist() == expected[number].tolist()
    assert number == len(expected) - 1
    rows = found.__getitems__([5, 0, 5, np.int64(3)])
    assert [row["input_ids"].tolist() for row in rows] == expected[[5, 0, 5, 3]].tolist()


@pytest.mark.parametrize("dtype", [None, "uint16"])
def test_tensors_are_the_readers_own(dataset: ed.TokenDataset, dtype: str | None) -> None:
    found = TorchDataset(dataset, 48, dtype=dtype)
    found[0]["input_ids"][:] = 1  # the file is mapped read-only: this would be a crash
    assert found[0]["input_ids"].tolist() == samples(48)[0].tolist()


def test_a_batch_is_read_in_one_call() -> None:
    source = Counting(20)
    assert first_ids(DataLoader(TorchDataset(source), batch_size=8)) == [
        [*range(8)],
        [*range(8, 16)],
        [*range(16, 20)],
    ]
    assert source.reads == [8, 8, 4]


def test_the_samplers_of_pytorch() -> None:
    found = TorchDataset(Numbers(20))

    def visited(sampler: Any, **options: Any) -> list[int]:
        return sum(first_ids(DataLoader(found, sampler=sampler, **options)), [])

    shuffled = visited(RandomSampler(found), batch_size=3)
    assert sorted(shuffled) == [*range(20)] != shuffled
    assert sorted(visited(SubsetRandomSampler([2, 3, 5]), batch_size=2)) == [2, 3, 5]
    whole = BatchSampler(SequentialSampler(found), 6, drop_last=True)
    assert first_ids(DataLoader(found, batch_sampler=whole)) == [
        [*range(n, n + 6)] for n in (0, 6, 12)
    ]
    parts = [visited(DistributedSampler(found, 4, rank), batch_size=2) for rank in range(4)]
    assert all(len(part) == 5 for part in parts)
    assert sorted(sum(parts, [])) == [*range(20)]


def test_labels_and_what_else_is_asked_for(dataset: ed.TokenDataset) -> None:
    columns = ["labels", "loss_mask", "document_ids"]
    found = TorchDataset(dataset, 48, columns=columns, dtype="int32")
    number_of = np.repeat(np.arange(len(TEXTS)), [len(ids) for ids in documents()])
    for number in (0, 9, len(found) - 1):
        item = found[number]
        assert list(item) == ["input_ids", *columns]
        assert item["labels"].dtype == torch.int64  # what a loss takes, whatever the ids are
        assert item["labels"].tolist() == [*samples(48)[number, 1:].tolist(), -100]
        assert item["loss_mask"].tolist() == [True] * 48
        own = number_of[48 * number : 48 * number + 48]
        assert item["document_ids"].tolist() == own.tolist()
    logits = torch.zeros(48, 300)
    assert torch.nn.functional.cross_entropy(logits, found[0]["labels"]).isfinite()
    assert torch.nn.Embedding(300, 2)(found[0]["input_ids"]).shape == (48, 2)


def test_for_transformers_packed(dataset: ed.TokenDataset) -> None:
    found = TorchDataset(dataset, 40, pack="greedy", pad_token_id=PAD, for_transformers=True)
    source = pack(dataset, 40, "greedy", pad_token_id=PAD)
    kinds = set()
    for number, item in enumerate(found):
        assert list(item) == ["input_ids", "labels", "position_ids"]
        assert {tensor.dtype for tensor in item.values()} == {torch.int64}
        arrays = source.read(np.array([number]))
        ids, segments, positions = (
            arrays[name][0].tolist() for name in ("input_ids", "segment_ids", "positions")
        )
        assert item["input_ids"].tolist() == ids
        assert item["position_ids"].tolist() == positions
        for place, label in enumerate(item["labels"].tolist()):
            predicted = place > 0 and segments[place] and segments[place] == segments[place - 1]
            assert label == (ids[place] if predicted else -100)
            kinds.add((bool(predicted), segments[place] == 0))
    assert len(kinds) == 3  # predicted, padding, the start of a document


def test_for_transformers_padded(dataset: ed.TokenDataset) -> None:
    options: dict[str, Any] = {"pad_token_id": PAD, "for_transformers": True}
    found = TorchDataset(dataset, 47, **options)
    used = dataset.num_tokens % 47
    assert used
    last = found[len(found) - 1]
    assert list(last) == ["input_ids", "labels", "attention_mask"]
    assert last["attention_mask"].dtype == torch.int64
    assert last["attention_mask"].tolist() == [1] * used + [0] * (47 - used)
    tail = sum(documents(), [])[-used:]
    assert last["input_ids"].tolist() == tail + [PAD] * (47 - used)
    assert last["labels"].tolist() == [-100, *tail[1:]] + [-100] * (47 - used)
    # Where nothing is padded or told apart, there is nothing to say about it.
    assert list(TorchDataset(dataset, 47, for_transformers=True)[0]) == ["input_ids", "labels"]
    asked = TorchDataset(dataset, 47, columns=["positions", "document_ids"], for_transformers=True)
    assert list(asked[0]) == ["input_ids", "labels", "position_ids", "document_ids"]
    # The labels know of documents whatever else is asked for.
    some = TorchDataset(dataset, 40, pack="greedy", columns=["positions"], **options)
    assert list(some[0]) == ["input_ids", "labels", "position_ids"]
    whole = TorchDataset(dataset, 40, pack="greedy", **options)
    assert all(torch.equal(some[i]["labels"], whole[i]["labels"]) for i in range(len(whole)))


@pytest.mark.parametrize("how", ["concat", "greedy"])
def test_pickled_by_path(dataset: ed.TokenDataset, tmp_path: Path, how: str) -> None:
    copied = tmp_path / "copy"
    shutil.copytree(dataset.path, copied)
    found = TorchDataset(
        ed.open_dataset(copied), 32, pack=how, pad_token_id=PAD, columns=["labels"], dtype="int32"
    )
    pickled = pickle.dumps(found)
    assert len(pickled) < 1000
    again = pickle.loads(pickled)
    assert again.__getitems__([3])[0].keys() == {"input_ids", "labels"}
    assert all(torch.equal(again[i]["labels"], found[i]["labels"]) for i in range(len(found)))
    assert again[0]["input_ids"].dtype == torch.int32
    shutil.rmtree(copied)
    with pytest.raises(ed.NotADatasetError):
        pickle.loads(pickled)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_in_workers(dataset: ed.TokenDataset, method: str) -> None:
    loader = DataLoader(
        TorchDataset(dataset, 48),
        batch_size=16,
        num_workers=2 if method == "fork" else 1,
        multiprocessing_context=method,
    )
    found = torch.cat([batch["input_ids"] for batch in loader])
    assert found.tolist() == samples(48).tolist()


def test_an_error_in_a_worker_reaches_the_reader() -> None:
    loader = DataLoader(TorchDataset(Damaged(20)), batch_size=4, num_workers=1)
    batches = iter(loader)
    assert next(batches)["input_ids"][:, 0].tolist() == [0, 1, 2, 3]
    with pytest.raises(CorruptShardError, match=r"(?s)in read.*shard 3, batch 1 differs"):
        next(batches)


def test_wrong_arguments() -> None:
    found = TorchDataset(Numbers(5))
    for bad in (5, -1):
        with pytest.raises(IndexError, match=f"sample {bad} of 5"):
            found[bad]
    with pytest.raises(TypeError, match="must be integers, not float64"):
        found.__getitems__([1.5])
    assert found.__getitems__([]) == []
    with pytest.raises(TypeError, match=r"shape \(1, 3\), but an item is one .*batch_sampler"):
        next(iter(DataLoader(found, None, sampler=BatchSampler([0, 1, 2], 3, drop_last=False))))
    for mixed in ({"a": Numbers(5)}, Mixture({"a": Numbers(5)})):
        with pytest.raises(UsageError, match=r"not numbered; read it in batches.*DataLoader"):
            TorchDataset(mixed)
    with pytest.raises(UsageError, match="seq_len is 4, but the samples have 3 tokens"):
        TorchDataset(Numbers(5), 4)
    with pytest.raises(UsageError, match="seq_len is None"):
        TorchDataset(ArrayTokens(np.arange(10)))
    with pytest.raises(UsageError, match="no column 'label'; did you mean 'labels'"):
        TorchDataset(Numbers(5), columns=["label"])
    for columns in ("labels", 5):
        with pytest.raises(UsageError, match=f"columns is {columns!r}; give a list of names"):
            TorchDataset(Numbers(5), columns=columns, for_transformers=True)


def test_without_torch() -> None:
    code = """
import sys
import easydata, easydata.loader.grain_data
assert not {"torch", "grain"} & sys.modules.keys()
sys.modules["torch"] = None
try:
    import easydata.loader.torch_data
except easydata.MissingDependencyError as error:
    assert "pip install 'easydata[torch]'" in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
