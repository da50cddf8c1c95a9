"""
Kinds: what a file is, by its first bytes, and where those say nothing, by the end of its name.
"""

import re
from typing import Final

from app.chatbot.documents.document import Kind
from app.chatbot.errors import DocumentError

_HEAD_BYTES: Final = 1024  # a PDF's mark may stand anywhere in them
_PDF: Final = b"%PDF-"
_BY_END: Final[dict[str, Kind]] = {
    "md": "Markdown",
    "markdown": "Markdown",
    "html": "HTML",
    "htm": "HTML",
    "xhtml": "HTML",
    "csv": "CSV",
    "tsv": "CSV",
    "docx": "DOCX",
    "pdf": "PDF",
}
_HTML: Final = re.compile(rb"\s*(<!doctype html|<html)", re.IGNORECASE)
_MARKS: Final = ("\ufeff".encode(), b"\xff\xfe", b"\xfe\xff")
# What other files begin with, what they are, and what to do.
_OTHERS: Final = (
    (b"\xd0\xcf\x11\xe0", "of Office's old formats, or locked by a password: save it as DOCX"),
    (b"{\\rtf", "RTF: save it as DOCX or as text"),
    (b"\x89PNG", "a picture: only text is read, so run text recognition on it first"),
    (b"\xff\xd8\xff", "a picture: only text is read, so run text recognition on it first"),
    (b"GIF8", "a picture: only text is read, so run text recognition on it first"),
    (b"II*\0", "a picture: only text is read, so run text recognition on it first"),
    (b"MM\0*", "a picture: only text is read, so run text recognition on it first"),
    (b"\x1f\x8b", "compressed: unpack it first"),
    (b"7z\xbc\xaf", "an archive: unpack it first"),
)


def find_kind(name: str, data: bytes) -> Kind:
    """
    Tell what the file *name* with the bytes *data* is.

    Raises:
        DocumentError: It is of a kind that is not read, or not what its name says.
    """
    head = data[:_HEAD_BYTES]
    if not head:
        raise DocumentError("it is empty: choose another file")
    kind = _BY_END.get(name.rpartition(".")[2].lower(), "text")
    if head.lstrip().startswith(_PDF) or (kind == "PDF" and _PDF in head):
        return "PDF"
    if head.startswith((b"PK\3\4", b"PK\5\6")):
        return "DOCX"  # whether it is one is seen when its parts are
    for mark, words in _OTHERS:
        if head.startswith(mark):
            raise DocumentError(f"it is {words}")
    if kind in {"PDF", "DOCX"}:
        raise DocumentError(f"it is no {kind}, whatever its name says: save it anew")
    if kind == "text" and _HTML.match(_without_mark(head)):
        return "HTML"
    return kind


def _without_mark(head: bytes) -> bytes:
    for mark in _MARKS:
        head = head.removeprefix(mark)
    return head.replace(b"\0", b"")  # UTF-16, for which a guess is enough
