import time
from collections.abc import Generator
from typing import cast

from app.chatbot.library.asynchronous import AsyncAnswer, AsyncSession
from app.chatbot.library.session import Session
from app.chatbot.reading.parts import Part, Text
from app.chatbot.session import session as verified
from app.chatbot.session.exchange import Answer, Exchange


def public(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


def parts() -> Generator[Part]:
    yield Text("Yes.")


def test_an_answer_has_for_asyncio_what_it_has_without() -> None:
    """`AsyncAnswer` has the public names of `Answer`, but for those that make it a generator."""
    answer = Answer(parts(), Exchange(time.monotonic()))
    for_asyncio = AsyncAnswer(answer)
    assert public(for_asyncio) - {"aclose"} == public(answer) - {"send", "throw", "close"}
    assert for_asyncio.seen is answer.seen
    assert for_asyncio.enclave is None
    assert not for_asyncio.stopped
    assert 0 <= for_asyncio.seconds < 60
    for_asyncio.stop()
    assert for_asyncio.stopped


def test_a_session_has_for_asyncio_what_it_has_without() -> None:
    """`AsyncSession` has the public names of `Session`; it is closed by `aclose`."""
    session = Session(cast("verified.Session", None))
    assert public(AsyncSession(session)) - {"aclose"} == public(session) - {"close"}
