"""
A vocabulary: the bytes that each token of a tokenizer stands for in a text.
"""

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final, cast

import tokenizers

_SPACE: Final = "▁"  # as SentencePiece writes it
_BYTE_TOKEN: Final = len("<0x00>")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """
    What grammars have to know of a model's tokens.

    Attributes:
        tokens: The bytes of each; none for one that text cannot have.

        controls: Tokens that are no text.

        ends: Tokens that end an answer.
    """

    tokens: tuple[bytes, ...]
    controls: frozenset[int]
    ends: frozenset[int]


def read_vocabulary(
    tokenizer: tokenizers.Tokenizer, *, size: int, controls: Mapping[int, str], ends: Collection[int]
) -> Vocabulary | None:
    """
    Give the vocabulary of *tokenizer*, for a model that gives *size* logits.

    None where it is not known what its tokens stand for: it must be one of bytes, or one that falls
    back to bytes, as all of today's are.
    """
    decoder = json.dumps(json.loads(tokenizer.to_str())["decoder"])
    spell: Callable[[str], bytes]
    if '"ByteLevel"' in decoder:
        spell = _spell_bytes
    elif '"ByteFallback"' in decoder:
        spell = _spell_pieces
    else:
        return None
    tokens = [b""] * size
    for token, number in tokenizer.get_vocab(with_added_tokens=True).items():
        tokens[number] = controls[number].encode() if number in controls else spell(token)
    return Vocabulary(tuple(tokens), frozenset(controls), frozenset(ends))


def _name_bytes() -> dict[str, int]:
    """Give the characters by which byte-level tokenizers write bytes: those that print are as is."""
    shown = {byte for byte in range(256) if chr(byte).isprintable() and not chr(byte).isspace()}
    others = [byte for byte in range(256) if byte not in shown]
    names = {chr(byte): byte for byte in shown}
    return names | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTES: Final = _name_bytes()


def _spell_bytes(token: str) -> bytes:
    known = [_BYTES.get(character) for character in token]
    return token.encode() if None in known else bytes(cast("list[int]", known))


def _spell_pieces(token: str) -> bytes:
    if len(token) == _BYTE_TOKEN and token.startswith("<0x"):
        return bytes([int(token[3:5], 16)])
    return token.replace(_SPACE, " ").encode()
