"""From what a user passes as `tokenizer=` to a `Tokenizer`."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from easydata._optional import require
from easydata.errors import TokenizerError, UsageError
from easydata.stages.base import Tokenizer, TokenizerSpec
from easydata.stages.byte_tokenizer import ByteTokenizer
from easydata.stages.declared import Declared, declared_beside, declared_by
from easydata.stages.json_tokenizer import (
    JsonTokenizer,
    tokenizer_from_json,
    tokenizer_from_object,
)
from easydata.stages.slow_tokenizer import SlowTokenizer, class_name, tokenizer_from_slow
from easydata.stages.stored import Stored, read_stored

__all__ = ["load_tokenizer"]

_SHOWN = 80  # characters of a value in a message
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_ACCEPTED = (
    "'bytes', a tokenizer.json file, a folder or a HuggingFace name, a tokenizer object of the "
    "'tokenizers' or 'transformers' library, or a CallableTokenizer"
)


def load_tokenizer(
    tokenizer: Any, *, parse_special: bool | None = None, trust_remote_code: bool = False
) -> Tokenizer:
    """The tokenizer that the argument names, as a copy that nothing else can change.

    Args:
        tokenizer: "bytes"; the path of a JSON file of the `tokenizers` library; a folder, with a
            tokenizer.json or for `transformers`; a HuggingFace name; a tokenizer object of either
            library; a `CallableTokenizer`; a `TokenizerSpec`; or what this function returned.
        parse_special: whether text that spells a special token, such as "</s>", becomes that
            token. None means no, except for a folder that easydata wrote, where it means
            whatever it was when the tokenizer was stored.
        trust_remote_code: let `transformers` run code that comes with a name or a folder. What
            needs none loads without, either way.

    Raises:
        TokenizerError: it does not load, or cannot be cached.
        MissingDependencyError: it needs `transformers`, which is not installed.
        UsageError: `parse_special` does not apply to this tokenizer.
    """
    if isinstance(tokenizer, str) and tokenizer == "bytes":
        return _unparsed(ByteTokenizer(), parse_special=parse_special)
    if isinstance(tokenizer, str | os.PathLike):
        return _from_name(
            os.fspath(tokenizer), parse_special=parse_special, trust_remote_code=trust_remote_code
        )
    if isinstance(tokenizer, TokenizerSpec):
        return _unparsed(tokenizer.load(), parse_special=parse_special)
    found = _from_library_object(tokenizer, parse_special=bool(parse_special))
    if found is not None:
        return found
    if isinstance(tokenizer, Tokenizer):
        return _unparsed(tokenizer, parse_special=parse_special)
    if callable(tokenizer) and not isinstance(tokenizer, type):
        raise TokenizerError(
            f"{_label(tokenizer)} is a function without an identity. Wrap it: "
            "CallableTokenizer(function, vocab_size=..., identity='my-tokenizer 1')"
        )
    raise TokenizerError(f"{_label(tokenizer)} is no tokenizer. Pass {_ACCEPTED}")


def _unparsed(tokenizer: Tokenizer, *, parse_special: bool | None) -> Tokenizer:
    # A tokenizer that is already made has answered the question, or has no special tokens.
    spec = tokenizer.spec()
    if parse_special is not None and parse_special != getattr(spec, "parse_special", False):
        raise UsageError(
            f"parse_special={parse_special} cannot be changed for the tokenizer "
            f"{tokenizer.name!r}. "
            + (
                "Pass it where this tokenizer is first loaded"
                if isinstance(tokenizer, JsonTokenizer | SlowTokenizer)
                else "It has no special tokens that text could spell"
            )
        )
    return tokenizer


def _from_library_object(tokenizer: Any, *, parse_special: bool) -> Tokenizer | None:
    # An object of a library exists only where the library has been imported.
    tokenizers: Any = sys.modules.get("tokenizers")
    if tokenizers is not None:
        if isinstance(tokenizer, tokenizers.implementations.BaseTokenizer):
            tokenizer = tokenizer._tokenizer  # noqa: SLF001 - it has no public name
        if isinstance(tokenizer, tokenizers.Tokenizer):
            name = f"tokenizers.Tokenizer ({type(tokenizer.model).__name__})"
            return tokenizer_from_object(
                tokenizer, name=name, parse_special=parse_special, declared=Declared()
            )
    base: Any = sys.modules.get("transformers.tokenization_utils_base")
    if base is not None and isinstance(tokenizer, base.PreTrainedTokenizerBase):
        return _from_transformers(tokenizer, None, parse_special=parse_special)
    return None


def _from_transformers(tokenizer: Any, name: str | None, *, parse_special: bool) -> Tokenizer:
    name = name or tokenizer.name_or_path or type(tokenizer).__name__
    if not tokenizer.is_fast:
        return tokenizer_from_slow(tokenizer, name=name, parse_special=parse_special)
    return tokenizer_from_object(
        tokenizer.backend_tokenizer,
        name=name,
        parse_special=parse_special,
        declared=declared_by(tokenizer),
    )


def _from_name(name: str, *, parse_special: bool | None, trust_remote_code: bool) -> Tokenizer:
    path = Path(name).expanduser()
    if path.is_dir():
        return _from_folder(path, parse_special=parse_special, trust_remote_code=trust_remote_code)
    if path.is_file():
        return _from_file(path, name, parse_special=bool(parse_special))
    if not _HUB_NAME.fullmatch(name) or name.endswith(".json"):
        raise TokenizerError(
            f"tokenizer {name!r}: there is no such file or folder "
            f"(looked for {path.absolute()}). Pass {_ACCEPTED}"
        )
    transformers: Any = require(
        "transformers",
        extra="transformers",
        purpose=f"the tokenizer {name!r} is no file or folder here; as a HuggingFace name it",
    )
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            name, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # OSError, ValueError, ImportError, and what its backends raise
        raise TokenizerError(
            f"tokenizer {name!r}: there is no such file or folder (looked for "
            f"{path.absolute()}), and transformers cannot load the HuggingFace name: "
            f"{_first_line(error)}. {_remedy(error)}"
        ) from error
    return _from_transformers(found, name, parse_special=bool(parse_special))


def _from_file(path: Path, name: str, *, parse_special: bool) -> Tokenizer:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenizerError(
            f"cannot read the tokenizer {path}: {error}. Pass {_ACCEPTED}"
        ) from error
    return tokenizer_from_json(
        text, name=name, parse_special=parse_special, declared=declared_beside(path.parent)
    )


def _from_folder(folder: Path, *, parse_special: bool | None, trust_remote_code: bool) -> Tokenizer:
    stored = read_stored(folder)
    name = str(folder)
    if stored is not None:
        name = stored.name
        if stored.kind == "bytes":
            return _unparsed(ByteTokenizer(), parse_special=parse_special)
        if parse_special is None:
            parse_special = stored.parse_special
    if (folder / "tokenizer.json").is_file():
        return _from_file(folder / "tokenizer.json", name, parse_special=bool(parse_special))
    transformers: Any = require(
        "transformers",
        extra="transformers",
        purpose=f"the tokenizer folder {folder} has no tokenizer.json; reading it",
    )
    try:
        found = transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=trust_remote_code
        )
    except Exception as error:  # OSError, ValueError, ImportError, and what its backends raise
        raise TokenizerError(
            f"the folder {folder} holds no tokenizer: it has no tokenizer.json, and transformers "
            f"cannot load it: {_first_line(error)}. {_remedy(error)}"
        ) from error
    _check_class(found, stored, folder)
    return _from_transformers(found, name, parse_special=bool(parse_special))


def _check_class(found: Any, stored: Stored | None, folder: Path) -> None:
    if stored is not None and stored.class_name != class_name(type(found)):
        raise TokenizerError(
            f"{folder} was stored by {stored.class_name}, but this transformers reads it as "
            f"{class_name(type(found))}. Install the version of transformers that wrote it"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(".")


def _remedy(error: Exception) -> str:
    if "trust_remote_code=True" in str(error):
        return "If you trust this code, pass trust_remote_code=True"
    return f"Pass {_ACCEPTED}"


def _label(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
