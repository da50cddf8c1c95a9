"""
Page text: what a reader of an HTML page sees, as text.

Nothing that the page names is fetched: no picture, style, script, frame or refresh. What the page
itself marks as not to be seen is left out and counted: elements with `hidden`, and those whose own
style says `display: none` or `visibility: hidden`. What a style sheet hides, or tiny and colourless
letters, cannot be told from other text, and is text.
"""

import re
from html.parser import HTMLParser
from typing import Final

from app.chatbot.documents.text import decode

_HEAD_BYTES: Final = 1024  # where an encoding has to be declared, as HTML has it
_DECLARED: Final = re.compile(
    rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w.:-]{1,40})""", re.IGNORECASE
)
_UNSEEN: Final = frozenset({"script", "style", "template", "iframe", "object", "svg", "math"})
_BLOCKS: Final = frozenset(
    {"address", "article", "aside", "blockquote", "body", "dd", "div", "dl", "dt", "fieldset"}
    | {"figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header"}
    | {"hr", "li", "main", "nav", "ol", "option", "p", "pre", "section", "table", "title", "tr"}
    | {"ul", "br", "caption", "details", "summary", "legend", "html", "head", "thead", "tbody"}
)
_CELLS: Final = frozenset({"td", "th"})
_VOID: Final = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source"}
    | {"track", "wbr"}
)
_CLOSED_BY_NEXT: Final = frozenset({"p", "li", "dt", "dd", "td", "th", "tr", "option"})
_HIDING: Final = re.compile(r"(display\s*:\s*none|visibility\s*:\s*hidden)\b", re.IGNORECASE)
_BLANKS: Final = re.compile(r"[ \t\n\r\f]+")
_MANY_ENDS: Final = re.compile(r"(?<! ) *\n[ \n]*\n")

Attributes = list[tuple[str, str | None]]


class _Reader(HTMLParser):
    """
    Collects text.

    Attributes:
        hidden: Characters that the page marks as not to be seen.

        pictures: How many it has.
    """

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []
        self.hidden = 0
        self.pictures = 0
        self._inside = ""  # the element that is not read, while in one
        self._depth = 0  # of elements of that name in it
        self._counted = False  # what is in it is text, but hidden
        self._as_it_is = 0  # depth of <pre>

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        """Begin an element."""
        if self._inside and tag == self._inside and tag in _CLOSED_BY_NEXT:
            self._inside = ""
        if self._inside:
            self._depth += tag == self._inside
            return
        self.pictures += tag == "img"
        hidden = _is_hidden(attrs)
        if (hidden or tag in _UNSEEN) and tag not in _VOID:
            self._inside, self._depth, self._counted = tag, 1, tag not in _UNSEEN
            return
        self._as_it_is += tag == "pre"
        self._break(tag)

    def handle_startendtag(self, tag: str, attrs: Attributes) -> None:
        """Take <tag/>, which HTML has for a start, and XHTML for an element that is empty."""
        if tag not in _UNSEEN and not _is_hidden(attrs):
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        """End an element."""
        if self._inside:
            self._depth -= tag == self._inside
            self._inside = self._inside if self._depth else ""
            return
        self._as_it_is = max(0, self._as_it_is - (tag == "pre"))
        self._break(tag)

    def handle_data(self, data: str) -> None:
        """Take text."""
        if self._inside:
            self.hidden += len(data.strip()) if self._counted else 0
        else:
            self.pieces.append(data if self._as_it_is else _BLANKS.sub(" ", data))

    def _break(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.pieces.append("\n")
        elif tag in _CELLS:
            self.pieces.append("\t")


def read_html(data: bytes) -> tuple[str, tuple[str, ...], int, int]:
    """
    Read the page *data*: its text, notes, characters it hides, and pictures it has.

    Raises:
        DocumentError: It is no text.
    """
    declared = _DECLARED.search(data[:_HEAD_BYTES])
    text, notes = decode(data, declared[1].decode("ascii", "replace") if declared else "")
    reader = _Reader()
    reader.feed(text)
    reader.close()
    lines = _MANY_ENDS.sub("\n\n", "".join(reader.pieces)).split("\n")
    return "\n".join(map(_trim, lines)).strip(), notes, reader.hidden, reader.pictures


def _is_hidden(attributes: Attributes) -> bool:
    return any(
        name == "hidden" or (name == "style" and _HIDING.search(value or "") is not None)
        for name, value in attributes
    )


def _trim(line: str) -> str:
    """Give *line* without blanks at its ends that only the source had."""
    return line.strip(" ").rstrip("\t") if not line.startswith("  ") else line.rstrip()
