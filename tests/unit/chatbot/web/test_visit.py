import asyncio
import base64
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import pytest

from app.chatbot.documents.document import Document, Page
from app.chatbot.evidence.finding import Json
from app.chatbot.reading.parts import Part, Text
from app.chatbot.session.exchange import Answer, Exchange
from app.chatbot.session.session import Session
from app.chatbot.web import files as files_module
from app.chatbot.web import visit as visit_module
from app.chatbot.web.visit import Visit
from app.protocol.errors import ProtocolError, UnavailableError
from app.protocol.question import Options


@dataclass
class FakeSession:
    """As much of a session as a visit touches."""

    raised: Exception | None = None
    asked: list[str] = field(default_factory=list)
    closed: bool = False
    doubted: bool = False
    enclave: object = field(
        default_factory=lambda: SimpleNamespace(manifest=SimpleNamespace(context_tokens=8192))
    )

    def ask(self, text: str, options: Options) -> Answer:
        del options

        def parts() -> Generator[Part]:
            self.asked.append(text)
            if self.raised:
                raise self.raised
            yield Text("sent")

        return Answer(parts(), Exchange(time.monotonic()))

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tell of a fake session only whether it is doubted."""
    monkeypatch.setattr(visit_module, "find_verified", lambda _: {"verified": True})


def hear(visit: Visit, *commands: Json) -> list[Json]:
    """Listen to *visit*, sending the commands once it is verified, until nothing more comes."""

    async def listen() -> list[Json]:
        heard = []
        async for event in visit.listen():
            if event["type"] == "finding":
                for command in commands:
                    visit.do(command)
            if event["type"] == "beat":
                visit.end("ended")
            elif event["type"] != "news":
                heard.append(event)
        return heard

    return asyncio.run(listen())


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(visit_module, "_BEAT_SECONDS", 0.1)


def open_session(session: FakeSession) -> Callable[[], Session]:
    return lambda: cast("Session", session)


def test_a_visit_verifies_and_ends_its_session() -> None:
    """It verifies as it is listened to; the last event says that it is closed."""
    session = FakeSession()
    heard = hear(Visit(open_session(session), Options()))
    assert [event["type"] for event in heard] == ["verifying", "finding", "closed"]
    assert session.closed


def test_commands_take_turns() -> None:
    """Two questions at once are asked one after the other, each with its own end."""
    session = FakeSession()
    ask: tuple[Json, ...] = ({"do": "ask", "text": "One?"}, {"do": "ask", "text": "Two?"})
    heard = hear(Visit(open_session(session), Options()), *ask)
    told = [event["type"] for event in heard[2:]]
    assert told == ["asked", "failed", "asked", "failed", "closed"]  # no receipt: not whole
    assert session.asked == ["One?", "Two?"]


def test_a_question_shows_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A file is read before the question that comes after it is asked, and goes with it.
    """
    letter = Document("letter.txt", "text", (Page(1, "I ask for leave."),), 1, 1)
    monkeypatch.setattr(files_module, "read_document", lambda *_: letter)
    session = FakeSession()
    piece = base64.b64encode(b"I ask for leave.").decode()
    heard = hear(
        Visit(open_session(session), Options()),
        {"do": "upload", "file": 1, "data": piece},
        {"do": "read", "file": 1, "name": "letter.txt", "pages": ""},
        {"do": "ask", "text": "Who asks?"},
        {"do": "remove", "file": 1},
        {"do": "ask", "text": "Who?"},
    )
    read, asked = heard[2], heard[3]
    assert (read["type"], read["says"]) == ("read", "text, 1 part, 16 characters")
    assert asked["question"] == "Who asks?"
    assert asked["files"] == ["letter.txt"]
    with_file, without = session.asked
    assert with_file.startswith("[")
    assert with_file.split("\n")[1] == "I ask for leave."
    assert with_file.endswith("\n\nWho asks?")
    assert without == "Who?"


def test_readings_of_a_page_that_has_gone_hold_up_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another page is verified while a file of one that has gone is read; its next is not begun.
    """
    begun: list[str] = []
    goes_on = threading.Event()

    def read(name: str, *_: object) -> Document:
        begun.append(name)
        goes_on.wait(10)
        return Document(name, "text", (Page(1, "text"),), 1, 1)

    monkeypatch.setattr(files_module, "read_document", read)

    async def reload() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        gone = Visit(open_session(FakeSession()), Options())
        events = gone.listen()
        async for event in events:
            for number in (1, 2) if event["type"] == "finding" else ():
                gone.do({"do": "upload", "file": number, "data": ""})
                gone.do({"do": "read", "file": number, "name": f"{number}.txt", "pages": ""})
            if begun:
                break
        await events.aclose()  # type: ignore[attr-defined]
        async for event in Visit(open_session(FakeSession()), Options()).listen():
            if event["type"] == "finding":
                break
        assert not goes_on.is_set()
        goes_on.set()
        await asyncio.gather(*gone._tasks)

    asyncio.run(asyncio.wait_for(reload(), 5))
    assert begun == ["1.txt"]


def test_what_a_doubted_session_was_is_not_called_verified() -> None:
    """Where something casts doubt on the enclave, what is found with the failure says so."""
    session = FakeSession(raised=UnavailableError("nobody answers"), doubted=True)
    heard = hear(Visit(open_session(session), Options()), {"do": "ask", "text": "Who reads this?"})
    finding = heard[-2]["finding"]
    assert isinstance(finding, dict)
    assert finding["verified"] is False
    assert finding["mark"] == "Not verified"


def test_a_question_without_a_session_is_not_sent() -> None:
    """An enclave that is not verified is not asked, whatever the page commands."""

    def nobody() -> Session:
        raise UnavailableError("nobody is there")

    heard = hear(Visit(nobody, Options()), {"do": "ask", "text": "Who reads this?"})
    assert [event["type"] for event in heard[2:]] == ["asked", "failed", "closed"]


def test_a_fault_of_the_program_closes_the_page() -> None:
    """What nothing foresees leaves no page waiting."""
    session = FakeSession(raised=RuntimeError("a fault"))
    heard = hear(Visit(open_session(session), Options()), {"do": "ask", "text": "Who reads this?"})
    assert heard[-1] == {"type": "closed", "why": "failed"}


def test_a_page_that_leaves_while_it_is_verified_leaves_no_session() -> None:
    """A session that is made after the page has gone is never kept."""
    session = FakeSession()

    async def leave() -> None:
        visit = Visit(open_session(session), Options())
        events = visit.listen()
        async for event in events:
            if event["type"] == "verifying":
                break
        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0.2)
        assert visit._session is None

    asyncio.run(leave())


@pytest.mark.parametrize("command", [{}, {"do": "open"}, {"do": "ask"}, {"do": "ask", "text": 1}])
def test_other_commands_are_refused(command: Json) -> None:
    with pytest.raises(ProtocolError):
        Visit(open_session(FakeSession()), Options()).do(command)
