"""Tokenizers of `transformers` that are Python code, not a `tokenizers` JSON."""

from __future__ import annotations

import importlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easydata.errors import TokenizerError
from easydata.fingerprint import fingerprint_bytes, fingerprint_json
from easydata.stages._checks import flatten_checked, id_list, utf8
from easydata.stages.base import Encoded, Ids, TokenizerSpec
from easydata.stages.chat import chat_template_from
from easydata.stages.declared import declared_by
from easydata.stages.stored import Stored

__all__ = ["SlowSpec", "SlowTokenizer", "tokenizer_from_slow"]

_CONFIG = "tokenizer_config.json"
_REMOTE = "transformers_modules."
# Where and by what a tokenizer was saved says nothing about its ids.
_PASSING_KEYS = ("is_local", "local_files_only", "name_or_path", "transformers_version")


@dataclass(frozen=True)
class SlowSpec(TokenizerSpec):
    """The spec of `SlowTokenizer`: what `save_pretrained` wrote, and the class that reads it."""

    name: str
    cls: type[Any]
    saved: tuple[tuple[str, bytes], ...] = field(repr=False)
    parse_special: bool
    fingerprint: str

    def __getstate__(self) -> dict[str, Any]:
        # Code that came with a name or a folder is in a package that only transformers finds.
        if not self.cls.__module__.startswith(_REMOTE):
            return self.__dict__
        return self.__dict__ | {"cls": (self.cls.__module__, self.cls.__qualname__)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        cls = state["cls"]
        if isinstance(cls, tuple):
            from transformers.dynamic_module_utils import init_hf_modules

            init_hf_modules()
            cls = getattr(importlib.import_module(cls[0]), cls[1])
        self.__dict__.update(state | {"cls": cls})

    def load(self) -> SlowTokenizer:
        with tempfile.TemporaryDirectory(prefix="easydata-tokenizer-") as folder:
            for name, data in self.saved:
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            try:
                core = self.cls.from_pretrained(folder, local_files_only=True)
            except Exception as error:  # a class's own code may raise anything
                raise TokenizerError(
                    f"{class_name(self.cls)} cannot read what its save_pretrained wrote "
                    f"({type(error).__name__}: {error}), so no copy of the tokenizer can be made. "
                    "Wrap a function in CallableTokenizer"
                ) from error
        return SlowTokenizer(self, core)


class SlowTokenizer:
    """A `transformers` tokenizer in pure Python. Make one with `load_tokenizer`."""

    notes: tuple[str, ...] = ()

    def __init__(self, spec: SlowSpec, core: Any) -> None:
        """Take over `core`, which must come from `spec` and belong to nobody else."""
        self._spec = spec
        self._core = core
        declared = declared_by(core)
        self.declared_eos = declared.eos
        self.declared_bos = declared.bos
        self.declared_pad = declared.pad
        self.chat_template = chat_template_from(declared)
        self.special_tokens = tuple(str(token) for token in core.all_special_tokens)
        added = core.get_added_vocab().values()
        self.vocab_size = max(len(core), core.vocab_size, *(i + 1 for i in added))
        self._without_text = (
            frozenset[int]()
            if spec.parse_special
            else frozenset(core.all_special_ids) - {core.unk_token_id}
        )

    @property
    def name(self) -> str:
        return self._spec.name

    @property
    def fingerprint(self) -> str:
        return self._spec.fingerprint

    def encode(self, texts: Sequence[str]) -> Encoded:
        if not len(texts):
            return flatten_checked([], 0, self.vocab_size, self.name)
        utf8(texts)  # refuses what is no Unicode text, as every other tokenizer does
        result = self._core(
            list(texts),
            add_special_tokens=False,
            padding=False,
            truncation=False,
            split_special_tokens=not self._spec.parse_special,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )["input_ids"]
        return flatten_checked(result, len(texts), self.vocab_size, f"tokenizer {self.name!r}")

    def decode(self, ids: Ids) -> str:
        found = id_list(ids, self.vocab_size, f"the tokenizer {self.name!r}")
        shown = [i for i in found if i not in self._without_text]
        text = self._core.decode(
            shown, skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return str(text)

    def token_id(self, token: str) -> int | None:
        try:
            found = self._core.convert_tokens_to_ids(token)
            # An unknown token comes back as the id of the unknown token.
            same = found is not None and self._core.convert_ids_to_tokens(found) == token
        except (KeyError, TypeError, ValueError):
            return None
        return int(found) if same else None

    def files(self) -> dict[str, bytes]:
        """As `Tokenizer.files`; empty for a class that is not part of `transformers`."""
        if not self._spec.cls.__module__.startswith("transformers."):
            return {}
        stored = Stored(
            kind="transformers",
            name=self.name,
            parse_special=self._spec.parse_special,
            class_name=class_name(self._spec.cls),
        )
        return {**dict(self._spec.saved), **stored.to_files()}

    def spec(self) -> SlowSpec:
        return self._spec


def tokenizer_from_slow(tokenizer: Any, *, name: str, parse_special: bool) -> SlowTokenizer:
    """A tokenizer equal to a `transformers` object without a fast backend, which stays as it is.

    Raises:
        TokenizerError: it cannot be saved and read again, or encodes at random.
    """
    if (getattr(tokenizer, "sp_model_kwargs", None) or {}).get("enable_sampling"):
        raise TokenizerError(
            f"the tokenizer {name!r} encodes at random (sp_model_kwargs has enable_sampling): the "
            "same text gives other ids each time, which cannot be cached. Load it without"
        )
    with tempfile.TemporaryDirectory(prefix="easydata-tokenizer-") as folder:
        try:
            tokenizer.save_pretrained(folder)
        except Exception as error:  # a class's own code may raise anything
            raise TokenizerError(
                f"the tokenizer {name!r} cannot be saved ({type(error).__name__}: {error}), so "
                "neither its identity nor a copy can be made. Wrap a function in CallableTokenizer"
            ) from error
        names = sorted(
            path.relative_to(folder).as_posix()
            for path in Path(folder).rglob("*")
            if path.is_file()
        )
        saved = tuple((n, _canonical(n, Path(folder, n).read_bytes())) for n in names)
    identity = {
        "class": class_name(type(tokenizer)),
        "files": {
            name: fingerprint_bytes(_without_template(name, data))
            for name, data in saved
            if not name.endswith(".jinja")
        },
        "parse_special": parse_special,
    }
    return SlowSpec(
        name=name,
        cls=type(tokenizer),
        saved=saved,
        parse_special=parse_special,
        fingerprint=fingerprint_json(identity),
    ).load()


def class_name(cls: type[Any]) -> str:
    """Where the class is defined, for messages and for `Stored.class_name`."""
    return f"{cls.__module__}.{cls.__qualname__}"


def _without_template(name: str, data: bytes) -> bytes:
    # A chat template changes the text of conversations, and no text's ids.
    if name != _CONFIG:
        return data
    fields = json.loads(data)
    fields.pop("chat_template", None)  # where versions before 5 of transformers save it
    return json.dumps(fields, sort_keys=True).encode("ascii")


def _canonical(name: str, data: bytes) -> bytes:
    if name != _CONFIG:
        return data
    # What was read again has nulls where nothing was written before.
    fields = {
        key: value
        for key, value in json.loads(data).items()
        if key not in _PASSING_KEYS and value is not None
    }
    return json.dumps(fields, sort_keys=True, indent=1).encode("ascii")
