"""
Own text: a string that knows which of its characters are the template's own, and which content.

Content is what is not known to be the template's: a string of any other kind, or what comes out of
an operation that is not listed here. So what is forgotten is never taken for the template's.
"""

from collections.abc import Iterable
from typing import SupportsIndex

Spans = tuple[tuple[int, int], ...]


class OwnText(str):
    """
    Text of which *spans* are the template's own: begin and end of each, in order.

    Equal to the same characters in any other string.
    """

    __slots__ = ("_spans",)

    _spans: Spans

    @classmethod
    def whole(cls, text: str) -> "OwnText":
        """Give *text* as the template's own, all of it."""
        return cls.of(text, ((0, len(text)),) if text else ())

    @classmethod
    def of(cls, text: str, spans: Spans) -> "OwnText":
        """Give *text*, of which *spans* are the template's own."""
        made = cls(text)
        made._spans = spans
        return made

    def __str__(self) -> str:
        return self

    def __add__(self, other: object) -> "OwnText":
        return join((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> "OwnText":
        return join((other, self)) if isinstance(other, str) else NotImplemented

    def __getitem__(self, key: SupportsIndex | slice) -> str:
        if not isinstance(key, slice) or key.step not in {None, 1}:
            return str.__getitem__(self, key)
        begin, end, _ = key.indices(len(self))
        return self._cut(begin, max(begin, end))

    def strip(self, characters: str | None = None) -> "OwnText":
        """As every string's."""
        return self.rstrip(characters).lstrip(characters)

    def lstrip(self, characters: str | None = None) -> "OwnText":
        """As every string's."""
        return self._cut(len(self) - len(str.lstrip(self, characters)), len(self))

    def rstrip(self, characters: str | None = None) -> "OwnText":
        """As every string's."""
        return self._cut(0, len(str.rstrip(self, characters)))

    def _cut(self, begin: int, end: int) -> "OwnText":
        spans = ((max(a, begin) - begin, min(b, end) - begin) for a, b in own_spans(self))
        return OwnText.of(
            str.__getitem__(self, slice(begin, end)), tuple((a, b) for a, b in spans if a < b)
        )


def own_spans(text: str) -> Spans:
    """Give where *text* is the template's own."""
    spans: Spans = getattr(text, "_spans", ())  # jinja2 makes some without
    return spans


def join(pieces: Iterable[object]) -> OwnText:
    """Give *pieces* as one text."""
    texts = [str(piece) for piece in pieces]
    spans: list[tuple[int, int]] = []
    at = 0
    for text in texts:
        for begin, end in own_spans(text):
            if spans and spans[-1][1] == begin + at:
                spans[-1] = (spans[-1][0], end + at)
            else:
                spans.append((begin + at, end + at))
        at += len(text)
    return OwnText.of("".join(texts), tuple(spans))
