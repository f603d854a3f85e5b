from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from easydata.stages import load_tokenizer, tokenizer_differences
from tests.bpe import train_bpe

from .conftest import word_level

CONFIG = "tokenizer_config.json"
STORED = "easydata-tokenizer.json"


def files(tokenizer: Any, **options: Any) -> dict[str, bytes]:
    return load_tokenizer(tokenizer, **options).files()


def edited(change: Callable[[dict[str, Any]], None]) -> dict[str, bytes]:
    """The files of the small BPE, with its JSON changed."""
    fields = json.loads(train_bpe().to_str())
    change(fields)
    return files(Tokenizer.from_str(json.dumps(fields)))


BASE = files(train_bpe())


def compare(change: Callable[[dict[str, Any]], None]) -> list[str]:
    return tokenizer_differences(BASE, edited(change))


def test_the_same_has_no_difference() -> None:
    assert tokenizer_differences(BASE, files(train_bpe())) == []


def test_one_merge() -> None:
    # 273 ids: one special token, 256 bytes, 16 merges.
    merges = json.loads(train_bpe().to_str())["model"]["merges"]
    was = " ".join(merges[9])

    def change(fields: dict[str, Any]) -> None:
        fields["model"]["merges"][9] = ["c", "a"]
        fields["model"]["vocab"]["ca"] = 273

    lines = compare(change)
    assert lines == [
        "vocab 273 → 274",
        "vocab entries: 1 new (first 'ca')",
        f"1 of {len(merges)} merges differs, first at 9: {was!r} was, 'c a' is",
    ]


def test_more_merges() -> None:
    merges = json.loads(train_bpe().to_str())["model"]["merges"]
    n = len(merges)

    def swap(fields: dict[str, Any]) -> None:
        kept = fields["model"]["merges"]
        kept[-1], kept[-2] = kept[-2], kept[-1]

    a, b = (" ".join(pair) for pair in merges[-2:])
    assert compare(swap) == [f"2 of {n} merges differ, first at {n - 2}: {a!r} was, {b!r} is"]
    shorter = compare(lambda fields: fields["model"]["merges"].pop())
    assert shorter == [f"merges {n} → {n - 1}, the first that differs at {n - 1}: {b!r} is gone"]
    longer = tokenizer_differences(edited(lambda fields: fields["model"]["merges"].pop()), BASE)
    assert longer == [f"merges {n - 1} → {n}, the first that differs at {n - 1}: {b!r} is new"]


def test_vocabulary() -> None:
    old, more = files(word_level("[UNK] a b c d")), files(word_level("[UNK] a b c d e"))
    assert tokenizer_differences(old, more) == [
        "vocab 5 → 6",
        "vocab entries: 1 new (first 'e')",
    ]
    other = files(word_level("[UNK] b a x d"))
    assert tokenizer_differences(old, other) == [
        "vocab entries: 1 new (first 'x'), 1 gone (first 'c'), 2 with another id (first 'a': 1 → 2)"
    ]


def test_a_vocabulary_with_scores() -> None:
    def unigram(*vocab: tuple[str, float]) -> dict[str, bytes]:
        return files(Tokenizer(models.Unigram(list(vocab), unk_id=0)))

    old = unigram(("a", -1.0), ("b", -2.0))
    assert tokenizer_differences(old, unigram(("a", -1.0), ("b", -2.5))) == [
        "the scores of vocab entries differ"
    ]
    swapped = tokenizer_differences(old, unigram(("b", -2.0), ("a", -1.0)))
    assert swapped == ["vocab entries: 2 with another id (first 'a': 0 → 1)"]


def test_components() -> None:
    old, new = train_bpe(), train_bpe()
    old.normalizer = normalizers.NFC()
    new.normalizer = normalizers.NFKC()
    assert tokenizer_differences(files(old), files(new)) == ["normalizer NFC → NFKC"]
    assert tokenizer_differences(BASE, files(new)) == ["normalizer none → NFKC"]
    new.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    lines = tokenizer_differences(files(old), files(new))
    assert lines == ["normalizer NFC → Sequence(NFC, Lowercase)"]
    old.normalizer = normalizers.Sequence([normalizers.Replace("a", "b"), normalizers.NFC()])
    new.normalizer = normalizers.Sequence([normalizers.Replace("a", "c"), normalizers.NFC()])
    lines = tokenizer_differences(files(old), files(new))
    assert lines == ["normalizer changed: normalizers[0].content 'b' → 'c'"]

    def prefix(fields: dict[str, Any]) -> None:
        fields["pre_tokenizer"]["add_prefix_space"] = True
        fields["decoder"] = None
        fields["model"]["unk_token"] = "a"

    assert compare(prefix) == [
        "pre_tokenizer changed: add_prefix_space False → True",
        "decoder ByteLevel → none",
        "model.unk_token none → 'a'",
    ]


def test_another_model() -> None:
    lines = tokenizer_differences(BASE, files(word_level("[UNK] a")))
    assert lines[:2] == ["model BPE → WordLevel", "vocab 273 → 2"]
    assert len(lines) == 6
    assert lines[-1].startswith("and ")
    assert lines[-1].endswith(" more differences")


def test_added_tokens() -> None:
    one, many = train_bpe(), train_bpe()
    one.add_tokens(["<x>"])
    many.add_tokens([f"<{i}>" for i in range(5)])
    new = ["vocab 273 → 274", "added token '<x>' (id 273) is new"]
    assert tokenizer_differences(BASE, files(one)) == new
    gone = ["vocab 274 → 273", "added token '<x>' (id 273) is gone"]
    assert tokenizer_differences(files(one), BASE) == gone
    assert tokenizer_differences(BASE, files(many)) == [
        "vocab 273 → 278",
        "added token '<0>' (id 273) is new",
        "added token '<1>' (id 274) is new",
        "3 more added tokens differ",
    ]
    special = train_bpe()
    special.add_special_tokens([AddedToken("<x>", normalized=True)])
    assert tokenizer_differences(files(one), files(special)) == [
        "added token '<x>' (id 273) changed: special False → True"
    ]


def test_options_and_special_tokens() -> None:
    core = train_bpe(special=("<|endoftext|>", "<eos>"))

    def fast(**names: str) -> dict[str, bytes]:
        return files(PreTrainedTokenizerFast(tokenizer_object=core, **names))

    old = fast(eos_token="<|endoftext|>")
    assert tokenizer_differences(old, fast(eos_token="<eos>", bos_token="<eos>")) == [
        "eos '<|endoftext|>' → '<eos>'",
        "bos none → '<eos>'",
    ]
    assert tokenizer_differences(BASE, files(train_bpe(), parse_special=True)) == [
        "parse_special False → True"
    ]
    chat = fast(eos_token="<|endoftext|>", chat_template="a")
    other = fast(eos_token="<|endoftext|>", chat_template="b")
    assert tokenizer_differences(old, chat) == ["chat template is new"]
    assert tokenizer_differences(chat, old) == ["chat template is gone"]
    assert tokenizer_differences(chat, other) == ["chat template changed"]


def test_python_tokenizers() -> None:
    old = files(ByT5Tokenizer())
    name = b"transformers.models.byt5.tokenization_byt5."
    moved = old | {STORED: old[STORED].replace(name, b"elsewhere.")}
    assert tokenizer_differences(old, moved) == [
        f"class {name.decode()}ByT5Tokenizer → elsewhere.ByT5Tokenizer"
    ]
    assert tokenizer_differences(BASE, old)[0] == "kind 'json' → 'transformers'"
    assert "eos '</s>' → '<x>'" in tokenizer_differences(old, files(ByT5Tokenizer(eos_token="<x>")))


def test_kinds() -> None:
    assert "kind 'json' → 'bytes'" in tokenizer_differences(BASE, files("bytes"))
    assert tokenizer_differences({}, BASE) == [
        "the tokenizer before is code, of which no copy is kept"
    ]
    assert tokenizer_differences(BASE, {}) == [
        "the tokenizer now is code, of which no copy is kept"
    ]
    assert tokenizer_differences({}, {}) == []


def test_the_name_is_told_only_if_nothing_else_differs() -> None:
    renamed = BASE | {STORED: BASE[STORED].replace(b"tokenizers.Tokenizer (BPE)", b"other")}
    assert tokenizer_differences(BASE, renamed) == ["name 'tokenizers.Tokenizer (BPE)' → 'other'"]
    gone = {name: data for name, data in renamed.items() if name != CONFIG}
    assert tokenizer_differences(BASE, gone) == [f"file {CONFIG} is gone"]


@pytest.mark.parametrize("name", ["tokenizer.json", CONFIG, STORED, "vocab.txt"])
@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"null", b'{"model": 3}', b'{"vocab": []}'])
def test_what_cannot_be_read_differs(name: str, data: bytes) -> None:
    old = BASE | {"vocab.txt": b"a"}
    for pair in ((old, old | {name: data}), (old | {name: data}, old)):
        lines = tokenizer_differences(*pair)
        assert 0 < len(lines) <= 6
    if name == "tokenizer.json" or data in (b"", b"\xff"):
        assert lines == [f"file {name} differs"]
    spaced = old | {name: old[name] + b" "}
    assert tokenizer_differences(old, spaced) == [f"file {name} differs"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["model", "vocab", "merges", "type", "id", "content", "added_tokens"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, JSON, st.sampled_from(["tokenizer.json", CONFIG, STORED]))
def test_anything_can_be_compared(old: Any, new: Any, name: str) -> None:
    a, b = ({name: json.dumps(value).encode()} for value in (old, new))
    lines = tokenizer_differences(a, b)
    assert (a == b) == (not lines)
    assert len(lines) <= 6
    assert all(len(line) < 400 for line in lines)


def test_values_are_compared_as_json() -> None:
    def lines(name: str, old: bytes, new: bytes) -> list[str]:
        return tokenizer_differences({name: old}, {name: new})

    assert lines(CONFIG, b'{"x": false}', b'{"x": 0}') == ["x False → 0"]
    # Older versions of the library spell a merge as one text.
    old, new = (
        json.dumps({"model": {"vocab": {"a": 0}, "merges": merges}}).encode()
        for merges in (["a b", "c d"], [["a", "b"], ["c", "e"]])
    )
    assert lines("tokenizer.json", old, new) == [
        "1 of 2 merges differs, first at 1: 'c d' was, 'c e' is"
    ]
