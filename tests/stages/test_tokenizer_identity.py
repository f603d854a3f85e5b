"""One tokenizer, one fingerprint: whatever was called on it, and in every process."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from easydata.errors import TokenizerError
from easydata.stages import load_tokenizer
from tests.bpe import train_bpe

from .conftest import TEXTS, word_level

Use = Callable[[Any], object]

CORE_USES: dict[str, Use] = {
    "encode": lambda t: t.encode_batch(TEXTS),
    "truncation": lambda t: t.enable_truncation(3, stride=1, direction="left"),
    "padding": lambda t: t.enable_padding(pad_id=5, pad_token="!", length=9),
    "both, used": lambda t: [t.enable_truncation(4), t.enable_padding(), t.encode_batch(TEXTS)],
    "switched off again": lambda t: [t.enable_truncation(4), t.no_truncation()],
    "decode": lambda t: t.decode([1, 2, 3]),
    "encode_special_tokens": lambda t: setattr(t, "encode_special_tokens", True),
    "saved and read": lambda t: Tokenizer.from_str(t.to_str(pretty=True)),
}

CALLS: dict[str, Use] = {
    "call": lambda t: t(TEXTS),
    "padding": lambda t: t(TEXTS, padding=True),
    "truncation": lambda t: t(TEXTS, truncation=True, max_length=6),
    "both": lambda t: t(TEXTS, padding="max_length", truncation=True, max_length=8),
    "special tokens as text": lambda t: t(TEXTS, split_special_tokens=True),
    "decode": lambda t: t.decode([5, 6], skip_special_tokens=True),
    "pad": lambda t: t.pad({"input_ids": [[5], [5, 6]]}),
}

FAST_USES: dict[str, Use] = CALLS | {
    "set_truncation_and_padding": lambda t: t.set_truncation_and_padding(
        padding_strategy=_strategy("longest"),
        truncation_strategy=_strategy("longest_first"),
        max_length=7,
        stride=0,
        pad_to_multiple_of=None,
        padding_side="left",
    ),
    "another pad token": lambda t: setattr(t, "pad_token", t.eos_token),
    "padding side": lambda t: setattr(t, "padding_side", "left"),
    "model_max_length": lambda t: setattr(t, "model_max_length", 5),
}


def _strategy(name: str) -> Any:
    from transformers.tokenization_utils_base import TruncationStrategy
    from transformers.utils import PaddingStrategy

    return PaddingStrategy(name) if name == "longest" else TruncationStrategy(name)


def core() -> Tokenizer:
    return train_bpe(special=("<|endoftext|>", "<pad>"))


def fast(tokenizer: Tokenizer | None = None, **names: str) -> PreTrainedTokenizerFast:
    names = {"eos_token": "<|endoftext|>", "pad_token": "<pad>"} | names
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer or core(), **names)


def slow() -> ByT5Tokenizer:
    return ByT5Tokenizer()


@pytest.mark.parametrize(
    ("make", "use"),
    [
        pytest.param(make, use, id=f"{make.__name__}: {name}")
        for make, uses in ((core, CORE_USES), (fast, FAST_USES), (slow, CALLS))
        for name, use in uses.items()
    ],
)
def test_use_changes_neither_fingerprint_nor_ids(make: Callable[[], Any], use: Use) -> None:
    theirs = make()
    fresh = load_tokenizer(make())
    expected = fresh.encode(TEXTS)[0].tolist()
    use(theirs)
    used = load_tokenizer(theirs)
    assert used.fingerprint == fresh.fingerprint
    assert used.encode(TEXTS)[0].tolist() == expected
    # What they do with theirs later does not reach ours, and ours stays what it is when used.
    use(theirs)
    assert used.encode(TEXTS)[0].tolist() == expected
    used.decode(expected[:3])
    assert used.fingerprint == load_tokenizer(used.spec()).fingerprint == fresh.fingerprint


def _merge(fields: dict[str, Any]) -> None:
    fields["model"]["merges"][5] = ["c", "a"]
    fields["model"]["vocab"]["ca"] = 900


def _fewer_merges(fields: dict[str, Any]) -> None:
    fields["model"]["merges"].pop()


def _vocab_entry(fields: dict[str, Any]) -> None:
    fields["model"]["vocab"]["~~~"] = 900


def _vocab_name(fields: dict[str, Any]) -> None:
    vocab = fields["model"]["vocab"]
    vocab["ŷ"] = vocab.pop("Ā")


def _byte_fallback(fields: dict[str, Any]) -> None:
    fields["model"]["byte_fallback"] = True


JSON_CHANGES = [_merge, _fewer_merges, _vocab_entry, _vocab_name, _byte_fallback]

OBJECT_CHANGES: dict[str, Use] = {
    "NFC": lambda t: setattr(t, "normalizer", normalizers.NFC()),
    "NFKC": lambda t: setattr(t, "normalizer", normalizers.NFKC()),
    "Lowercase": lambda t: setattr(t, "normalizer", normalizers.Lowercase()),
    "ByteLevel": lambda t: setattr(
        t, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)
    ),
    "added": lambda t: t.add_tokens(["<x>"]),
    "another": lambda t: t.add_tokens(["<y>"]),
    "special": lambda t: t.add_special_tokens(["<x>"]),
    "stripping": lambda t: t.add_tokens([AddedToken("<x>", lstrip=True)]),
    "normalized": lambda t: t.add_tokens([AddedToken("<x>", normalized=False)]),
    "single word": lambda t: t.add_tokens([AddedToken("<x>", single_word=True)]),
}

FAST_CHANGES: dict[str, dict[str, Any]] = {
    "fast": {},
    "other eos": {"eos_token": "<pad>"},
    "new eos": {"eos_token": "<stop>"},
    "bos": {"bos_token": "<pad>"},
    "unknown": {"unk_token": "<unk>"},
    "additional": {"additional_special_tokens": ["<a>"]},
}


def test_different_tokenizers_have_different_fingerprints() -> None:
    found = {"core": load_tokenizer(core()).fingerprint}
    found["parsed"] = load_tokenizer(core(), parse_special=True).fingerprint
    for change in JSON_CHANGES:
        fields = json.loads(core().to_str())
        change(fields)
        other = Tokenizer.from_str(json.dumps(fields))
        found[change.__name__] = load_tokenizer(other).fingerprint
    for name, use in OBJECT_CHANGES.items():
        theirs = core()
        use(theirs)
        found[name] = load_tokenizer(theirs).fingerprint
    for name, names in FAST_CHANGES.items():
        found[name] = load_tokenizer(fast(**names)).fingerprint
    found["slow"] = load_tokenizer(slow()).fingerprint
    found["slow, other eos"] = load_tokenizer(ByT5Tokenizer(eos_token="<x>")).fingerprint
    found["slow, fewer extra ids"] = load_tokenizer(ByT5Tokenizer(extra_ids=9)).fingerprint
    found["words"] = load_tokenizer(word_level("a b", unk="a")).fingerprint
    found["other ids"] = load_tokenizer(word_level("b a", unk="a")).fingerprint
    found["other unknown"] = load_tokenizer(word_level("a b", unk="b")).fingerprint
    by_fingerprint: dict[str, list[str]] = {}
    for name, fingerprint in found.items():
        by_fingerprint.setdefault(fingerprint, []).append(name)
    assert [names for names in by_fingerprint.values() if len(names) > 1] == []


def test_dropout_is_refused_in_every_form(tmp_path: Path) -> None:
    random = Tokenizer(models.BPE({"a": 0, "<|endoftext|>": 1, "<pad>": 2}, [], dropout=0.5))
    path = tmp_path / "tokenizer.json"
    random.save(str(path))
    for source in (random, fast(random), path, tmp_path):
        with pytest.raises(TokenizerError, match=r"at random \(dropout is 0.5\)"):
            load_tokenizer(source)


PROGRAM = """
import sys
from tokenizers import Tokenizer
from easydata.stages import load_tokenizer, tokenizer_source_hash
found = set()
for path in sys.argv[1:]:
    theirs = Tokenizer.from_file(path)
    before = load_tokenizer(path)
    theirs.enable_truncation(3)
    theirs.enable_padding(length=8)
    theirs.encode_batch(["the cat", "a mat"])
    print(before.fingerprint, load_tokenizer(theirs).fingerprint, tokenizer_source_hash(path))
"""


def test_twenty_processes_agree(tmp_path: Path, fresh_python: Callable[..., str]) -> None:
    bpe, unigram = core(), Tokenizer(models.Unigram([("a", -1.0), ("b", -2.0)], unk_id=0))
    bpe.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    bpe.add_tokens([f"<{i}>" for i in range(40)])
    bpe.save(str(tmp_path / "bpe.json"))
    bpe.enable_truncation(4)
    bpe.enable_padding()
    bpe.save(str(tmp_path / "limits.json"))
    unigram.save(str(tmp_path / "unigram.json"))
    paths = [str(tmp_path / f"{name}.json") for name in ("bpe", "limits", "unigram")]
    with ThreadPoolExecutor(4) as pool:
        outputs = list(
            pool.map(lambda seed: fresh_python(PROGRAM, *paths, hash_seed=seed), range(20))
        )
    assert len(set(outputs)) == 1
    first, limited, other = (line.split() for line in outputs[0].splitlines())
    expected = load_tokenizer(bpe).fingerprint
    assert first[:2] == limited[:2] == [expected, expected]
    assert other[:2] == [load_tokenizer(unigram).fingerprint] * 2
    assert len({first[2], limited[2], other[2]}) == 3


def test_transformers_tokenizers_agree_in_other_processes(
    tmp_path: Path, fresh_python: Callable[..., str]
) -> None:
    fast().save_pretrained(tmp_path / "fast")
    slow().save_pretrained(tmp_path / "slow")
    program = (
        "import sys; from transformers import AutoTokenizer; from easydata.stages import"
        " load_tokenizer as load; found = []\n"
        "for path in sys.argv[1:]:\n"
        "    t = AutoTokenizer.from_pretrained(path); t(['a b', 'c'], padding=True,"
        " truncation=True, max_length=2); found += [load(t).fingerprint, load(path).fingerprint]\n"
        "print(*found)"
    )
    paths = [str(tmp_path / name) for name in ("fast", "slow")]
    with ThreadPoolExecutor(2) as pool:
        outputs = set(pool.map(lambda s: fresh_python(program, *paths, hash_seed=s), (1, 77)))
    expected = [load_tokenizer(fast()).fingerprint] * 2 + [load_tokenizer(slow()).fingerprint] * 2
    assert [output.split() for output in outputs] == [expected]
