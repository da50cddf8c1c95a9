"""
Markdown at a terminal: an answer's text as lines in a margin, as it comes.

Nothing that was shown changes: what may still become emphasis, code, a link or a table waits until
that is certain, or has grown too long for one. `inline` and `blocks` say what is what.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from rich.cells import cell_len

from app.chatbot.terminal.blocks import Block, Blocks
from app.chatbot.terminal.inline import Inline, Part
from app.chatbot.terminal.margin import Margin

_LONGEST_SPAN: Final = 400  # characters, from the start of emphasis, code or a link to its end
_LONGEST_LINE: Final = 2000  # characters of one whose kind is not known
_MOST_ROWS: Final = 100  # of a table, to find its columns' widths by
_BOLD: Final = "\x1b[1m"
_FAINT: Final = "\x1b[2m"
_STYLES: Final = {"strong": _BOLD, "em": "\x1b[3m", "del": "\x1b[9m"}
_CODE_LEAD: Final = "    "
_BETWEEN: Final = "  "
_LONGEST_RULE: Final = 24

Styled = tuple[str, str]  # a text, and the codes before it


@dataclass(slots=True)
class Markdown:
    """Shows one answer; its text has no control characters."""

    margin: Margin
    _blocks: Blocks = field(default_factory=Blocks)
    _rest: str = ""  # has come, and is not shown
    _within: bool = False  # the start of this line is shown
    _style: str = ""  # of this line
    _blank: Block | None = None  # shown before what follows, if anything does
    _begun: bool = False
    _rows: list[Block] = field(default_factory=list)  # of a table whose columns are not known
    _widths: tuple[int, ...] | None = None
    _heads: tuple[str, ...] = ()

    def feed(self, text: str) -> str:
        """Take a piece; give what can be shown by now."""
        *lines, self._rest = (self._rest + text).split("\n")
        shown = [self._end_line(line) for line in lines]
        return "".join([*shown, *self._show_some()])

    def end(self) -> str:
        """Give what is left, and the end of the line."""
        shown = self._end_line(self._rest) if self._rest or self._within else ""
        self._rest = ""
        shown += "".join(map(self._show, self._blocks.end())) + self._lay_table()
        return shown + self.margin.end()

    def _end_line(self, line: str) -> str:
        if self._within:
            self._within = False
            return self._say(line, over=True)[0] + self.margin.feed("\n")
        shown, line = self._show_start(line)
        return shown + "".join(map(self._show, self._blocks.read(line)))

    def _show_start(self, line: str) -> tuple[str, str]:
        """Give what is shown of a very long line of no certain kind, as lines; and its rest."""
        shown = ""
        while len(line) > _LONGEST_LINE and not self._blocks.is_decided(line):
            shown += "".join(map(self._show, self._blocks.read(line[:_LONGEST_LINE])))
            line = line[_LONGEST_LINE:]
        return shown, line

    def _show_some(self) -> Iterator[str]:
        """Give what can be shown of the line under way."""
        if not self._within:
            shown, self._rest = self._show_start(self._rest)
            yield shown
            self._within = self._blocks.is_decided(self._rest)
            if self._within:
                yield self._lay_table()
                blanks = self._rest[len(self._rest.rstrip(" ")) :]
                (block,) = self._blocks.read(self._rest)
                self._rest = block.text + blanks
                yield self._begin(block)
        if self._within:
            shown, self._rest = self._say(self._rest, over=False)
            yield shown

    def _show(self, block: Block) -> str:
        """Give a whole line of what *block* is."""
        if block.kind == "row":
            return self._take_row(block)
        shown = self._lay_table()
        if block.kind == "blank":
            self._blank = block
            return shown
        if block.kind == "head":
            self._heads, self._rows = block.cells, [block]
            return shown
        return shown + self._begin(block) + self._lay(block)

    def _begin(self, block: Block) -> str:
        """Give the blank line before *block*, and have what stands before its own lines do so."""
        blank = self._blank if self._begun else None
        self._blank, self._begun = None, True
        shown = ""
        if blank:
            self.margin.lead(blank.first, blank.rest)
            shown = self.margin.lay("")
        code = _CODE_LEAD if block.kind in {"code", "language"} else ""
        self.margin.lead(block.first + code, block.rest + code)
        self._style = _BOLD if block.kind == "heading" else ""
        return shown

    def _lay(self, block: Block) -> str:
        match block.kind:
            case "code":
                return self.margin.lay(block.text)
            case "language":
                return self.margin.lay(block.text, _FAINT) if block.text else ""
            case "rule":
                return self.margin.lay("-" * min(_LONGEST_RULE, self.margin.room))
            case _:
                return self._say(block.text, over=True)[0] + self.margin.feed("\n")

    def _say(self, text: str, *, over: bool) -> tuple[str, str]:
        """Give what can be shown of *text*, which is all where it is *over*; and what is left."""
        shown = []
        while text:
            window = text[:_LONGEST_SPAN]
            whole = over and len(window) == len(text)
            inline = Inline(window, over=whole)
            parts = inline.read()
            settled = len(window) if whole else inline.settled
            if not settled and len(window) < _LONGEST_SPAN:
                break
            if not settled:
                settled = window.rfind(" ") + 1 or len(window)
            if settled < len(window) or not whole:
                parts = Inline(window[:settled]).read()
            shown += [self.margin.feed(*styled) for styled in _style(parts, self._style)]
            text = text[settled:]
        return "".join(shown), text

    def _take_row(self, block: Block) -> str:
        self._rows.append(block)
        if self._widths is None and len(self._rows) <= _MOST_ROWS:
            return ""
        return self._lay_rows()

    def _lay_table(self) -> str:
        """Give what waits of a table that has ended."""
        shown = self._lay_rows() if self._rows else ""
        self._widths = None
        return shown

    def _lay_rows(self) -> str:
        rows, self._rows = self._rows, []
        shown = self._begin(rows[0])
        cells = [[_style(Inline(cell).read(), "") for cell in row.cells] for row in rows]
        begins = self._widths is None
        if self._widths is None:
            self._widths = tuple(max(map(_width, column)) for column in zip(*cells, strict=True))
        if sum(self._widths) + len(_BETWEEN) * (len(self._widths) - 1) > self.margin.room:
            return shown + "".join(map(self._lay_record, cells[1:] if begins else cells))
        if begins:
            bold = [[(text, _BOLD + codes) for text, codes in cell] for cell in cells[0]]
            lines = [[("-" * width, "")] for width in self._widths]
            cells = [bold, lines, *cells[1:]]
        return shown + "".join(map(self._lay_cells, cells))

    def _lay_cells(self, cells: list[list[Styled]]) -> str:
        """Give a row whose cells stand in their columns."""
        shown = []
        for cell, width in zip(cells, self._widths or (), strict=True):
            shown += [self.margin.feed(*styled) for styled in cell]
            shown.append(self.margin.feed(" " * max(0, width - _width(cell)) + _BETWEEN))
        return "".join(shown) + self.margin.feed("\n")

    def _lay_record(self, cells: list[list[Styled]]) -> str:
        """Give a row of a table that is too wide: a line for each cell, after its column's head."""
        shown = []
        for head, cell in zip(self._heads, cells, strict=True):
            named = [*_style(Inline(head).read(), _BOLD), (": ", _BOLD), *cell, ("\n", "")]
            shown += [self.margin.feed(*styled) for styled in named]
        return "".join(shown) + self.margin.feed("\n")


def _style(parts: tuple[Part, ...], codes: str) -> list[Styled]:
    """Give *parts* as texts, each with the codes before it: a link with its target, as text."""
    styled: list[Styled] = []
    for part in parts:
        inner = _style(part.parts, codes + _STYLES.get(part.kind, ""))
        match part.kind:
            case "text":
                styled.append((part.text, codes))
            case "code":
                styled.append((f"`{part.text}`", codes))
            case "link" | "image":
                styled += [*inner, (_describe_target(part, inner), codes)]
            case _:
                styled += inner
    return styled


def _describe_target(part: Part, inner: list[Styled]) -> str:
    if part.kind == "image":
        return f" (image, not loaded: {part.target})"
    said = "".join(text for text, _ in inner)
    return "" if said == part.target else f" ({part.target})"


def _width(cell: list[Styled]) -> int:
    return sum(cell_len(text) for text, _ in cell)
