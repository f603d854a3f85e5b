"""Tokenizers of the `tokenizers` library, which are one JSON text each."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from easydata.errors import TokenizerError
from easydata.fingerprint import fingerprint_bytes
from easydata.stages._checks import check_unicode, id_list
from easydata.stages.base import Encoded, Ids, RowTokenizeError, TokenizerSpec
from easydata.stages.chat import ChatTemplate, chat_template_from
from easydata.stages.declared import TEMPLATE_FILE, Declared
from easydata.stages.stored import Stored

if TYPE_CHECKING:
    import tokenizers

__all__ = ["JsonSpec", "JsonTokenizer", "tokenizer_from_json", "tokenizer_from_object"]

# The library returns all its results at once, at some hundred bytes a token, where four are
# kept. Batches of this many characters take as long as one of 3 MB, within the noise.
BATCH_CHARACTERS = 1 << 18


@dataclass(frozen=True)
class JsonSpec(TokenizerSpec):
    """The spec of `JsonTokenizer`.

    Attributes:
        json: the tokenizer as the library writes it, without truncation and padding. Its
            post-processor is kept for other readers of the stored file, and is not applied.
        parse_special: whether text that spells a special token becomes that token.
        Others: as in `Tokenizer`.
    """

    releases_gil = True

    name: str
    json: str = field(repr=False)
    parse_special: bool
    vocab_size: int
    fingerprint: str
    declared_eos: str | None
    declared_bos: str | None
    declared_pad: str | None
    chat_template: ChatTemplate | None
    notes: tuple[str, ...]

    def load(self) -> JsonTokenizer:
        return JsonTokenizer(self, _parse(self.json, self.name))


class JsonTokenizer:
    """A tokenizer of the `tokenizers` library. Make one with `load_tokenizer`."""

    def __init__(self, spec: JsonSpec, core: tokenizers.Tokenizer) -> None:
        """Take over `core`, which must be `spec.json` and belong to nobody else."""
        core.encode_special_tokens = not spec.parse_special
        # Even without special tokens a template may repeat or leave out what it is given.
        core.post_processor = None
        self._spec = spec
        self._core = core
        added = core.get_added_tokens_decoder().items()
        self.special_tokens = tuple(str(token.content) for _, token in added if token.special)
        unknown = getattr(core.model, "unk_token", None)
        self._without_text = (
            frozenset[int]()
            if spec.parse_special
            else frozenset(i for i, token in added if token.special and token.content != unknown)
        )

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def vocab_size(self) -> int:
        return self._spec.vocab_size

    @property
    def fingerprint(self) -> str:
        return self._spec.fingerprint

    @property
    def declared_eos(self) -> str | None:
        return self._spec.declared_eos

    @property
    def declared_bos(self) -> str | None:
        return self._spec.declared_bos

    @property
    def declared_pad(self) -> str | None:
        return self._spec.declared_pad

    @property
    def chat_template(self) -> ChatTemplate | None:
        return self._spec.chat_template

    @property
    def notes(self) -> tuple[str, ...]:
        return self._spec.notes

    def encode(self, texts: Sequence[str]) -> Encoded:
        # array.fromlist is the fastest way out of lists of ints: 28 ms for 720,000 of them,
        # of which 20 are the library's making of the lists; np.fromiter over a chain takes 60.
        flat = array("I")
        lengths = np.empty(len(texts), dtype=np.int64)
        row = 0
        for batch in _batches(texts):
            try:
                encodings = self._core.encode_batch_fast(batch, add_special_tokens=False)
            except Exception as error:  # the library raises TypeError and bare Exception
                raise self._blame(batch, row, error) from error
            for encoding in encodings:
                ids = encoding.ids
                flat.fromlist(ids)
                lengths[row] = len(ids)
                row += 1
        return np.frombuffer(flat, dtype=np.uint32), lengths

    def _blame(self, batch: list[str], first_row: int, error: Exception) -> TokenizerError:
        # The library does not say which text of a batch it failed on.
        for row, text in enumerate(batch, start=first_row):
            check_unicode(row, text)
            reason = self._why_not(text)
            if reason is not None:
                return RowTokenizeError(row, reason)
        return TokenizerError(f"the tokenizer {self.name!r} failed: {error}")

    def _why_not(self, text: str) -> str | None:
        try:
            self._core.encode(text, add_special_tokens=False)
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception
            return (
                f"the tokenizer {self.name!r} cannot encode it: {error}. A tokenizer needs an "
                "unknown token, or bytes, for what its vocabulary lacks"
            )
        return None

    def decode(self, ids: Ids) -> str:
        found = id_list(ids, self.vocab_size, f"the tokenizer {self.name!r}")
        shown = [i for i in found if i not in self._without_text]
        return str(self._core.decode(shown, skip_special_tokens=False))

    def token_id(self, token: str) -> int | None:
        found: int | None = self._core.token_to_id(token)
        return found

    def files(self) -> dict[str, bytes]:
        """tokenizer.json and its companions; `transformers.AutoTokenizer` opens them too."""
        config: dict[str, object] = {"tokenizer_class": "PreTrainedTokenizerFast"}
        config |= {
            key: token
            for key, token in (
                ("bos_token", self.declared_bos),
                ("eos_token", self.declared_eos),
                ("pad_token", self.declared_pad),
            )
            if token is not None
        }
        template = {}
        if self.chat_template is not None:
            config |= self.chat_template.variables
            template[TEMPLATE_FILE] = self.chat_template.source.encode("utf-8")
        stored = Stored(kind="json", name=self.name, parse_special=self._spec.parse_special)
        return {
            "tokenizer.json": self._spec.json.encode("utf-8"),
            "tokenizer_config.json": json.dumps(config, indent=1).encode("ascii") + b"\n",
            **template,
            **stored.to_files(),
        }

    def spec(self) -> JsonSpec:
        return self._spec


def tokenizer_from_object(
    tokenizer: Any, *, name: str, parse_special: bool, declared: Declared
) -> JsonTokenizer:
    """A tokenizer equal to a `tokenizers.Tokenizer`, which stays as it is.

    Raises:
        TokenizerError: it holds components written in Python, or encodes at random.
    """
    for knob in ("dropout", "alpha"):
        # `alpha` samples from a Unigram model, and is not part of its JSON.
        _refuse_random(knob, getattr(tokenizer.model, knob, None), name)
    try:
        text = tokenizer.to_str()
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"the tokenizer {name!r} cannot be written as JSON ({error}), so neither its identity "
            "nor a copy for a worker process can be made. Use components of the library, or wrap "
            "a function in CallableTokenizer"
        ) from error
    return tokenizer_from_json(text, name=name, parse_special=parse_special, declared=declared)


def tokenizer_from_json(
    text: str, *, name: str, parse_special: bool, declared: Declared
) -> JsonTokenizer:
    """The tokenizer that `text` describes, without its truncation and padding.

    Raises:
        TokenizerError: the text is no tokenizer, has no vocabulary, or encodes at random.
    """
    core = _parse(text, name)
    notes = _switch_off_lengths(core)
    _refuse_random("dropout", getattr(core.model, "dropout", None), name)
    text = core.to_str()  # one spelling, however the file spells it
    fields = json.loads(text)
    if _mark_special(fields, declared.special):
        text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        core = _parse(text, name)
    vocab = core.get_vocab(with_added_tokens=True)
    if not vocab:
        raise TokenizerError(f"the tokenizer {name!r} has an empty vocabulary. Train it first")
    spec = JsonSpec(
        name=name,
        json=text,
        parse_special=parse_special,
        vocab_size=max(vocab.values()) + 1,
        fingerprint=_fingerprint(fields, declared, parse_special=parse_special),
        declared_eos=declared.eos,
        declared_bos=declared.bos,
        declared_pad=declared.pad,
        chat_template=chat_template_from(declared),
        notes=notes,
    )
    return JsonTokenizer(spec, core)


def _parse(text: str, name: str) -> tokenizers.Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(
            f"{name} is not a tokenizer in the JSON of the 'tokenizers' library: {error}. "
            "Write one with Tokenizer.save(path)"
        ) from error


def _switch_off_lengths(core: tokenizers.Tokenizer) -> tuple[str, ...]:
    notes = []
    if core.truncation is not None:
        notes.append(
            f"truncation to {core.truncation['max_length']} tokens, saved in the tokenizer, is "
            "not applied; pass max_length to truncate"
        )
        core.no_truncation()
    if core.padding is not None:
        notes.append("padding, saved in the tokenizer, is not applied; batches are padded later")
        core.no_padding()
    return tuple(notes)


def _refuse_random(knob: str, value: float | None, name: str) -> None:
    if value:
        raise TokenizerError(
            f"the tokenizer {name!r} encodes at random ({knob} is {value:g}): the same text gives "
            f"other ids each time, which cannot be cached. Set model.{knob} to None"
        )


def _mark_special(fields: dict[str, Any], special: frozenset[str]) -> bool:
    # A token that only tokenizer_config.json declares special would still be parsed from text.
    tokens = [
        token
        for token in fields["added_tokens"]
        if token["content"] in special and not token["special"]
    ]
    for token in tokens:
        token["special"] = True
    return bool(tokens)


def _fingerprint(fields: dict[str, Any], declared: Declared, *, parse_special: bool) -> str:
    model = dict(fields["model"])
    vocab = model.pop("vocab")
    if isinstance(vocab, dict):
        # Sorting 32,000 tokens by id, the order they come in, costs a tenth of sorting by name.
        vocab = sorted(vocab.items(), key=itemgetter(1))
    # The ids do not depend on the post-processor, which transformers adds to what has none.
    rest = {**fields, "model": model, "post_processor": None}
    # A pad token changes no id, and many scripts set one before they train.
    identity = [rest, vocab, parse_special, declared.eos, declared.bos]
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return fingerprint_bytes(text.encode("ascii"))


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    characters = 0
    for text in texts:
        batch.append(text)
        characters += len(text)
        if characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
