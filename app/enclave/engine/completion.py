"""
A completion: what a model makes, turned from tokens into the pieces of an answer as they come.

Gives whole characters only, and nothing of a stop string, however tokens cut either.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from app.protocol.piece import Piece, TokenLogprob

_INCOMPLETE: Final = "\ufffd"  # what decoders give for the first bytes of a character
_MOST_PENDING: Final = 8  # tokens; a character has at most 4 bytes, so these are none


@dataclass(slots=True)
class _Told:
    """A token's log-probability, and where the text begins and ends that came with the token."""

    logprob: TokenLogprob
    begin: int = 0
    end: int = 0


class Completion:
    """
    The pieces of one answer, growing.

    Args:
        decode: Gives the text of token ids; called with few at a time.

        stops: Strings that end the answer and are no part of it.

        strip_start: Leave out white space before the first word.

        controls: Control tokens and their spellings.

        before: The last tokens of a text that it continues.

        index: Which of the question's answers this is.

        opened: A control token that the prompt ends with, and that the answer goes on from: given
            first, as if it had been made.

    Attributes:
        tokens: How many were pushed.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        stops: Sequence[str],
        strip_start: bool,
        controls: Mapping[int, str] | None = None,
        before: Sequence[int] = (),
        index: int = 0,
        opened: str = "",
    ) -> None:
        self._decode = decode
        self._stops = stops
        self._strip = strip_start
        self._controls = controls or {}
        self._index = index
        self._opened = [Piece(opened, index, control=True)] if opened else []
        self.tokens = 0
        self._texts = list(before)  # the tokens of text
        # Tokens before `_known` only give the decoder context, since many decoders drop a
        # space at the start; the text of those before `_read` is out.
        self._known = 0
        self._read = len(before)
        self._held = ""
        self._made = 0  # characters decoded
        self._pending: list[_Told] = []  # of tokens that have no text yet
        self._told: deque[_Told] = deque()  # of those whose text is held
        self._stopped = False

    def has_stopped(self) -> bool:
        """Tell whether a stop string has come."""
        return self._stopped

    def push(self, token: int, logprob: TokenLogprob | None = None) -> list[Piece]:
        """Add *token*, with what is told of it, and give what is now certain, often nothing."""
        opened, self._opened = self._opened, []
        return opened + self._push(token, logprob)

    def _push(self, token: int, logprob: TokenLogprob | None) -> list[Piece]:
        self.tokens += 1
        if (control := self._controls.get(token)) is not None:
            return self._push_control(control, logprob)
        self._texts.append(token)
        if logprob:
            self._pending.append(_Told(logprob))
        text = self._fresh_text()
        pending = len(self._texts) - self._read
        if text == "" or (text.endswith(_INCOMPLETE) and pending < _MOST_PENDING):
            return []
        self._known, self._read = self._read, len(self._texts)
        return list(self._release(text))

    def end(self, *, cut: bool = False) -> list[Piece]:
        """
        Give what was held back.

        Args:
            cut: The model would have gone on, so that what looks like an incomplete character is
                one, and stays out. Where it has ended by itself, that is what it wrote.
        """
        if self._stopped:
            return []
        text = self._fresh_text()
        pieces = [*self._release(text.rstrip(_INCOMPLETE) if cut else text)]
        if not self._stopped:
            rest, self._held = self._held, ""
            pieces += self._pieces(rest)
        return pieces

    def _push_control(self, spelling: str, logprob: TokenLogprob | None) -> list[Piece]:
        """Text before a control token is whole: neither a character nor a stop string spans one."""
        pieces = self.end()
        broken = self._fresh_text().endswith(_INCOMPLETE)
        self._known = len(self._texts) if broken else self._read
        self._read = len(self._texts)
        self._stopped = self._stopped or spelling in self._stops
        if not self._stopped:
            pieces.append(Piece(spelling, self._index, control=True))
        if logprob and not self._stopped:
            pieces.append(Piece("", self._index, logprobs=(logprob,)))
        return pieces

    def _fresh_text(self) -> str:
        before = self._decode(self._texts[self._known : self._read])
        return self._decode(self._texts[self._known :])[len(before) :]

    def _release(self, text: str) -> Iterator[Piece]:
        """Give all of the held text and *text* that can be no part of a stop string."""
        for told in self._pending:
            told.begin, told.end = self._made, self._made + len(text)
        self._told.extend(self._pending)
        self._pending.clear()
        self._made += len(text)
        text = self._held + text
        at = min((text.find(stop) for stop in self._stops if stop in text), default=-1)
        if at >= 0:
            self._stopped = True
            self._held = text[at:]
        else:
            keep = max((_overlap(text, stop) for stop in self._stops), default=0)
            self._held = text[len(text) - keep :]
        yield from self._pieces(text[: len(text) - len(self._held)])

    def _pieces(self, text: str) -> Iterator[Piece]:
        """Give *text*, and what is told of its tokens; of those that are held in part, too."""
        if text := self._trim(text):
            yield Piece(text, self._index)
        out = self._made - len(self._held)
        come: list[TokenLogprob] = []
        while self._told and (self._told[0].begin < out or self._told[0].end <= out):
            come.append(self._told.popleft().logprob)
        if come:
            yield Piece("", self._index, logprobs=tuple(come))

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
