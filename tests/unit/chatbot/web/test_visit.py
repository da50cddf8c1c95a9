import asyncio
import time
from collections.abc import Generator
from typing import cast

from app.chatbot.session.exchange import Answer, Exchange
from app.chatbot.session.session import Session
from app.chatbot.web.visit import Visit
from app.protocol.question import Options


class FakeSession:
    """As much of a session as a visit touches; verifies again when it is asked."""

    def __init__(self, visit: list[Visit]) -> None:
        self.visit = visit
        self.enclave = object()
        self.asked = False

    def ask(self, text: str, options: Options) -> Answer:
        del text, options

        def pieces() -> Generator[str]:
            self.asked = True
            yield "sent"

        self.visit[0]._session = cast("Session", FakeSession(self.visit))
        return Answer(pieces(), Exchange(time.monotonic()))


def test_a_session_that_was_replaced_is_not_asked() -> None:
    """A question that meets another verification under way is not sent with the session before."""
    visits: list[Visit] = []
    session = FakeSession(visits)
    visits.append(Visit(lambda: cast("Session", session), Options()))
    visits[0]._session = cast("Session", session)

    async def ask() -> list[object]:
        return [event["type"] async for event in visits[0].ask("Who reads this?")]

    assert asyncio.run(ask())[-1] == "failed"
    assert not session.asked
