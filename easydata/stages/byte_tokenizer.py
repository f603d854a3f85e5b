"""The built-in tokenizer "bytes": ids are UTF-8 bytes. It needs no file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from easydata.fingerprint import fingerprint_strings
from easydata.stages._checks import id_list, utf8
from easydata.stages.base import Encoded, Ids, TokenizerSpec
from easydata.stages.stored import Stored

__all__ = ["ByteSpec", "ByteTokenizer"]

EOS_ID = 256
BOS_ID = 257


@dataclass(frozen=True)
class ByteSpec(TokenizerSpec):
    """The spec of `ByteTokenizer`: there is only one."""

    def load(self) -> ByteTokenizer:
        return ByteTokenizer()


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of the text in UTF-8; 256 is EOS, 257 is BOS.

    >>> ids, lengths = ByteTokenizer().encode(["hi", "é"])
    >>> ids.tolist(), lengths.tolist()
    ([104, 105, 195, 169], [2, 2])
    """

    name = "bytes"
    vocab_size = 258
    fingerprint = fingerprint_strings(["easydata bytes tokenizer", "1"])
    declared_eos = EOS_ID
    declared_bos = BOS_ID
    declared_pad = None
    chat_template = None
    notes: tuple[str, ...] = ()
    special_tokens: tuple[str, ...] = ()

    def encode(self, texts: Sequence[str]) -> Encoded:
        parts = utf8(texts)
        lengths = np.fromiter(map(len, parts), dtype=np.int64, count=len(parts))
        return np.frombuffer(b"".join(parts), dtype=np.uint8).astype(np.uint32), lengths

    def decode(self, ids: Ids) -> str:
        """As `Tokenizer.decode`. A byte that is not UTF-8 becomes U+FFFD."""
        found = id_list(ids, self.vocab_size, "the tokenizer 'bytes'")
        return bytes(i for i in found if i < EOS_ID).decode("utf-8", errors="replace")

    def token_id(self, token: str) -> int | None:
        """The id of a token of one byte, which is one ASCII character."""
        data = token.encode("utf-8", errors="replace")
        return data[0] if len(data) == 1 else None

    def files(self) -> dict[str, bytes]:
        return Stored(kind="bytes", name=self.name).to_files()

    def spec(self) -> ByteSpec:
        return ByteSpec()
