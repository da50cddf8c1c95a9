"""
Prompt lookup: a guess at how an answer goes on, taken from its own prompt and text.

Where the last tokens have stood before, what followed them may follow again: the model is shown
that beside the last token, in one step, and says itself what comes at each place. So a guess
changes no answer, only how many steps it takes. Pure.
"""

from collections.abc import Sequence
from typing import Final

MOST_GUESSED: Final = 15  # tokens in one step, which with the last token are a whole tile of rows
_FIRST_GUESSED: Final = 4
_COMPARED: Final = (3, 2)  # how many last tokens have to have stood before, the surer first
_MOST_MISSES: Final = 5  # that make a rest longer; 30 steps are the longest


class Lookup:
    """
    The text of one answer with its prompt, and how well guesses at it have gone.

    More are guessed while guesses hold, fewer when they do not, and none for a while after whole
    ones have been wrong: a step that shows more tokens costs more. Its length is that of the text.
    """

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self._tokens: list[int] = []
        self._follows: dict[tuple[int, ...], int] = {}  # where what last followed these tokens is
        self._length = _FIRST_GUESSED
        self._misses = 0
        self._rest = 0
        self.extend(tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def extend(self, tokens: Sequence[int]) -> None:
        """Add *tokens* to the text."""
        begin = len(self._tokens)
        self._tokens += tokens
        for count in _COMPARED:
            first = max(begin, count)
            near = self._tokens[first - count :]
            runs = zip(*(near[at:] for at in range(count)), strict=False)
            self._follows.update(zip(runs, range(first, len(self._tokens)), strict=False))

    def guess(self, most: int) -> list[int]:
        """Guess up to *most* next tokens, often none; `note` has to follow any."""
        if self._rest > 0:
            self._rest -= 1
            return []
        for count in _COMPARED:
            at = self._follows.get(tuple(self._tokens[-count:]))
            if at is not None:
                span = self._tokens[at:]
                return [span[n % len(span)] for n in range(min(self._length, most))]
        return []

    def note(self, guessed: int, right: int) -> None:
        """Note that of *guessed* tokens the first *right* were those that came."""
        if right == guessed:
            self._length = min(max(self._length, 2 * guessed), MOST_GUESSED)
        elif 2 * right < guessed:
            self._length = max(1, guessed // 2)
        self._misses = 0 if right else min(self._misses + 1, _MOST_MISSES)
        self._rest = 2**self._misses - 2 if self._misses else 0
