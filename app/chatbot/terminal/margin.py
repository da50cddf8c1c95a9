"""
A margin: what stands before each line of an answer at a terminal.

Nothing else that is shown there begins so, and no text can leave it: an answer may spell a prompt
or a receipt, but not where those stand. Lines are wrapped here, at words, and not by the terminal.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.cells import cell_len

from app.chatbot.console import Terminal, clean

MARGIN: Final = "| "
_TAB: Final = "    "
_COLUMNS: Final = 80  # where a terminal does not say how wide it is
_LEAST_COLUMNS: Final = 20
# Xterm's control sequences, DECAWM: what a terminal finds wider than we do is cut off at its edge
# rather than carried over to the start of the next line.
_KEEP_IN_LINE: Final = "\x1b[?7l"
_AS_BEFORE: Final = "\x1b[?7h"


class Margin:
    """Wraps the pieces of one answer into lines with a margin, as they come."""

    def __init__(self, columns: int) -> None:
        self._room = max(columns, _LEAST_COLUMNS) - len(MARGIN) - 1
        self._used = 0  # columns of this line; 0 where only its margin could stand
        self._fresh = True  # the line is still without its margin
        self._gap = ""  # blanks between what is shown and the word that is coming
        self._word = ""
        self._width = 0

    def feed(self, text: str) -> str:
        """Take a piece; give what can be shown by now, which is all but the word under way."""
        return "".join(map(self._take, text))

    def end(self) -> str:
        """Give what is left, and the end of the line."""
        shown = self._end_word()
        return shown if self._fresh else shown + self._end_line()

    def _take(self, character: str) -> str:
        if character == "\n":
            return self._end_word() + self._end_line()
        if character in " \t":
            shown = self._end_word()
            self._gap += _TAB if character == "\t" else character
            return shown
        width = cell_len(character)
        shown = self._end_word() if self._width + width > self._room else ""
        self._word += character
        self._width += width
        return shown

    def _end_word(self) -> str:
        if not self._word:
            return ""
        shown = ""
        if self._used + len(self._gap) + self._width > self._room:
            shown = "" if self._fresh else self._end_line()
            self._gap = ""
        shown += self._begin_line() + self._gap + self._word
        self._used += len(self._gap) + self._width
        self._gap = self._word = ""
        self._width = 0
        return shown

    def _begin_line(self) -> str:
        begun = MARGIN if self._fresh else ""
        self._fresh = False
        return begun

    def _end_line(self) -> str:
        ended = self._begin_line() + "\n"
        self._used, self._gap, self._fresh = 0, "", True
        return ended


@contextmanager
def showing_answer(terminal: Terminal) -> Iterator[Callable[[str], None]]:
    """
    Give what shows each piece of an answer; at a terminal with a margin, unless it is to be raw.

    What comes next begins on a line of its own; at a terminal, however the block ends.
    """
    if terminal.raw or not terminal.answers.isatty():
        yield terminal.piece
        terminal.piece("\n")
        return
    margin = Margin(_columns(terminal.answers))

    def show(text: str) -> None:
        if text:
            terminal.answers.write(f"{_KEEP_IN_LINE}{text}{_AS_BEFORE}")
            terminal.answers.flush()

    try:
        yield lambda piece: show(margin.feed(clean(piece)))
    finally:
        show(margin.end())


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or _COLUMNS
    except OSError:
        return _COLUMNS
