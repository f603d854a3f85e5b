from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, processors

from easydata.errors import TokenizerError
from easydata.stages import RowTokenizeError, load_tokenizer
from easydata.stages import json_tokenizer as module
from easydata.stages.declared import Declared
from tests.bpe import train_bpe

from .conftest import TEXTS, word_level


def test_ids_are_those_of_the_library(bpe: Tokenizer) -> None:
    bpe.encode_special_tokens = True
    expected = [e.ids for e in bpe.encode_batch(TEXTS, add_special_tokens=False)]
    ids, lengths = load_tokenizer(bpe).encode(TEXTS)
    assert ids.dtype == np.uint32
    assert lengths.dtype == np.int64
    assert lengths.tolist() == [len(row) for row in expected]
    assert ids.tolist() == [i for row in expected for i in row]
    assert ids.flags.writeable


def test_batches_do_not_show_in_the_ids(bpe: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = load_tokenizer(bpe)
    ids, lengths = tokenizer.encode(TEXTS)
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 20)
    small_ids, small_lengths = tokenizer.encode(TEXTS)
    assert ids.tolist() == small_ids.tolist()
    assert lengths.tolist() == small_lengths.tolist()


def test_nothing_to_encode(bpe: Tokenizer) -> None:
    ids, lengths = load_tokenizer(bpe).encode([])
    assert (ids.shape, lengths.shape) == ((0,), (0,))


def test_text_that_spells_a_special_token(bpe: Tokenizer) -> None:
    eos = bpe.token_to_id("<|endoftext|>")
    text = "a<|endoftext|>b"
    as_text = load_tokenizer(bpe)
    parsed = load_tokenizer(bpe, parse_special=True)
    assert eos not in as_text.encode([text])[0]
    assert eos in parsed.encode([text])[0]
    assert as_text.fingerprint != parsed.fingerprint
    assert as_text.decode(as_text.encode([text])[0]) == text
    assert parsed.decode(parsed.encode([text])[0]) == text


def test_a_token_only_the_config_declares_special_is_text(tmp_path: Path) -> None:
    tokenizer = train_bpe()
    tokenizer.add_tokens([AddedToken("<stop>", special=False)])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    stop = tokenizer.token_to_id("<stop>")
    before = load_tokenizer(tmp_path)
    assert stop in before.encode(["a<stop>"])[0]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<stop>"}))
    after = load_tokenizer(tmp_path)
    assert stop not in after.encode(["a<stop>"])[0]
    assert after.special_tokens == ("<|endoftext|>", "<stop>")
    assert before.fingerprint != after.fingerprint


def test_post_processor_is_not_applied(bpe: Tokenizer) -> None:
    plain = load_tokenizer(bpe).encode(["the cat"])[0]
    bpe.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer = load_tokenizer(bpe)
    assert tokenizer.encode(["the cat"])[0].tolist() == plain.tolist()
    assert b"TemplateProcessing" in tokenizer.files()["tokenizer.json"]


def test_saved_truncation_and_padding_are_not_applied(bpe: Tokenizer, tmp_path: Path) -> None:
    plain = load_tokenizer(bpe)
    bpe.enable_truncation(3)
    bpe.enable_padding(length=9)
    path = tmp_path / "t.json"
    bpe.save(str(path))
    for source in (bpe, path):
        tokenizer = load_tokenizer(source)
        assert tokenizer.encode(TEXTS)[1].tolist() == plain.encode(TEXTS)[1].tolist()
        assert tokenizer.fingerprint == plain.fingerprint
        truncation, padding = tokenizer.notes
        assert truncation == (
            "truncation to 3 tokens, saved in the tokenizer, is not applied; pass max_length to "
            "truncate"
        )
        assert padding == (
            "padding, saved in the tokenizer, is not applied; batches are padded later"
        )
    assert plain.notes == ()


def test_randomness_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"at random \(dropout is 0.1\).*cannot be cached"):
        load_tokenizer(Tokenizer(models.BPE({"a": 0}, [], dropout=0.1)))
    assert load_tokenizer(Tokenizer(models.BPE({"a": 0}, [], dropout=0.0))).vocab_size == 1
    unigram = models.Unigram([("a", 0.0)])
    unigram.alpha = 0.5
    with pytest.raises(TokenizerError, match=r"alpha is 0.5"):
        load_tokenizer(Tokenizer(unigram))


def test_randomness_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    Tokenizer(models.BPE({"a": 0}, [], dropout=0.25)).save(str(path))
    with pytest.raises(TokenizerError, match=r"dropout is 0.25"):
        load_tokenizer(path)


def test_the_users_object_stays_as_it_is(bpe: Tokenizer) -> None:
    bpe.enable_truncation(4)
    bpe.enable_padding(length=9)
    before = bpe.to_str()
    tokenizer = load_tokenizer(bpe)
    texts = TEXTS * 20
    expected = tokenizer.encode(texts)[0].tolist()
    with ThreadPoolExecutor(4) as pool:
        ours = [pool.submit(tokenizer.encode, texts) for _ in range(4)]
        theirs = [pool.submit(bpe.encode_batch, texts) for _ in range(4)]
        assert all(job.result()[0].tolist() == expected for job in ours)
        assert all({len(e.ids) for e in job.result()} == {9} for job in theirs)
    assert bpe.to_str() == before
    assert bpe.encode_special_tokens is False


def test_a_later_change_of_the_users_object_does_not_reach_us(bpe: Tokenizer) -> None:
    tokenizer = load_tokenizer(bpe)
    expected = tokenizer.encode(["the cat"])[0].tolist()
    bpe.add_tokens(["the cat"])
    assert tokenizer.encode(["the cat"])[0].tolist() == expected


def test_fingerprint_golden() -> None:
    # A change here makes every cache that was built before stale.
    tokenizer = load_tokenizer(word_level("[UNK] a b"))
    assert tokenizer.fingerprint == "dc1ee5b865e66f02b102aa205021c57f"


def test_fingerprint_is_the_same_everywhere(
    bpe: Tokenizer, tmp_path: Path, fresh_python: Callable[..., str]
) -> None:
    path = tmp_path / "t.json"
    bpe.save(str(path), pretty=True)
    tokenizer = load_tokenizer(bpe)
    before = tokenizer.fingerprint
    tokenizer.encode(TEXTS)
    tokenizer.decode([1, 2])
    bpe.encode_batch(TEXTS)
    program = (
        "import sys; from easydata.stages import load_tokenizer as load;"
        "print(load(sys.argv[1]).fingerprint)"
    )
    others = {fresh_python(program, str(path), hash_seed=seed).strip() for seed in (1, 2)}
    assert {before, tokenizer.fingerprint, load_tokenizer(bpe).fingerprint} | others == {before}


def test_fingerprint_does_not_depend_on_how_the_file_is_spelled(
    bpe: Tokenizer, tmp_path: Path
) -> None:
    fields = json.loads(bpe.to_str())
    model = fields["model"]
    model["vocab"] = dict(reversed(model["vocab"].items()))
    model["merges"] = [" ".join(pair) for pair in model["merges"]]  # as older versions wrote
    path = tmp_path / "t.json"
    path.write_text(json.dumps(dict(reversed(fields.items())), indent=3))
    assert load_tokenizer(path).fingerprint == load_tokenizer(bpe).fingerprint


def test_fingerprint_does_not_trust_the_library_to_sort(bpe: Tokenizer) -> None:
    def fingerprint(fields: dict[str, Any]) -> str:
        return module._fingerprint(fields, Declared(), parse_special=False)

    fields = json.loads(bpe.to_str())
    before = fingerprint(fields)
    vocab = fields["model"]["vocab"]
    fields["model"]["vocab"] = dict(sorted(vocab.items()))
    assert list(fields["model"]["vocab"]) != list(vocab)
    assert fingerprint(dict(reversed(fields.items()))) == before


def test_fingerprint_of_a_vocabulary_that_is_a_list() -> None:
    def unigram(*vocab: tuple[str, float]) -> str:
        return load_tokenizer(Tokenizer(models.Unigram(list(vocab)))).fingerprint

    a, b = ("a", -1.0), ("b", -2.0)
    assert unigram(a, b) == unigram(a, b)
    assert len({unigram(a, b), unigram(b, a), unigram(a, ("b", -2.5)), unigram(a)}) == 4


def _swap_merges(fields: dict[str, Any]) -> None:
    merges = fields["model"]["merges"]
    merges[-1], merges[-2] = merges[-2], merges[-1]


def _swap_ids(fields: dict[str, Any]) -> None:
    vocab = fields["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]


def _change_special(fields: dict[str, Any]) -> None:
    fields["added_tokens"][0]["special"] = False


def _change_splitting(fields: dict[str, Any]) -> None:
    fields["pre_tokenizer"]["add_prefix_space"] = True


@pytest.mark.parametrize("change", [_swap_merges, _swap_ids, _change_special, _change_splitting])
def test_fingerprint_differs_with_content(
    bpe: Tokenizer, change: Callable[[dict[str, Any]], None]
) -> None:
    fields = json.loads(bpe.to_str())
    change(fields)
    other = Tokenizer.from_str(json.dumps(fields))
    assert load_tokenizer(other).fingerprint != load_tokenizer(bpe).fingerprint


def test_vocab_size_is_the_largest_id_and_one() -> None:
    sparse = Tokenizer(models.WordLevel({"a": 0, "b": 70_000}, unk_token="a"))
    assert sparse.get_vocab_size() == 2
    assert load_tokenizer(sparse).vocab_size == 70_001
    sparse.add_special_tokens(["</s>"])
    expected = max(sparse.get_vocab().values()) + 1
    assert load_tokenizer(sparse).vocab_size == expected


def test_token_id(bpe: Tokenizer) -> None:
    tokenizer = load_tokenizer(bpe)
    assert tokenizer.token_id("<|endoftext|>") == 0
    assert tokenizer.token_id("no such token") is None


def test_decode(bpe: Tokenizer) -> None:
    tokenizer = load_tokenizer(bpe)
    for text in TEXTS:
        ids, _ = tokenizer.encode([text])
        assert tokenizer.decode(ids) == text
        assert tokenizer.decode([*ids.tolist(), 0]) == text  # EOS has no text
    with pytest.raises(TokenizerError, match=r"cannot decode id 273: .* ids 0 to 272"):
        tokenizer.decode([1, 273])
    with pytest.raises(TokenizerError, match=r"cannot decode id -1"):
        tokenizer.decode(np.array([-1]))


def test_decode_shows_the_unknown_token() -> None:
    words = word_level("[UNK] hello")
    words.add_special_tokens(["[UNK]", "</s>"])
    tokenizer = load_tokenizer(words)
    assert tokenizer.decode(tokenizer.encode(["hello you"])[0]) == "hello [UNK]"
    assert tokenizer.decode([1, 2]) == "hello"


def test_a_text_that_is_not_unicode_is_named(bpe: Tokenizer) -> None:
    with pytest.raises(RowTokenizeError, match=r"^text 1: character 2 is '\\ud800'") as caught:
        load_tokenizer(bpe).encode(["good", "ab\ud800", "good"])
    assert caught.value.row == 1


def test_a_text_without_ids_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_CHARACTERS", 1)
    tokenizer = load_tokenizer(word_level("a b", unk=None))
    with pytest.raises(RowTokenizeError, match=r"cannot encode it: .*\[UNK\].*unknown") as caught:
        tokenizer.encode(["a", "b", "c"])
    assert caught.value.row == 2


def test_a_failure_of_no_single_text(bpe: Tokenizer) -> None:
    class Failing:
        def encode_batch_fast(self, *_: object, **__: object) -> None:
            raise ValueError("out of luck")

        def encode(self, *_: object, **__: object) -> None: ...

    tokenizer = load_tokenizer(bpe)
    vars(tokenizer)["_core"] = Failing()
    with pytest.raises(TokenizerError, match=r"Tokenizer \(BPE\)' failed: out of luck"):
        tokenizer.encode(["a"])


def test_components_in_python_are_refused(bpe: Tokenizer) -> None:
    class Custom:
        def normalize(self, text: object) -> None: ...

    bpe.normalizer = normalizers.Normalizer.custom(Custom())
    with pytest.raises(TokenizerError, match=r"cannot be written as JSON .*CallableTokenizer"):
        load_tokenizer(bpe)


def test_an_empty_vocabulary_is_refused() -> None:
    with pytest.raises(TokenizerError, match=r"empty vocabulary. Train it first"):
        load_tokenizer(Tokenizer(models.BPE()))
