"""
What all endpoints do with HTTP: reading a body, and refusing by a status of its own.
"""

from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.chatbot.local_http import read_body
from app.protocol.errors import TooLongError

# JSON may write each byte of a text in six; the enclave's own limit says what is too long.
_MAX_BODY_BYTES: Final = 2 * 1024 * 1024


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
        return await read_body(request, _MAX_BODY_BYTES)
    except TooLongError as error:
        raise HTTPException(413, str(error)) from None
