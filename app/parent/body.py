"""
A request body: bytes of a stated or unstated length, read within a size and a time.
"""

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Self
from wsgiref.types import WSGIEnvironment

from gunicorn.http.errors import ParseException
from werkzeug.exceptions import (
    BadRequest,
    LengthRequired,
    RequestEntityTooLarge,
    RequestTimeout,
)

from app.protocol.constants import MAX_FRAME_BYTES

MAX_BODY_BYTES: Final = MAX_FRAME_BYTES - 1  # one byte of the frame is the message's kind
BODY_BYTES_KEY: Final = "enclave_llm.body_bytes"  # in the WSGI environment, for the log
_DIGITS_OF_ANY_LENGTH: Final = 19  # longer ones are too large without being converted


class CutOff:
    """
    While entered: shuts a socket's reading side when time is up, so that a blocked read ends.

    A time limit on the socket itself would start again with every byte. What is written
    afterwards still arrives, except under TLS, which a cut ends with an alert.

    Args:
        find: Gives the socket at that moment; TLS puts another in its place.

        seconds: From entering on.
    """

    def __init__(self, find: Callable[[], socket.socket], seconds: float) -> None:
        self._find = find
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self.happened = False

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.cancel()

    def cancel(self) -> None:
        """Let the reading go on."""
        self._timer.cancel()

    def _cut(self) -> None:
        self.happened = True
        with suppress(OSError):
            # Not the method of the same name of `SSLSocket`, which ends TLS under its reader.
            socket.socket.shutdown(self._find(), socket.SHUT_RD)


def read_body(environ: WSGIEnvironment, *, seconds: float) -> bytes:
    """
    Read the whole body of a request, 1 to `MAX_BODY_BYTES` bytes.

    Raises:
        HTTPException: 411 without a length, 413 too long, 408 not here within *seconds*, 400
            empty, malformed or broken off.
    """
    length = _declared_length(environ)
    body, late = _read(environ, MAX_BODY_BYTES + 1 if length is None else length, seconds)
    environ[BODY_BYTES_KEY] = len(body)
    if len(body) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    if late:
        raise RequestTimeout
    if not body or length not in {None, len(body)}:
        raise BadRequest
    return body


def _declared_length(environ: WSGIEnvironment) -> int | None:
    """Give Content-Length, or None for a chunked body."""
    if environ.get("HTTP_TRANSFER_ENCODING", "").lower() == "chunked":
        return None
    text = environ.get("CONTENT_LENGTH") or ""
    if not text:
        raise LengthRequired
    if not (text.isascii() and text.isdigit()):
        raise BadRequest
    if len(text) >= _DIGITS_OF_ANY_LENGTH or int(text) > MAX_BODY_BYTES:
        raise RequestEntityTooLarge
    return int(text)


def _read(environ: WSGIEnvironment, size: int, seconds: float) -> tuple[bytes, bool]:
    """Read up to *size* bytes; say, too, whether time was up before they were there."""
    client = environ.get("gunicorn.socket")
    cut_off = CutOff(lambda: client, seconds) if client else None
    try:
        if cut_off is None:
            return environ["wsgi.input"].read(size), False
        with cut_off:
            body = environ["wsgi.input"].read(size)
        return body, cut_off.happened and len(body) < size
    except (OSError, ParseException):  # their messages may quote the body
        return b"", cut_off is not None and cut_off.happened
