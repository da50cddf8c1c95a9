"""
Showing an answer: as lines of Markdown in a margin at a terminal, as it is elsewhere.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from app.chatbot.console import Terminal, clean
from app.chatbot.terminal.margin import Margin
from app.chatbot.terminal.markdown import Markdown

_COLUMNS: Final = 80  # where a terminal does not say how wide it is
_DUMB: Final = frozenset(("", "dumb", "unknown"))  # terminals without emphasis
# Xterm's control sequences, DECAWM: what a terminal finds wider than we do is cut off at its edge
# rather than carried over to the start of the next line.
_KEEP_IN_LINE: Final = "\x1b[?7l"
_AS_BEFORE: Final = "\x1b[?7h"


@contextmanager
def showing_answer(terminal: Terminal) -> Iterator[Callable[[str], None]]:
    """
    Give what shows each piece of an answer; at a terminal with a margin, unless it is to be raw.

    What comes next begins on a line of its own; at a terminal, however the block ends. One that
    has no emphasis shows Markdown as it is written.
    """
    ends = _LineEnds()
    if terminal.raw or not terminal.answers.isatty():
        yield lambda piece: terminal.piece(ends.feed(piece))
        terminal.piece(ends.held)
        terminal.piece("\n")
        return
    margin = Margin(_columns(terminal.answers))
    shown = margin if os.environ.get("TERM", "") in _DUMB else Markdown(margin)

    def show(text: str) -> None:
        if text:
            terminal.answers.write(f"{_KEEP_IN_LINE}{text}{_AS_BEFORE}")
            terminal.answers.flush()

    try:
        yield lambda piece: show(shown.feed(clean(ends.feed(piece))))
    finally:
        show(shown.feed(clean(ends.held)) + shown.end())


class _LineEnds:
    """
    Pieces of an answer, none of which ends within the two characters that may end a line.

    Attributes:
        held: The first of them, until it is known what follows.
    """

    def __init__(self) -> None:
        self.held = ""

    def feed(self, piece: str) -> str:
        """Give what stands, with what was held before it."""
        text = self.held + piece
        self.held = "\r" if text.endswith("\r") else ""
        return text.removesuffix("\r")


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
