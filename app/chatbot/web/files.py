"""
Files that a page gives its program, piece by piece, and what is read of them.

They stay in memory until a question that shows them has been answered, or the page takes them away.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.chatbot.documents.document import MAX_FILE_BYTES, Document, count, show_pages
from app.chatbot.documents.frame import compose
from app.chatbot.documents.reader import read_document
from app.chatbot.documents.words import describe, describe_room, offer
from app.chatbot.errors import DocumentError
from app.chatbot.evidence.advice import advise
from app.chatbot.evidence.finding import Json
from app.protocol.errors import ProtocolError, TooLongError

MOST_FILES: Final = 8
_SHOWN: Final = 20_000  # characters of a document that a page shows


@dataclass(slots=True)
class _File:
    data: bytearray = field(default_factory=bytearray, repr=False)
    document: Document | None = None


class Files:
    """The files of one page, by the numbers that it gives them."""

    def __init__(self) -> None:
        self._files: dict[int, _File] = {}

    def take(self, number: int, piece: str) -> None:
        """
        Take the next *piece* of a file, in base64.

        Raises:
            ProtocolError: It is none, or there are more or larger files than a page sends.
        """
        file = self._files.setdefault(number, _File())
        try:
            file.data += base64.b64decode(piece, validate=True)
        except (binascii.Error, ValueError):
            raise ProtocolError("a piece of a file is no base64") from None
        if len(self._files) > MOST_FILES or len(file.data) > MAX_FILE_BYTES:
            self.remove(number)
            raise ProtocolError("these are more or larger files than a page sends")

    def remove(self, number: int) -> None:
        """Forget a file, if it is there."""
        self._files.pop(number, None)

    def clear(self) -> None:
        """Forget all of them, so that none is read any more."""
        self._files.clear()

    def read(self, number: int, name: str, pages: str, context_tokens: int) -> Json:
        """Read a file, or some pages of it; give the event that tells what came of it."""
        file = self._files.get(number)
        about: Json = {"file": number, "name": name, "pages": pages}
        if file is None:
            return {"type": "gone", "file": number}
        file.document = None
        try:
            file.document = document = read_document(name, bytes(file.data), pages)
        except DocumentError as error:
            return about | {"type": "unread", "says": advise(error)}
        return about | {
            "type": "read",
            "name": document.name,
            "says": describe(document).removeprefix(f"{document.name}: "),
            "total": document.total,
            "unit": document.unit,
            "chosen": show_pages(page.number for page in document.pages),
            "room": describe_room(compose([document], ""), context_tokens),
            "text": "\n\n".join(page.text for page in document.pages)[:_SHOWN],
            "more": max(0, document.characters - _SHOWN),
        }

    @property
    def documents(self) -> dict[int, Document]:
        """What was read, in the order in which the page gave it."""
        read = ((number, self._files[number].document) for number in sorted(self._files))
        return {number: document for number, document in read if document is not None}


def offer_pages(documents: Sequence[Document], error: object) -> Json:
    """Say which pages of *documents* would fit, after a question that showed them was too long."""
    if not isinstance(error, TooLongError) or len(error.numbers) != 2:
        return {}
    return {"offers": list(offer(documents, *error.numbers))}


def name_files(documents: Sequence[Document]) -> list[str]:
    """Name *documents*, as the page shows them with the question that they went with."""
    return [
        document.name
        if document.chosen == document.total
        else f"{document.name}, {count(len(document.pages), document.unit)}"
        for document in documents
    ]
