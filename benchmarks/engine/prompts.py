"""
Prompts: questions whose prompt has exactly as many tokens as wanted, another for each asker.
"""

import random
from typing import Final

import tokenizers

from app.enclave.engine.prompt import plain_transcript
from app.protocol.question import Message
from benchmarks.engine.contender import Prompt
from benchmarks.engine.shapes import Shape, source_of

_SEED: Final = 4
_SYLLABLES: Final = [a + b for a in "bcdfghjklm" for b in "aeiou"]


def make_prompts(shape: Shape, count: int, tokens: int) -> list[Prompt]:
    """Give *count* prompts of exactly *tokens* tokens, always the same ones."""
    tokenizer = tokenizers.Tokenizer.from_file(str(source_of(shape) / "tokenizer.json"))
    chance = random.Random(_SEED)  # noqa: S311 - nothing is secret here
    return [_make_prompt(tokenizer, chance, tokens) for _ in range(count)]


def _make_prompt(tokenizer: tokenizers.Tokenizer, chance: random.Random, tokens: int) -> Prompt:
    """Add words of one token until the prompt, as the engine writes it, has *tokens*."""
    words: list[str] = []
    while True:
        words.append("".join(chance.choices(_SYLLABLES, k=2)))
        text = " ".join(words)
        encoded = tokenizer.encode(plain_transcript([Message("user", text)])).ids
        if len(encoded) == tokens:
            return Prompt(text, encoded)
        if len(encoded) > tokens:
            raise ValueError(f"no prompt of exactly {tokens} tokens begins like this one")
