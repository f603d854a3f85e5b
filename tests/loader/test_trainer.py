"""The Trainer of Transformers, on a model that is made here."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

import easydata as ed
from easydata.loader.packing import pack
from easydata.loader.torch_data import TorchBatches, TorchDataset

# Other tests of this process may have started threads, of which its children know nothing.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*fork:RuntimeWarning", "ignore:.*fork:DeprecationWarning"
)

TEXTS = [f"Satz {i}. " * (i * 7 % 23) for i in range(120)]
PAD = 257


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ed.TokenDataset:
    out = tmp_path_factory.mktemp("trainer") / "out"
    return ed.build([{"text": text} for text in TEXTS], tokenizer="bytes", out=out)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # for a model so small, more of them only wait for each other
    yield
    torch.set_num_threads(threads)


def tiny_model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=258,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        pad_token_id=PAD,
        use_cache=False,  # as the Trainer sets it
    )
    return LlamaForCausalLM(config)


class Recording(Trainer):
    """Keeps what the model was given, and the loss of every step."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        if not hasattr(self, "given"):
            self.given: list[dict[str, Any]] = []
            self.losses: list[float] = []
        self.given.append({name: tensor.tolist() for name, tensor in inputs.items()})
        loss = super().compute_loss(model, inputs, *args, **options)
        self.losses.append(float(loss.detach()))
        return loss


def trainer(folder: Path, data: Any, **options: Any) -> Recording:
    collator = options.pop("data_collator", None)
    settings: dict[str, Any] = {
        "max_steps": 6,
        "save_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 0.01,
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "logging_steps": 100,
    }
    return Recording(
        model=tiny_model(),
        args=TrainingArguments(output_dir=str(folder), **settings | options),
        train_dataset=data,
        data_collator=collator,
    )


def weights(of: Trainer) -> list[Any]:
    return [tensor.tolist() for tensor in of.model.state_dict().values()]


@pytest.mark.parametrize("how", ["greedy", "concat"])
def test_samples_by_number_and_resuming(dataset: ed.TokenDataset, tmp_path: Path, how: str) -> None:
    data = TorchDataset(dataset, 32, pack=how, pad_token_id=PAD, for_transformers=True)
    whole = trainer(tmp_path, data)
    whole.train()
    names = {"input_ids", "labels", "position_ids" if how == "greedy" else "attention_mask"}
    assert [given.keys() for given in whole.given] == [names] * 6
    assert whole.losses[-1] < whole.losses[0]
    again = trainer(tmp_path, data)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.given == whole.given[4:]
    assert again.losses == whole.losses[4:]
    assert weights(again) == weights(whole)


def test_whole_batches_and_resuming(dataset: ed.TokenDataset, tmp_path: Path) -> None:
    def loader() -> ed.DataLoader:
        return ed.DataLoader(dataset, 4, 32, seed=1)

    options: dict[str, Any] = {
        "per_device_train_batch_size": 1,
        "data_collator": itemgetter(0),  # which is a whole batch
    }
    batches = TorchBatches(loader(), for_transformers=True)
    whole = trainer(tmp_path, batches, **options)
    whole.train()
    expected = [next(iterator)["input_ids"].tolist() for iterator in [iter(loader())] * 6]
    assert [given["input_ids"] for given in whole.given] == expected
    again = trainer(tmp_path, TorchBatches(loader(), for_transformers=True), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert again.given == whole.given[4:]
    assert weights(again) == weights(whole)
    # Without reading again what comes before.
    resumed = loader()
    resumed.load_state_dict(batches.state_after(4))
    rest = TorchBatches(resumed, resumed._begin, for_transformers=True)
    third = trainer(tmp_path, rest, ignore_data_skip=True, **options)
    third.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert third.given == whole.given[4:]
    assert weights(third) == weights(whole)


def test_a_step_may_be_several_batches(dataset: ed.TokenDataset, tmp_path: Path) -> None:
    def loader() -> ed.DataLoader:
        return ed.DataLoader(dataset, 4, 32, seed=1, epochs=2)

    options: dict[str, Any] = {
        "per_device_train_batch_size": 1,
        "data_collator": itemgetter(0),
        "gradient_accumulation_steps": 3,
        "dataloader_num_workers": 2,
        "save_steps": 2,
        "max_steps": 4,
    }
    whole = trainer(tmp_path, loader().to_torch(for_transformers=True), **options)
    whole.train()
    expected = [batch["input_ids"].tolist() for batch in islice(loader(), 12)]
    assert [given["input_ids"] for given in whole.given] == expected
    resumed = loader()
    resumed.load_state_dict(loader().to_torch().state_after(2 * 3))
    again = trainer(
        tmp_path, resumed.to_torch(for_transformers=True), ignore_data_skip=True, **options
    )
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.given == whole.given[6:]
    assert weights(again) == weights(whole)


def test_the_loss_of_the_model_is_that_of_the_labels(dataset: ed.TokenDataset) -> None:
    model = tiny_model()
    options: dict[str, Any] = {"pack": "greedy", "pad_token_id": PAD}
    shifted = ["labels", "segment_ids", "positions"]
    ours = TorchDataset(dataset, 32, columns=shifted, **options)
    theirs = TorchDataset(dataset, 32, for_transformers=True, **options)
    batch = next(iter(DataLoader(theirs, batch_size=8)))
    with torch.no_grad():
        out = model(**batch)
    labels = torch.stack([ours[number]["labels"] for number in range(8)])
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), labels.flatten())
    assert torch.allclose(out.loss, loss, atol=1e-6)


def test_documents_of_a_sample_do_not_see_each_other(dataset: ed.TokenDataset) -> None:
    model = tiny_model()
    options: dict[str, Any] = {"pad_token_id": PAD, "for_transformers": True}
    data = TorchDataset(dataset, 40, pack="greedy", **options)
    segments = pack(dataset, 40, "greedy", pad_token_id=PAD).read(np.arange(len(data)))[
        "segment_ids"
    ]
    several = np.flatnonzero(segments.max(axis=1) > 1)[:3].tolist()
    assert len(several) == 3
    for number in several:
        item = {name: tensor[None] for name, tensor in data[number].items()}
        with torch.no_grad():
            logits = model(**item).logits[0]
            for segment in range(1, segments[number].max() + 1):
                places = torch.from_numpy(np.flatnonzero(segments[number] == segment))
                alone = model(item["input_ids"][:, places]).logits[0]
                assert torch.allclose(logits[places], alone, atol=1e-5)
