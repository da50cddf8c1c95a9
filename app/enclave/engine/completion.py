"""
A completion: what a model makes, turned from tokens into the text of an answer as they come.

Gives whole characters only, and nothing of a stop string, however tokens cut either.
"""

from collections.abc import Callable, Sequence
from typing import Final

_INCOMPLETE: Final = "\ufffd"  # what decoders give for the first bytes of a character
_MOST_PENDING: Final = 8  # tokens; a character has at most 4 bytes, so these are none


class Completion:
    """
    The text of one answer, growing.

    Args:
        decode: Gives the text of token ids; called with few at a time.

        stops: Strings that end the answer and are no part of it.

        strip_start: Leave out white space before the first word.
    """

    def __init__(
        self, decode: Callable[[Sequence[int]], str], *, stops: Sequence[str], strip_start: bool
    ) -> None:
        self._decode = decode
        self._stops = stops
        self._strip = strip_start
        self._tokens: list[int] = []
        # Tokens before `_known` only give the decoder context, since many decoders drop a
        # space at the start; the text of those before `_read` is out.
        self._known = 0
        self._read = 0
        self._held = ""
        self._stopped = False

    @property
    def tokens(self) -> int:
        """How many tokens were pushed."""
        return len(self._tokens)

    def has_stopped(self) -> bool:
        """Tell whether a stop string has come."""
        return self._stopped

    def push(self, token: int) -> str:
        """Add *token* and give the text that is now certain, often none."""
        self._tokens.append(token)
        text = self._fresh_text()
        pending = len(self._tokens) - self._read
        if text == "" or (text.endswith(_INCOMPLETE) and pending < _MOST_PENDING):
            return ""
        self._known, self._read = self._read, len(self._tokens)
        return self._release(text)

    def end(self, *, cut: bool = False) -> str:
        """
        Give the text that was held back.

        Args:
            cut: The model would have gone on, so that what looks like an incomplete character is
                one, and stays out. Where it has ended by itself, that is what it wrote.
        """
        if self._stopped:
            return ""
        text = self._fresh_text()
        text = self._release(text.rstrip(_INCOMPLETE) if cut else text)
        rest, self._held = self._held, ""
        return text + self._trim(rest)

    def _fresh_text(self) -> str:
        before = self._decode(self._tokens[self._known : self._read])
        return self._decode(self._tokens[self._known :])[len(before) :]

    def _release(self, text: str) -> str:
        """Give all of the held text and *text* that can be no part of a stop string."""
        text = self._held + text
        at = min((text.find(stop) for stop in self._stops if stop in text), default=-1)
        if at >= 0:
            self._stopped = True
            self._held = ""
            return self._trim(text[:at])
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return self._trim(text[: len(text) - keep])

    def _trim(self, text: str) -> str:
        """Leave out white space before the first word, where that is wanted."""
        if self._strip:
            text = text.lstrip()
            self._strip = text == ""
        return text


def _overlap(text: str, stop: str) -> int:
    """Give the length of the longest end of *text* that *stop* begins with."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
