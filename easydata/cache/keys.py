"""compute_key: a name for what a configuration says.

The key depends on the configuration only: not on the order of a dict, the process, the hash
seed or the version of Python. Two configurations that differ in a value or in a type have
different keys, and what has no canonical form is refused, never turned into text. The bytes
that are hashed are described in `easydata.fingerprint.canonical`.

>>> compute_key({"tokenizer": "llama", "max_length": 2048}, prefix="tokenized")
'tokenized_8f40fdd9d3848686d709ce702ade9d64'
"""

from __future__ import annotations

from easydata.errors import UsageError
from easydata.fingerprint import canonical_hash, fingerprint_config

__all__ = ["compute_key"]

_CONTENT = b"easydata content 1\n"


def compute_key(
    config: object,
    prefix: str = "",
    include_content_hash: bool = False,
    content: object = None,
) -> str:
    """`prefix_confighash` or `prefix_confighash_contenthash`; no `prefix_` if that is empty.

    Both hashes are 32 lower-case hexadecimal digits (128 bits).

    >>> compute_key({"a": 1, "b": 2}) == compute_key({"b": 2, "a": 1})
    True
    >>> compute_key({"a": 1}) == compute_key({"a": 1.0})
    False

    Args:
        config: usually a dict. None, bool, int, float, str, bytes, list, tuple, dict, set,
            frozenset, paths, dates and times, enum members, dataclass instances (their fields,
            nothing else they carry), NumPy scalars and arrays, nested at most 100 deep. A dict
            key is None, bool, int, float, str, bytes or a tuple of these. Types count: `1`,
            `1.0`, `True` and `"1"` are four values, and so are `0.0` and `-0.0` two. A class
            is known by its name.
        prefix: put in front as it is.
        include_content_hash: append the identity of `content`.
        content: usually a str or bytes, of which the empty ones count too; or anything that
            `config` may be, except None.

    Raises:
        UsageError: a value in `config` or `content` has no canonical form (the message says
            where it is), `content` is missing, or is given without `include_content_hash`.
    """
    if not isinstance(prefix, str):
        raise UsageError(f"prefix is {prefix!r}; it must be a string.")
    if include_content_hash and content is None:
        raise UsageError("include_content_hash=True needs a content; it is None. Pass content=...")
    if content is not None and not include_content_hash:
        raise UsageError(
            "content is given, but would be ignored. Pass include_content_hash=True, "
            "or leave content out."
        )
    parts = [prefix] if prefix else []
    parts.append(fingerprint_config(config))
    if include_content_hash:
        parts.append(canonical_hash(_CONTENT, "content", content))
    return "_".join(parts)
