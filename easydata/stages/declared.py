"""What a tokenizer's companions declare: its special tokens by name, and its chat template."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from easydata.errors import TokenizerError

__all__ = ["COMPANIONS", "TEMPLATE_FILE", "Declared", "declared_beside", "declared_by"]

TEMPLATE_FILE = "chat_template.jinja"
_JSON_FILES = ("special_tokens_map.json", "tokenizer_config.json")
COMPANIONS = (*_JSON_FILES, TEMPLATE_FILE)
"""The files that are read beside a tokenizer.json."""


@dataclass(frozen=True)
class Declared:
    """Special tokens and a chat template.

    Attributes:
        names: "eos_token" and its like to the token.
        special: every special token, those of `names` too.
        template: the text of the chat template called "default", or None.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    special: frozenset[str] = frozenset()
    template: str | None = None

    @property
    def eos(self) -> str | None:
        return self.names.get("eos_token")

    @property
    def bos(self) -> str | None:
        return self.names.get("bos_token")

    @property
    def pad(self) -> str | None:
        return self.names.get("pad_token")


def declared_beside(folder: Path) -> Declared:
    """What the `COMPANIONS` in `folder` say.

    tokenizer_config.json goes before special_tokens_map.json, and chat_template.jinja before
    a template in it.

    Raises:
        TokenizerError: one of them is there and is not what it should be.
    """
    merged: dict[str, Any] = {}
    for name in _JSON_FILES:
        text = _read(folder / name)
        if text is None:
            continue
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise _unreadable(folder / name, error) from error
        if not isinstance(fields, dict):
            raise TokenizerError(
                f"{folder / name} holds a {type(fields).__name__}, not a JSON object"
            )
        merged |= {key: value for key, value in fields.items() if value is not None}
    names = {key: _text(value) for key, value in merged.items() if key.endswith("_token")}
    lists = (merged.get(key) for key in ("additional_special_tokens", "extra_special_tokens"))
    more = [_text(item) for items in lists if isinstance(items, list) for item in items]
    template = _read(folder / TEMPLATE_FILE)
    if template is None:
        template = _default(merged.get("chat_template"), str(folder / "tokenizer_config.json"))
    return Declared(
        {key: name for key, name in names.items() if name},
        frozenset(name for name in [*names.values(), *more] if name),
        template,
    )


def declared_by(tokenizer: Any) -> Declared:
    """What a `transformers` tokenizer object says.

    Raises:
        TokenizerError: its chat template is no text.
    """
    names = {key: _text(value) for key, value in tokenizer.special_tokens_map.items()}
    return Declared(
        {key: name for key, name in names.items() if name},
        frozenset(str(token) for token in tokenizer.all_special_tokens),
        _default(getattr(tokenizer, "chat_template", None), type(tokenizer).__name__),
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> TokenizerError:
    return TokenizerError(
        f"cannot read {path}, which should describe the tokenizer beside it: {error}. "
        "Repair it, or move the tokenizer's file away from it"
    )


def _default(templates: Any, where: str) -> str | None:
    """The default one of chat templates: a text, {name: text}, or [{"name":, "template":}]."""
    if isinstance(templates, list) and all(isinstance(item, dict) for item in templates):
        templates = {item.get("name"): item.get("template") for item in templates}
    if isinstance(templates, dict):
        templates = templates.get("default")
    if templates is None or isinstance(templates, str):
        return templates
    raise TokenizerError(
        f"the chat template of {where} is a {type(templates).__name__}, not a text, nor a list of "
        'such as {"name": "default", "template": "..."}. Correct it, or take it out'
    )


def _text(token: Any) -> str | None:
    # Older files hold {"content": "</s>", "lstrip": false, ...} in place of "</s>".
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) and found else None
