import asyncio
import base64
import json
import threading
from typing import Any

import pytest

from app.chatbot.documents.document import MAX_FILE_BYTES
from app.chatbot.openai import files as files_module
from app.chatbot.openai.body import RequestError
from app.chatbot.openai.http import parse_aside
from app.chatbot.openai.request import parse_chat
from app.chatbot.openai.responses.request import parse_body, resolve_request
from app.protocol.question import Message, Options
from tests.files import make_pdf

LETTER = "I ask for leave."


def encode(data: bytes, kind: str = "") -> str:
    text = base64.b64encode(data).decode()
    return f"data:{kind};base64,{text}" if kind else text


def chat(*parts: object, role: str = "user") -> tuple[Message, ...]:
    """Ask by a chat completion."""
    messages = [{"role": role, "content": list(parts)}, {"role": "user", "content": "Who?"}]
    body = json.dumps({"model": "m", "messages": messages}).encode()
    return parse_chat(body, Options()).questions[0].messages


def respond(*parts: object, role: str = "user") -> tuple[Message, ...]:
    """Ask by the Responses API."""
    items = [{"role": role, "content": list(parts)}, {"role": "user", "content": "Who?"}]
    parsed = parse_body(json.dumps({"model": "m", "input": items}).encode())
    asked = resolve_request(
        parsed, Options(), find_response=lambda _: None, find_item=lambda _: None
    )
    return asked.question.messages


def part(**file: Any) -> dict[str, object]:
    return {"type": "file", "file": file}


def input_file(**file: Any) -> dict[str, object]:
    return {"type": "input_file", **file}


def test_both_apis_show_a_file_as_text() -> None:
    """
    A file stands in its frame where it stood in the message, alike in both APIs.
    """
    file = {"filename": "letter.txt", "file_data": encode(LETTER.encode(), "text/plain")}
    said = chat({"type": "text", "text": "This:"}, part(**file), {"type": "text", "text": "Who?"})
    text = said[0].text
    assert text.startswith("This:\n\n[")
    assert ': file, "letter.txt", text, 1 part]\nI ask for leave.\n[' in text
    assert text.endswith(": end of file]\n\nWho?")
    told = respond(
        {"type": "input_text", "text": "This:"},
        input_file(**file),
        {"type": "input_text", "text": "Who?"},
    )
    assert told == said


def test_a_file_alone() -> None:
    """
    A message may be a file and nothing else; its kind may be told by the data URL alone.
    """
    text = respond(input_file(file_data=encode(b"<p>I ask for leave.", "text/html")))[0].text
    assert text.split("\n")[0].endswith(': file, "file.html", HTML, 1 part]')
    assert chat(part(file_data=encode(make_pdf([LETTER]))))[0].text.split("\n")[1] == LETTER


def test_the_same_file_is_the_same_text() -> None:
    """
    What is sent again makes the same text, so that its conversation is found.
    """
    file = part(filename="a.pdf", file_data=encode(make_pdf([LETTER, "more"])))
    assert chat(file) == chat(file)


@pytest.mark.parametrize(
    ("file", "name", "says"),
    [
        ({"file_id": "file-1"}, "file_id", "no file is kept here: send file_data"),
        ({"file_url": "http://192.0.2.1/a.pdf"}, "file_url", "nothing is fetched here"),
        ({}, "file_data", "is missing"),
        ({"filename": "a.txt"}, "file_data", "is missing"),
        ({"file_data": ""}, "file_data", "is no base64"),
        ({"file_data": "a b"}, "file_data", "is no base64"),
        ({"file_data": "data:text/plain,hello"}, "file_data", "is no base64"),
        ({"file_data": "data:;base64"}, "file_data", "is no base64"),
        ({"file_data": "data:" + "x" * 500_000}, "file_data", "is no base64"),
        ({"file_data": encode(b"%PDF-1.7")}, "file_data", "cannot be read: it is damaged"),
        ({"file_data": encode(b"\x89PNG")}, "file_data", "a picture"),
    ],
)
def test_refused_by_name(file: dict[str, object], name: str, says: str) -> None:
    """
    What is not served is refused by its name, with the cause and what to do.
    """
    for ask, made, place in (
        (chat, part(**file), "messages[0].content[0].file"),
        (respond, input_file(**file), "input[0].content[0]"),
    ):
        with pytest.raises(RequestError) as refused:
            ask(made)
        assert refused.value.parameter == f"{place}.{name}"
        assert says in str(refused.value)


def test_files_are_a_users() -> None:
    """
    Only a user's message has files.
    """
    file = encode(b"a")
    for ask, made in ((chat, part(file_data=file)), (respond, input_file(file_data=file))):
        for role in ("system", "assistant"):
            with pytest.raises(RequestError, match="user's"):
                ask(made, role=role)


def test_too_many_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A message has so many files at most, and none is read before they are counted.
    """
    monkeypatch.setattr(files_module, "read_document", None)
    with pytest.raises(RequestError, match="20 files at most"):
        chat(*[part(file_data=encode(b"a"))] * 21)


def test_too_many_files_of_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    So has a request, in however many messages, and none is read before they are counted.
    """
    monkeypatch.setattr(files_module, "read_document", None)
    file = encode(b"a")
    chats = [{"role": "user", "content": [part(file_data=file)]}] * 65
    with pytest.raises(RequestError, match="messages: a request has 64 files at most"):
        parse_chat(json.dumps({"model": "m", "messages": chats}).encode(), Options())
    items = [{"role": "user", "content": [input_file(file_data=file)]}] * 65
    with pytest.raises(RequestError, match="input: a request has 64 files at most"):
        parse_body(json.dumps({"model": "m", "input": items}).encode())


@pytest.mark.parametrize("name", [rb"file_data", rb"file\u005fdata", rb"\u0066ile_data"])
def test_files_are_read_beside_other_requests(name: bytes) -> None:
    """
    However their name is written in JSON, the thread that serves all others reads none.
    """

    async def find_thread(body: bytes) -> int:
        return await parse_aside(lambda _: threading.get_ident(), body)

    here = threading.get_ident()
    assert asyncio.run(find_thread(b'{"%s": "YQ=="}' % name)) != here
    assert asyncio.run(find_thread(rb'{"content": "\u003cdata\u003e"}')) == here


def test_room_for_a_file() -> None:
    """
    A request has room for one file of the largest size.
    """
    encoded = len(base64.b64encode(bytes(MAX_FILE_BYTES)))
    assert encoded <= files_module.MAX_ENCODED_BYTES
