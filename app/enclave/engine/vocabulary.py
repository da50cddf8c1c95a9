"""
A vocabulary: what the tokens of a model stand for, as grammars have to know it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Final

_END: Final = b"<end>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """
    Every token of a model.

    Attributes:
        tokens: The bytes of each; none for one that text cannot have.

        controls: Tokens that are no text.

        ends: Tokens that end an answer.
    """

    tokens: tuple[bytes, ...]
    controls: frozenset[int]
    ends: frozenset[int]


def make_vocabulary(
    spell: Callable[[int], bytes], *, size: int, controls: Iterable[int], ends: Collection[int]
) -> Vocabulary:
    """
    Give the vocabulary of a model that gives *size* logits.

    Args:
        spell: Gives the bytes of a token.
    """
    tokens = [spell(token) for token in range(size)]
    if not ends:  # one more token, which no model chooses, stands for the end
        return Vocabulary((*tokens, _END), frozenset((*controls, size)), frozenset((size,)))
    return Vocabulary(tuple(tokens), frozenset(controls), frozenset(ends))
