"""
Inline Markdown: emphasis, code, links and images of one line, as parts; what is none stays text.

A small part of CommonMark, and the same as app/chatbot/web/page/inline.js reads: docs/page.md says
which. What a line costs grows with its length alone, whatever stands in it.
"""

import re
import unicodedata
from dataclasses import dataclass, field
from typing import Final, Literal

Kind = Literal["text", "code", "strong", "em", "del", "link", "image"]

_MOST_OPEN: Final = 16  # marks that wait for their end; another one is text
_TOKEN: Final = re.compile(r"\\[!-/:-@\[-`{-~]|`+|\*+|_+|~+|!?\[|\]|https?://[^\s<>*`\[\]()]+")
_TARGET: Final = re.compile(r"\(([^\s()]*(?:\([^\s()]*\)[^\s()]*)*)\)")
# Chinese, Japanese and Korean, which have few blanks.
WIDE: Final = "\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
_PLACE: Final = re.compile(rf".*(?:[ \t]|[{WIDE}](?=.))", re.DOTALL)  # up to where text is settled
_LONGEST: Final = 3  # marks in a row


@dataclass(frozen=True, slots=True)
class Part:
    """
    A part of a line.

    Attributes:
        text: Of text and code.

        target: Of links and images.
    """

    kind: Kind
    text: str = ""
    parts: tuple["Part", ...] = ()
    target: str = ""


@dataclass(slots=True)
class _Mark:
    """A mark that may begin something, and has not found its end."""

    text: str


@dataclass(slots=True)
class Inline:
    """
    Reads one line, or as much of it as there is.

    Args:
        over: Nothing follows in this line, so that what has no end by now has none.

    Attributes:
        settled: How many characters, up to a blank or a wide one, mean the same whatever follows.
    """

    text: str = field(repr=False)
    over: bool = True
    settled: int = 0
    _items: list[Part | _Mark] = field(default_factory=list)
    _open: list[int] = field(default_factory=list)  # places of marks in `_items`
    _endless: set[str] = field(default_factory=set)  # runs of backticks that nothing ends

    def read(self) -> tuple[Part, ...]:
        """Give the parts of the line."""
        at = 0
        while token := _TOKEN.search(self.text, at):
            self._say(self.text[at : token.start()], at)
            at = self._take(token[0], token.start(), token.end())
        self._say(self.text[at:], at)
        return _join(self._items)

    def _say(self, text: str, at: int) -> None:
        """Take *text*, in which nothing begins or ends."""
        if not text:
            return
        self._items.append(Part("text", text))
        place = _PLACE.match(text)
        if place and not self._open and (self.over or not self._endless):
            self.settled = at + place.end()

    def _take(self, token: str, start: int, end: int) -> int:
        """Take *token*; give where to go on."""
        match token[0]:
            case "\\":
                self._items.append(Part("text", token[1]))
            case "`":
                return self._take_code(token, end)
            case "*" | "_" | "~":
                self._take_mark(token, start, end)
            case "]":
                return self._end_link(end)
            case "h":
                self._items.append(Part("text", token))
            case _:
                self._begin(token)
        return end

    def _take_code(self, run: str, end: int) -> int:
        for other in re.compile("`+").finditer(self.text, end) if run not in self._endless else ():
            if other[0] == run:
                code = self.text[end : other.start()]
                padded = code[:1] == code[-1:] == " " and code.strip()
                self._items.append(Part("code", code[1:-1] if padded else code))
                return other.end()
        self._endless.add(run)
        self._items.append(Part("text", run))
        return end

    def _take_mark(self, run: str, start: int, end: int) -> None:
        """Take a run of marks, which ends what it can, and may begin what is left of it."""
        begins, ends = _sides(run[0], self.text[start - 1 : start], self.text[end : end + 1])
        if len(run) > _LONGEST or (run[0] == "~" and len(run) != 2):
            begins = ends = False
        while ends and run and (place := self._find(run[0])) is not None:
            run = run[self._close(place, len(run)) :]
        if run and begins:
            self._begin(run)
        elif run:
            self._items.append(Part("text", run))

    def _find(self, *characters: str) -> int | None:
        """Give the place of the mark that waits, and was last to begin."""
        for place in reversed(self._open):
            if self._items[place].text[0] in characters:
                return place
        return None

    def _close(self, place: int, length: int) -> int:
        """Make what stands since the mark at *place* a part; give how many of *length* it took."""
        mark = self._items[place].text
        taken = 2 if min(length, len(mark)) >= 2 else 1
        kind: Kind = "del" if mark[0] == "~" else "strong" if taken == 2 else "em"
        part = Part(kind, parts=_join(self._items[place + 1 :]))
        left = mark[taken:]
        self._leave(place)
        if left:
            self._begin(left)
        self._items.append(part)
        return taken

    def _begin(self, text: str) -> None:
        if len(self._open) >= _MOST_OPEN:
            self._items.append(Part("text", text))
            return
        self._open.append(len(self._items))
        self._items.append(_Mark(text))

    def _leave(self, place: int) -> None:
        """Forget what stands from *place* on."""
        del self._items[place:]
        while self._open and self._open[-1] >= place:
            self._open.pop()

    def _end_link(self, end: int) -> int:
        """Take a closing bracket, and the target behind it; give where to go on."""
        place = self._find("[", "!")
        target = _TARGET.match(self.text, end)
        if place is None or target is None:
            if place is not None:
                self._open.remove(place)
            self._items.append(Part("text", "]"))
            return end
        kind: Kind = "image" if self._items[place].text[0] == "!" else "link"
        part = Part(kind, parts=_join(self._items[place + 1 :]), target=target[1])
        self._leave(place)
        self._items.append(part)
        return target.end()


def _sides(mark: str, before: str, after: str) -> tuple[bool, bool]:
    """Tell whether a run of *mark* between two characters may begin something, and may end it."""
    begins, ends = bool(after.strip()), bool(before.strip())
    if mark == "_":  # within a word it is a letter
        return begins and not _is_letter(before), ends and not _is_letter(after)
    return begins, ends


def _is_letter(character: str) -> bool:
    return bool(character) and unicodedata.category(character)[0] in "LN"


def _join(items: list[Part | _Mark]) -> tuple[Part, ...]:
    """Give *items* with texts that follow each other, and marks without an end, as one text."""
    joined: list[Part] = []
    texts: list[str] = []
    for item in items:
        if isinstance(item, _Mark) or item.kind == "text":
            texts.append(item.text)
            continue
        if texts:
            joined.append(Part("text", "".join(texts)))
            texts.clear()
        joined.append(item)
    return (*joined, Part("text", "".join(texts))) if texts else tuple(joined)
