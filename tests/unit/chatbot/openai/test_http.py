import asyncio
import threading

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message

from app.chatbot.openai.files import MAX_ENCODED_BYTES
from app.chatbot.openai.http import parse_aside, read

MIB = 1024 * 1024
FILE = b'{"file_data": "'


def read_given(body: bytes) -> int:
    """Read *body* as a request's; give how long what was read is."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    request = Request({"type": "http", "method": "POST", "headers": []}, receive)
    return len(asyncio.run(read(request)))


def test_only_files_make_a_body_long() -> None:
    """
    A body with a file may be as long as the largest file, any other one 2 MiB.
    """
    assert read_given(bytes(2 * MIB)) == 2 * MIB
    with pytest.raises(HTTPException, match="without files the limit is 2097152"):
        read_given(bytes(2 * MIB + 1))
    longest = FILE.ljust(2 * MIB + MAX_ENCODED_BYTES)
    assert read_given(longest) == len(longest)
    with pytest.raises(HTTPException, match="the limit is"):
        read_given(longest + b" ")


def test_files_hold_up_nobody() -> None:
    """
    A body with a file is parsed in a thread of its own, so that others are served meanwhile.
    """

    def where(_: bytes) -> int:
        return threading.get_ident()

    own = threading.get_ident()
    assert asyncio.run(parse_aside(where, FILE)) != own
    assert asyncio.run(parse_aside(where, b"{}")) == own
