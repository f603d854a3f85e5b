"""A small real tokenizer, trained here: no file and no network is needed."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

LINES = ("the cat sat on the mat, the hat that sat",) * 3


def train_bpe(
    lines: Iterable[str] = LINES,
    *,
    vocab_size: int = 300,
    special: Iterable[str] = ("<|endoftext|>",),
) -> Tokenizer:
    """A byte-level BPE; the same one for the same arguments."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer
