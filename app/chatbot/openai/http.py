"""
What all endpoints do with HTTP: reading a body, and refusing by a status of its own.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Final, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.chatbot.local_http import read_body
from app.chatbot.openai.files import MAX_ENCODED_BYTES
from app.protocol.errors import TooLongError

# JSON may write each byte of a text in six; the enclave's own limit says what is too long.
_MAX_BODY_BYTES: Final = 2 * 1024 * 1024
_FILES: Final = b'"file_data"'
_MAY_HAVE_FILES: Final = re.compile(rb'"file_data"|\\u00[5-7]')  # its letters as escapes, too
_Parsed = TypeVar("_Parsed")


class NotFoundError(HTTPException):
    """
    A request names what is not here.

    Attributes:
        code: For programs, as the OpenAI API has it.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(404, message)
        self.code = code


async def read(request: Request) -> bytes:
    """
    Read a request's body.

    Raises:
        HTTPException: It is too large.
    """
    try:
        body = await read_body(request, _MAX_BODY_BYTES + MAX_ENCODED_BYTES)
    except TooLongError as error:
        raise HTTPException(413, str(error)) from None
    if len(body) > _MAX_BODY_BYTES and _FILES not in body:
        words = f"the body is {len(body)} bytes, without files the limit is {_MAX_BODY_BYTES}"
        raise HTTPException(413, words)
    return body


async def parse_aside(parse: Callable[[bytes], _Parsed], body: bytes) -> _Parsed:
    """Give what *parse* makes of *body*; in a thread where that may take long, as files do."""
    if _MAY_HAVE_FILES.search(body):
        return await asyncio.to_thread(parse, body)
    return parse(body)
