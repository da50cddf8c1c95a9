"""
Blocks of Markdown: what each line of an answer is, by what came before it.

A small part of CommonMark, and the same as app/chatbot/web/page/blocks.js reads: docs/page.md says
which. A line is read once, and what it is never changes but for one that may head a table, which
waits for the next.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Literal

from app.chatbot.terminal.inline import WIDE

Kind = Literal["text", "heading", "blank", "rule", "language", "code", "head", "row"]

_DEEPEST: Final = 8  # quotes and items in each other; further marks are text
_MOST_COLUMNS: Final = 32  # of a table
_QUOTE: Final = re.compile(r" {0,3}> ?")
_ITEM: Final = re.compile(r"( {0,3})(?:([-*+])|([0-9]{1,9})[.)])(?: +|$)")
_RULE: Final = re.compile(r" {0,3}([-*_])(?: *\1){2,} *$")
_HEADING: Final = re.compile(r" {0,3}#{1,6}(?: +|$)")
_FENCE: Final = re.compile(r" *(`{3,}|~{3,})([^`]*)$")
_ROW: Final = re.compile(r" {0,3}\|")
_DELIMITERS: Final = re.compile(r" {0,3}\|(?: *:?-+:? *\|)+ *$")
_CELL: Final = re.compile(r"\\.|[^|\\]+|[|\\]", re.DOTALL)
_LONGEST_LANGUAGE: Final = 32
# A line that can be shown before its end: nothing that follows makes it another block.
_DECIDED: Final = re.compile(
    r"(?:[ \t>]|[*+-][ \t]|[0-9]{1,9}[.)][ \t]|#{1,6}[ \t])*+(?!\||```|~~~)"
    rf"(?:(?=\S*[^\s*+\-_#>`~|=])\S+[ \t]|\S*?[{WIDE}]\S)"
)


@dataclass(frozen=True, slots=True)
class Block:
    """
    What a line is.

    Attributes:
        text: Of it, without what makes it a block; read by `inline`, but for code.

        cells: Of a table's row.

        first, rest: What stands before it, and before each further line that it takes.
    """

    kind: Kind
    text: str = field(default="", repr=False)
    cells: tuple[str, ...] = field(default=(), repr=False)
    first: str = ""
    rest: str = ""


@dataclass(frozen=True, slots=True)
class _Container:
    """A quote, or an item of a list; its text begins *indent* columns into what it stands in."""

    mark: str  # ">", "-" for any bullet, "1" for any number
    indent: int = 0

    @property
    def lead(self) -> str:
        return "> " if self.mark == ">" else " " * self.indent


@dataclass(frozen=True, slots=True)
class _Fence:
    """Lines of code, until a line of the same mark."""

    mark: str
    indent: int
    quotes: int


@dataclass(slots=True)
class Blocks:
    """Reads an answer line by line."""

    _stack: list[_Container] = field(default_factory=list)
    _fence: _Fence | None = None
    _text: bool = False  # the line before was text, which this one may go on with
    _held: Block | None = None  # may head a table
    _columns: int = 0  # of the table under way
    _marks: str = ""  # of the items that this line begins

    def is_decided(self, line: str) -> bool:
        """Tell whether *line*, which has not ended, can be read and shown by now."""
        return self._fence is None and self._held is None and bool(_DECIDED.match(line))

    def read(self, line: str) -> list[Block]:
        """Give what *line* is, after the line before where that had to wait."""
        self._marks = ""
        blank = line[: len(line) - len(line.lstrip(" \t"))]
        line = blank.replace("\t", "    ") + line.lstrip(" \t")
        if self._fence is not None:
            code = _strip_quotes(line, self._fence.quotes)
            if code is not None:
                return self._read_code(code, self._fence)
            self._fence = None
        kept, text = self._match(line)
        if self._held is not None:
            return self._read_after_held(self._held, line, kept, text)
        return self._read(line, kept, text)

    def end(self) -> list[Block]:
        """Give the line that waits, if any; nothing follows."""
        held, self._held = self._held, None
        return [held] if held else []

    def _read_after_held(self, held: Block, line: str, kept: int, text: str) -> list[Block]:
        self._held = None
        cells = _split(held.text)
        heads = kept == len(self._stack) and _DELIMITERS.match(text)
        if heads and len(cells) == len(_split(text)) <= _MOST_COLUMNS:
            self._text, self._columns = False, len(cells)
            return [Block("head", cells=cells, first=held.first, rest=held.rest)]
        self._text = True
        return [held, *self._read(line, kept, text)]

    def _read(self, line: str, kept: int, text: str) -> list[Block]:
        if self._columns and kept == len(self._stack) and _ROW.match(text):
            return [self._block("row", cells=self._fit(_split(text)))]
        self._columns = 0
        text = self._enter(kept, text)
        fence = _FENCE.match(text)
        if fence:
            return self._begin_code(line, fence)
        was_text, self._text = self._text, False
        if not text.strip():
            return [self._block("blank")]
        if _RULE.match(text):
            return [self._block("rule")]
        if heading := _HEADING.match(text):
            return [self._block("heading", text[heading.end() :].strip(" "))]
        if _ROW.match(text):
            self._held = self._block("text", text.strip())
            self._text = was_text
            return []
        self._text = True
        return [self._block("text", text.strip(" "))]

    def _match(self, line: str) -> tuple[int, str]:
        """Give how many containers *line* goes on in, and what is left of it behind them."""
        for kept, container in enumerate(self._stack):
            lead = len(line) - len(line.lstrip(" "))
            if container.mark == ">":
                quote = _QUOTE.match(line)
                if not quote:
                    return kept, line
                line = line[quote.end() :]
            elif lead >= 2 or not line.strip():
                line = line[min(lead, container.indent) :]
            else:
                return kept, line
        return len(self._stack), line

    def _enter(self, kept: int, text: str) -> str:
        """Leave all but *kept* containers, and enter those that *text* begins; give the rest."""
        if kept < len(self._stack):
            self._text = False
        del self._stack[kept:]
        while len(self._stack) < _DEEPEST:
            item = _ITEM.match(text)
            if quote := _QUOTE.match(text):
                self._push(_Container(">"), "> ")
                text = text[quote.end() :]
            elif item and not _RULE.match(text) and self._may_begin(item):
                text = self._push_item(item, text)
            else:
                break
        return text

    def _may_begin(self, item: "re.Match[str]") -> bool:
        """Tell whether an item begins here; amid text, no empty one, and of numbers the first."""
        return not self._text or (item.end() < len(item.string) and item[3] in {None, "1"})

    def _push_item(self, item: "re.Match[str]", text: str) -> str:
        mark = item[0].strip()
        blanks = len(item[0]) - len(item[0].rstrip(" "))
        indent = len(item[1]) + len(mark) + min(max(blanks, 1), 4)
        shown = "- " if item[2] else f"{mark} "
        self._push(_Container("-" if item[2] else "1", indent), shown)
        return text[item.end() :]

    def _push(self, container: _Container, mark: str) -> None:
        self._stack.append(container)
        self._marks += mark
        self._text = False

    def _begin_code(self, line: str, fence: "re.Match[str]") -> list[Block]:
        quotes = sum(container.mark == ">" for container in self._stack)
        code = _strip_quotes(line, quotes) or ""
        items = [container.indent for container in self._stack if container.mark != ">"]
        lead = len(code) - len(code.lstrip(" "))
        self._fence = _Fence(fence[1], sum(items) if self._marks else lead, quotes)
        self._text = False
        language = fence[2].strip()[:_LONGEST_LANGUAGE]
        return [self._block("language", language)]

    def _read_code(self, code: str, fence: _Fence) -> list[Block]:
        mark = code.strip()
        if len(mark) >= len(fence.mark) and mark == fence.mark[0] * len(mark):
            self._fence = None
            return []
        lead = len(code) - len(code.lstrip(" "))
        return [self._block("code", code[min(lead, fence.indent) :])]

    def _fit(self, cells: tuple[str, ...]) -> tuple[str, ...]:
        """Give *cells* as many as the table has columns; those that are too many are one."""
        *first, last = range(self._columns)
        cells = (*cells, *("" for _ in range(self._columns - len(cells))))
        return (*(cells[column] for column in first), " | ".join(cells[last:]))

    def _block(self, kind: Kind, text: str = "", cells: tuple[str, ...] = ()) -> Block:
        rest = "".join(container.lead for container in self._stack)
        first = rest
        if self._marks:
            first = rest[: max(0, len(rest) - len(self._marks))] + self._marks
            rest = rest.ljust(len(first))
        return Block(kind, text, cells, first, rest)


def _strip_quotes(line: str, quotes: int) -> str | None:
    """Give what stands behind *quotes* marks of quotes; None where there are fewer."""
    for _ in range(quotes):
        stripped = line.lstrip(" ")
        if not stripped.startswith(">"):
            return None
        line = stripped[1:].removeprefix(" ")
    return line


def _split(row: str) -> tuple[str, ...]:
    """Give the cells of a row."""
    cells = [""]
    for part in _CELL.findall(row.strip()):
        if part == "|":
            cells.append("")
        else:
            cells[-1] += "|" if part == "\\|" else part
    stripped = [cell.strip() for cell in cells[1:]]
    return tuple(stripped[:-1] if len(stripped) > 1 and not stripped[-1] else stripped)
