"""
A margin: what stands before each line of an answer at a terminal.

Nothing else that is shown there begins so, and no text can leave it: an answer may spell a prompt
or a receipt, but not where those stand. Lines are wrapped here, at words, and not by the terminal.
"""

from typing import Final

from rich.cells import cell_len

MARGIN: Final = "| "
_TAB: Final = "    "
_LEAST_COLUMNS: Final = 20
_PLAIN: Final = "\x1b[0m"
# Chinese and Japanese have no blanks between words: a line may break at any wide character, but
# not before what ends a clause or a bracket, nor behind what begins one.
_ENDS: Final = frozenset("、。，．・：；？！）〕］｝〉》」』】〙〗”’…ー々")  # noqa: RUF001 - these are meant
_BEGINS: Final = frozenset("（〔［｛〈《「『【〘〖“‘")  # noqa: RUF001 - and these


class Margin:
    """
    Wraps the pieces of one answer into lines with a margin, as they come.

    Attributes:
        room: How many columns a line has for its text.
    """

    def __init__(self, columns: int) -> None:
        self._columns = self.room = max(columns, _LEAST_COLUMNS) - len(MARGIN) - 1
        self._first = self._rest = ""
        self._used = 0  # columns of this line
        self._fresh = True  # the line is still without its margin
        self._gap = ""  # blanks between what is shown and the word that is coming
        self._word = ""
        self._last = ""  # character of the word
        self._style = ""  # that the word has by now
        self._width = 0

    def lead(self, first: str, rest: str) -> None:
        """Have *first* stand before the line that comes, and *rest* before those it wraps into."""
        most = self._columns // 2
        self._first, self._rest = first[-most:], rest[-most:]
        self.room = self._columns - max(len(self._first), len(self._rest))

    def feed(self, text: str, style: str = "") -> str:
        """Take a piece; give what can be shown by now, which is all but the word under way."""
        return "".join([self._take(character, style) for character in text])

    def lay(self, text: str, style: str = "") -> str:
        """Take a line that breaks where it has to, its blanks being as good as letters."""
        shown = "".join(
            [self._take_letter(character, style) for character in text.replace("\t", _TAB)]
        )
        return shown + self._end_word() + self._end_line()

    def end(self) -> str:
        """Give what is left, and the end of the line."""
        shown = self._end_word()
        return shown if self._fresh else shown + self._end_line()

    def _take(self, character: str, style: str) -> str:
        if character == "\n":
            return self._end_word() + self._end_line()
        if character in " \t":
            shown = self._end_word()
            self._gap += _TAB if character == "\t" else character
            return shown
        if self._may_break(character):
            return self._end_word() + self._take_letter(character, style)
        return self._take_letter(character, style)

    def _take_letter(self, character: str, style: str) -> str:
        width = cell_len(character)
        shown = self._end_word() if self._width + width > self.room else ""
        if style != self._style:
            self._word += (_PLAIN if self._style else "") + style
            self._style = style
        self._word += character
        self._last = character
        self._width += width
        return shown

    def _may_break(self, character: str) -> bool:
        """Tell whether a line may break between the word under way and *character*."""
        if not self._word or character in _ENDS or self._last in _BEGINS:
            return False
        return cell_len(character) == 2 or cell_len(self._last) == 2

    def _end_word(self) -> str:
        if not self._word:
            return ""
        shown = ""
        used = self._used + len(self._gap) + self._width
        if used > self._columns or (self._fresh and used > self.room):
            shown = "" if self._fresh else self._end_line()
            self._gap = ""
        shown += self._begin_line() + self._gap + self._word + (_PLAIN if self._style else "")
        self._used += len(self._gap) + self._width
        self._gap = self._word = self._style = ""
        self._width = 0
        return shown

    def _begin_line(self) -> str:
        if not self._fresh:
            return ""
        lead, self._first, self._fresh = self._first, self._rest, False
        self._used = len(lead)
        return MARGIN + lead

    def _end_line(self) -> str:
        lead = self._begin_line()[len(MARGIN) :].rstrip(" ") if self._fresh else None
        ended = "\n" if lead is None else f"{MARGIN}{lead}\n"
        self._used, self._gap, self._fresh = 0, "", True
        return ended
