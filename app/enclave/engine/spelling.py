"""
Spelling: the bytes of single tokens, which need not be whole characters.
"""

import json
import re
from collections.abc import Iterator
from typing import Final, cast

import tokenizers

from app.enclave.engine.control import SPACES

_BYTE: Final = re.compile(r"<0x([0-9A-F]{2})>")
_PRINTABLE: Final = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))


def _byte_letters() -> dict[str, int]:
    """Give the letters by which GPT-2's vocabulary, and those after it, write bytes."""
    others = [byte for byte in range(256) if byte not in _PRINTABLE]
    return {chr(byte): byte for byte in _PRINTABLE} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


class Speller:
    """Gives the bytes that a token of *tokenizer* adds to an answer that has begun."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        self._tokenizer = tokenizer
        parts = cast("dict[str, object]", json.loads(tokenizer.to_str()))
        kinds = set(_kinds(parts.get("decoder")))
        self._letters = _byte_letters() if "ByteLevel" in kinds else None
        self._has_bytes = "ByteFallback" in kinds
        added = tokenizer.get_added_tokens_decoder()
        self._added = {  # but for spaces, which some vocabularies write otherwise
            number: token.content.encode()
            for number, token in added.items()
            if not SPACES.fullmatch(token.content)
        }

    def __call__(self, token: int) -> bytes:
        """Give the bytes of *token*; none for one that there is not."""
        if token in self._added:
            return self._added[token]
        spelling = self._tokenizer.id_to_token(token) or ""
        if self._letters is not None and all(letter in self._letters for letter in spelling):
            return bytes(self._letters[letter] for letter in spelling)
        if self._has_bytes and (byte := _BYTE.fullmatch(spelling)):
            return bytes.fromhex(byte[1])
        # After itself, since many decoders drop a space at the start.
        once = self._tokenizer.decode([token], skip_special_tokens=False)
        twice = self._tokenizer.decode([token, token], skip_special_tokens=False)
        return twice[len(once) :].encode()


def _kinds(part: object) -> Iterator[str]:
    """Give the types of a decoder and of those that it is made of."""
    if isinstance(part, dict):
        yield str(part.get("type"))
        for inside in part.get("decoders", ()):
            yield from _kinds(inside)
