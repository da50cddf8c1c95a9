"""
PDF: the text layer of each page, by pypdf.

Only that is looked at: scripts, actions, attached files and links are never run, opened or
followed. A page without a text layer, such as a scan, is named. Text in the invisible mode is text,
since that is how scanners add what they recognised.
"""

import encodings
import hashlib
import io
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from typing import Final

import pypdf
from pypdf import PdfReader
from pypdf.errors import PyPdfError

from app.chatbot.documents.document import (
    MAX_CHARACTERS,
    MAX_PAGES,
    Page,
    count,
    parse_pages,
    show_pages,
)
from app.chatbot.documents.text import clean, note_unseen
from app.chatbot.errors import DocumentError

# What the library raises where a file breaks the format, its own errors aside.
_BROKEN: Final = (
    *(PyPdfError, ArithmeticError, AssertionError, AttributeError, LookupError),
    *(NotImplementedError, OSError, RecursionError, TypeError, ValueError),
)
_DAMAGED: Final = "it is damaged, or loops: open it in a viewer and print it to a new PDF"


def load() -> None:
    """Load all of the library, which imports much of itself late, and what it computes with."""
    for package in (pypdf, encodings):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith("__main__"):
                with suppress(ImportError):  # what packages, or systems, are for that are not here
                    import_module(module.name)
    hashlib.sha256(b"").digest()  # OpenSSL reads its settings when it is first used


def read_pdf(data: bytes, pages: str) -> tuple[tuple[Page, ...], int, int, tuple[str, ...]]:
    """
    Read the chosen *pages* of the PDF *data*: those with text, how many it has, how many were
    chosen, and what to note.

    Raises:
        DocumentError: It is damaged, locked, has no text, or more than is read.
    """
    reader = _open(data)
    total = _count(reader)
    chosen = parse_pages(pages, total)
    if len(chosen) > MAX_PAGES:
        raise DocumentError(
            f"it has {count(total, 'page')}, and {MAX_PAGES:,} are read at a time: choose some, "
            f"such as 1-{MAX_PAGES}"
        )
    found = dict(_read(reader, chosen))
    unreadable = [number for number, text in found.items() if text is None]
    cleaned = {number: clean(text or "") for number, text in found.items()}
    read = tuple(Page(number, text) for number, (text, _) in cleaned.items() if text.strip())
    blank = [number for number, (text, _) in cleaned.items() if not text.strip()]
    if not read:
        raise DocumentError(_nothing(len(blank), unreadable))
    notes = _note(sorted({*blank} - {*unreadable}), unreadable)
    return read, total, len(chosen), (*notes, *note_unseen(sum(n for _, n in cleaned.values())))


def _open(data: bytes) -> PdfReader:
    try:
        reader = PdfReader(io.BytesIO(data), strict=False)
        locked = reader.is_encrypted and not reader.decrypt("")
    except _BROKEN:
        raise DocumentError(_DAMAGED) from None
    if locked:
        raise DocumentError("it is locked by a password: save a copy without one")
    return reader


def _count(reader: PdfReader) -> int:
    try:
        total = len(reader.pages)
    except _BROKEN:
        raise DocumentError(_DAMAGED) from None
    if total < 1:
        raise DocumentError("it has no pages: choose another file")
    return total


def _read(reader: PdfReader, chosen: tuple[int, ...]) -> Iterator[tuple[int, str | None]]:
    """Give the text of each page, None where it cannot be read."""
    characters = 0
    for number in chosen:
        try:
            text = reader.pages[number - 1].extract_text()
        except _BROKEN:
            yield number, None
            continue
        characters += len(text)
        if characters > MAX_CHARACTERS:
            raise DocumentError(
                f"it has over {MAX_CHARACTERS:,} characters up to page {number}, which is the most "
                f"that is read: choose fewer pages, such as 1-{max(1, number - 1)}"
            )
        yield number, text


def _nothing(blank: int, unreadable: list[int]) -> str:
    if len(unreadable) == blank:
        return _DAMAGED
    return (
        f"{'its page has' if blank == 1 else f'its {blank:,} pages have'} no text, as after "
        "scanning: run text recognition on it (OCR), and give the PDF that comes of that"
    )


def _note(blank: list[int], unreadable: list[int]) -> Iterator[str]:
    for numbers, words in ((blank, "no text, scanned perhaps"), (unreadable, "damaged, not read")):
        if numbers:
            yield f"page{'s' if len(numbers) > 1 else ''} {show_pages(numbers)}: {words}"
