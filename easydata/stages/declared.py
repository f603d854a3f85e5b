"""What a tokenizer's companions declare: its EOS, its BOS, and which tokens are special."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from easydata.errors import TokenizerError

__all__ = ["Declared", "declared_beside", "declared_by"]


@dataclass(frozen=True)
class Declared:
    """Tokens by name. `special` holds every special one, `eos` and `bos` too."""

    eos: str | None = None
    bos: str | None = None
    special: frozenset[str] = frozenset()


def declared_beside(folder: Path) -> Declared:
    """What tokenizer_config.json and special_tokens_map.json in `folder` say; the first wins.

    Raises:
        TokenizerError: one of them is there and is not a JSON object.
    """
    merged: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / name
        try:
            fields = json.loads(path.read_bytes())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            raise TokenizerError(
                f"cannot read {path}, which should name the special tokens of the tokenizer "
                f"beside it: {error}. Repair it, or move the tokenizer's file away from it"
            ) from error
        if not isinstance(fields, dict):
            raise TokenizerError(f"{path} holds a {type(fields).__name__}, not a JSON object")
        merged |= {key: value for key, value in fields.items() if value is not None}
    names = {key: _text(value) for key, value in merged.items() if key.endswith("_token")}
    lists = (merged.get(key) for key in ("additional_special_tokens", "extra_special_tokens"))
    more = [_text(item) for items in lists if isinstance(items, list) for item in items]
    return Declared(
        eos=names.get("eos_token"),
        bos=names.get("bos_token"),
        special=frozenset(name for name in [*names.values(), *more] if name),
    )


def declared_by(tokenizer: Any) -> Declared:
    """What a `transformers` tokenizer object says."""
    return Declared(
        eos=_text(tokenizer.eos_token),
        bos=_text(tokenizer.bos_token),
        special=frozenset(str(token) for token in tokenizer.all_special_tokens),
    )


def _text(token: Any) -> str | None:
    # Older files hold {"content": "</s>", "lstrip": false, ...} in place of "</s>".
    found = token.get("content") if isinstance(token, dict) else token
    return found if isinstance(found, str) and found else None
