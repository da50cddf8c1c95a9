"""
The frame: how documents stand in a question, between lines that say which text is whose.

Each of these lines has a mark that is a digest of all the documents of the message. So none of them
can hold a line of its frame: it would have to hold its own digest. What is framed is still text
that the model reads: a document can ask it for something, as a letter can a person, and no frame
keeps a model from doing it.
"""

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Final

from app.chatbot.documents.document import Document, count, show_pages

FILL: Final = "Fill in the form with what the file says."
_MARK_BYTES: Final = 10  # 80 bits: a document with its own mark is out of reach


def compose(documents: Sequence[Document], question: str) -> str:
    """Give the text of a message that shows *documents* and then asks *question*."""
    return "\n\n".join([*frame(documents), question])


def frame(documents: Sequence[Document]) -> list[str]:
    """Give each of *documents* in its frame; those of one message all at once."""
    mark = _mark(documents)
    return [
        "\n".join(_lines(document, number, len(documents), mark))
        for number, document in enumerate(documents, 1)
    ]


def _mark(documents: Sequence[Document]) -> str:
    shown = [
        (
            *(document.name, document.kind, document.total, document.notes),
            *((page.number, page.text) for page in document.pages),
        )
        for document in documents
    ]
    digest = hashlib.sha256(json.dumps(shown).encode()).digest()
    return base64.b32encode(digest[:_MARK_BYTES]).decode().lower()


def _lines(document: Document, number: int, of: int, mark: str) -> Iterator[str]:
    which = f"file {number} of {of}" if of > 1 else "file"
    yield f"[{mark}: {which}, {json.dumps(document.name, ensure_ascii=False)}, {_extent(document)}]"
    several = document.total > 1
    for page in document.pages:
        if several:
            yield f"[{mark}: {document.unit} {page.number}]"
        yield page.text.strip("\n")
    yield f"[{mark}: end of {which}]"


def _extent(document: Document) -> str:
    """Say what of *document* stands in the frame."""
    extent = f"{document.kind}, {count(document.total, document.unit)}"
    if document.chosen < document.total:
        numbers = show_pages(page.number for page in document.pages)
        extent += f", of which {numbers} follow"
    return "; ".join((extent, *document.notes))
