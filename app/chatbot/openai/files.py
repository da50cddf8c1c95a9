"""
Files in messages: sent along in base64, read here, and shown to the model as text.

Nothing is fetched and nothing is kept, so a file that is named by an id or a URL is refused.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Final

from app.chatbot.documents.document import MAX_FILE_BYTES, Document
from app.chatbot.documents.frame import frame
from app.chatbot.documents.reader import read_document
from app.chatbot.errors import DocumentError
from app.chatbot.openai.body import Body, RequestError

MOST_FILES: Final = 20  # in a message
MOST_OF_REQUEST: Final = 64  # each is a process's work, wanted or not
# What a request may have besides its text: one file of the largest size, in base64.
MAX_ENCODED_BYTES: Final = 4 * (MAX_FILE_BYTES // 3 + 1)
_DATA_URL: Final = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(?:;[\w=.\"-]+)*;base64", re.ASCII)
_MOST_HEAD: Final = 256  # characters of a data URL before its data
_ENDS: Final = {"text/html": "html", "text/csv": "csv", "text/markdown": "md"}


class GivenFile(Body):
    """A file; which of its members are served is for `read` to say, each with its reason."""

    file_data: str | None = None
    filename: str | None = None
    file_id: str | None = None
    file_url: str | None = None

    def read(self, place: str) -> Document:
        """
        Read it.

        Args:
            place: Its name in the request.

        Raises:
            RequestError: It is not sent along, is no base64, or cannot be read.
        """
        for name, why in (("file_id", "no file is kept"), ("file_url", "nothing is fetched")):
            if getattr(self, name) is not None:
                words = f"{place}.{name} is not supported, since {why} here: send file_data"
                raise RequestError(words, f"{place}.{name}", "unsupported_parameter")
        if self.file_data is None:
            words = f"{place}.file_data is missing"
            raise RequestError(words, f"{place}.file_data", "missing_required_parameter")
        name, data = self._decode(self.file_data, f"{place}.file_data")
        try:
            return read_document(name, data)
        except DocumentError as error:
            raise RequestError(str(error), f"{place}.file_data", "invalid_value") from None

    def _decode(self, text: str, place: str) -> tuple[str, bytes]:
        """Give the file's name, which says what it is where its bytes do not, and its bytes."""
        kind = ""
        if text.startswith("data:"):
            head, _, text = text.partition(",")
            found = _DATA_URL.fullmatch(head[:_MOST_HEAD])
            text, kind = (text, found[1] or "") if found else ("", "")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            data = b""
        if not data:
            words = f"{place} is no base64: send data:application/pdf;base64,… or the base64 alone"
            raise RequestError(words, place, "invalid_value")
        return self.filename or f"file.{_ENDS.get(kind.lower(), 'txt')}", data


def require_few(number: int, place: str) -> None:
    """
    Require that a request with *number* files in *place* has no more than are read.

    Raises:
        RequestError: It has.
    """
    if number > MOST_OF_REQUEST:
        words = f"{place}: a request has {MOST_OF_REQUEST} files at most, and this one {number}"
        raise RequestError(words, place, "invalid_value")


def show_files(files: Sequence[GivenFile | None], places: Sequence[str]) -> list[str | None]:
    """
    Give what stands for each part of one message: the framed text of a file, None for what is none.

    Raises:
        RequestError: There are too many, or one cannot be read.
    """
    given = [(file, place) for file, place in zip(files, places, strict=True) if file]
    if len(given) > MOST_FILES:
        words = f"{given[-1][1]}: a message has {MOST_FILES} files at most"
        raise RequestError(words, given[-1][1], "invalid_value")
    shown = iter(frame([file.read(place) for file, place in given]))
    last = len(files) - 1
    return [
        None
        if file is None
        else ("\n\n" if place else "") + next(shown) + ("\n\n" if place < last else "")
        for place, file in enumerate(files)
    ]
