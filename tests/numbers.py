"""
Token ids in place of words, for tests that look at tokens alone.
"""

from collections.abc import Sequence
from types import MappingProxyType

from app.protocol.question import Question


class Numbers:
    """A tokenizer of texts that are token ids, written out: an answer's text is its tokens."""

    stops: tuple[str, ...] = ()
    strip_start = False
    most_token_bytes = 8
    controls = MappingProxyType[int, str]({})

    def __init__(self, vocabulary: int = 2**31) -> None:
        self.vocabulary = vocabulary

    def grammar(self, question: Question) -> None:
        """Hold answers to nothing."""

    def encode(self, question: Question) -> list[int]:
        """Give the tokens of the prompt."""
        return [int(word) for word in question.messages[-1].text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of *ids*."""
        return "".join(f"{token} " for token in ids)

    def spell(self, token: int) -> bytes:
        """Give the bytes of *token*."""
        return f"{token} ".encode()
