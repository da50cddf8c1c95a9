"""
A tokenizer of made-up words, as large as the model's vocabulary.

Byte-level byte-pair encoding, as bloom and Qwen have it, of syllables: every token is a text of
its own, and decoding costs what it costs with theirs.
"""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.engine.shapes import SPECIAL_TOKENS

_SPACE: Final = "\u0120"  # how byte-level tokens write a space
_CONSONANTS: Final = "bcdfghjklmnpqrstvwxyz"
_VOWELS: Final = "aeiou"
_SYLLABLES: Final = [a + b for a in _CONSONANTS for b in _VOWELS]


def write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Write tokenizer.json and tokenizer_config.json for *vocabulary* tokens."""
    tokens = [*SPECIAL_TOKENS, *_byte_characters()]
    merges: list[tuple[str, str]] = []
    for left, right in itertools.islice(_merges(), vocabulary - len(tokens)):
        merges.append((left, right))
        tokens.append(left + right)
    special = [
        {
            "id": number, "content": text, "single_word": False, "lstrip": False,
            "rstrip": False, "normalized": False, "special": True,
        }
        for number, text in enumerate(SPECIAL_TOKENS)
    ]  # fmt: skip
    byte_level = {
        "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
    }  # fmt: skip
    model = {
        "type": "BPE",
        "vocab": {token: number for number, token in enumerate(tokens)},
        "merges": merges,
    }
    tokenizer = {
        "version": "1.0",
        "added_tokens": special,
        "pre_tokenizer": byte_level,
        "decoder": byte_level,
        "model": model,
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
    names = dict(
        zip(("unk_token", "bos_token", "eos_token", "pad_token"), SPECIAL_TOKENS, strict=True)
    )
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")


def _byte_characters() -> list[str]:
    """Give the 256 characters that byte-level tokens write bytes with."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [number for number in range(256) if number not in printable]
    return [chr(number) for number in printable] + [chr(256 + n) for n in range(len(others))]


def _merges() -> Iterator[tuple[str, str]]:
    """Give syllables, words of two, those after a space, and words of three."""
    pairs = [(left, right) for left in _SYLLABLES for right in _SYLLABLES]
    words = [left + right for left, right in pairs]
    return itertools.chain(
        ((syllable[0], syllable[1]) for syllable in _SYLLABLES),
        pairs,
        ((_SPACE, word) for word in words),
        itertools.product(words, _SYLLABLES),
    )
