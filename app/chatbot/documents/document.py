"""
A document: what was read of a file, page by page, as text.

Kinds that have no pages of their own are cut into parts of a few thousand characters at ends of
lines, so that some of any long file can be chosen.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from app.chatbot.errors import DocumentError

Kind = Literal["text", "Markdown", "HTML", "CSV", "DOCX", "PDF"]

MAX_FILE_BYTES: Final = 16 * 1024 * 1024
MAX_PAGES: Final = 2000  # that are read at a time
MAX_CHARACTERS: Final = 4_000_000  # of all pages read; a question has 256 KiB
MAX_NAME: Final = 120  # characters

_MOST_CHOSEN: Final = 200  # characters of a choice of pages
_RANGE: Final = re.compile(r"\s*([0-9]{1,6})\s*(?:-\s*([0-9]{1,6})\s*)?")


@dataclass(frozen=True, slots=True)
class Page:
    """One page, or a part of a document that has no pages; numbers begin at 1."""

    number: int
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Document:
    """
    What was read of one file.

    Attributes:
        name: Of the file, without its folder.

        pages: Those that were chosen and have text.

        total: How many it has, chosen or not.

        chosen: How many were chosen.

        notes: What a person should know of the reading, such as which pages have no text.
    """

    name: str
    kind: Kind
    pages: tuple[Page, ...] = field(repr=False)
    total: int
    chosen: int
    notes: tuple[str, ...] = ()

    @property
    def characters(self) -> int:
        """How many characters were read."""
        return sum(len(page.text) for page in self.pages)

    @property
    def unit(self) -> str:
        """What `pages` are, for people."""
        return "page" if self.kind == "PDF" else "part"


def parse_pages(text: str, total: int, unit: str = "page") -> tuple[int, ...]:
    """
    Give the numbers of pages that *text* chooses, such as "1-3,7", ascending; all, where it is "".

    Raises:
        DocumentError: It chooses none, or one that is not there.
    """
    if not text.strip():
        return tuple(range(1, total + 1))
    chosen: set[int] = set()
    for first, last in _parse_ranges(text):
        if not 1 <= first <= last <= total:
            asked = f"{unit} {first} is" if first == last else f"{unit}s {first}-{last} are"
            raise DocumentError(
                f"{asked} not in it: it has {count(total, unit)}; choose of those, such as 1-3,7"
            )
        chosen.update(range(first, last + 1))
    return tuple(sorted(chosen))


def require_choice(text: str) -> None:
    """
    Require that *text* may choose pages of some document.

    Raises:
        DocumentError: It chooses none of any.
    """
    for _ in _parse_ranges(text):
        pass


def _parse_ranges(text: str) -> Iterator[tuple[int, int]]:
    for part in text[: _MOST_CHOSEN + 1].split(","):
        found = _RANGE.fullmatch(part)
        if found is None or len(text) > _MOST_CHOSEN:
            raise DocumentError(
                "this chooses no pages: write numbers and ranges with commas, such as 1-3,7"
            )
        yield int(found[1]), int(found[2] or found[1])


def show_pages(numbers: Iterable[int]) -> str:
    """Write ascending *numbers* as `parse_pages` reads them."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][1] == number - 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    return ",".join(f"{first}-{last}" if last > first else f"{first}" for first, last in ranges)


def count(number: int, noun: str) -> str:
    """Write *number* with its *noun*."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
