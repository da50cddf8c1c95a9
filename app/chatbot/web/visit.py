"""
A visit: one opening of the page, with its session and the answer under way.

Until the enclave is verified a visit has no session, and so nothing it could ask with.
"""

import asyncio
import secrets
import threading
from collections.abc import AsyncIterator, Callable
from typing import Final

from app.chatbot.evidence.finding import Json, find_refused, find_verified
from app.chatbot.session.exchange import Answer
from app.chatbot.session.session import Session
from app.chatbot.web.news import Telling, describe_failure
from app.protocol.errors import AppError, BusyError
from app.protocol.question import Options

_PAGE_BYTES: Final = 16


class Visit:
    """
    What the page does, one thing at a time.

    Args:
        open_session: Verifies the enclave and gives a session with it, or raises.

        options: What shapes every answer.

        suggestions: Questions to begin with.

    Attributes:
        page: Random; names the opening of the page that may ask, "" where none may.
    """

    def __init__(
        self,
        open_session: Callable[[], Session],
        options: Options,
        suggestions: tuple[str, ...] = (),
    ) -> None:
        self._open_session = open_session
        self._options = options
        self._suggestions = suggestions
        self._session: Session | None = None
        self._answer: Answer | None = None
        self._using = threading.Lock()  # the session, which is for one thread at a time
        self.page = ""

    async def verify(self) -> Json:
        """Verify the enclave, in place of any session before; give the finding either way."""
        self.stop()
        return await asyncio.to_thread(self._verify)

    async def begin(self) -> None:
        """Begin another conversation, with keys of its own."""
        self.stop()
        await asyncio.to_thread(self._begin)

    def stop(self) -> None:
        """Stop the answer that is under way, if any."""
        if self._answer:
            self._answer.stop()

    def close(self) -> None:
        """Stop the answer and end the session."""
        self.stop()
        with self._using:
            self._close()

    async def ask(self, question: str) -> AsyncIterator[Json]:
        """
        Ask, and tell the news; the last event is `whole`, `stopped` or `failed`.

        An enclave that was verified anew meanwhile is told as the answer ends.
        """
        session = self._session
        if session is None or self._using.locked():
            yield describe_failure(BusyError("another question is under way"))
            return
        answer = session.ask(question, self._options)
        telling = Telling(answer, question, self._options.padding)
        self._answer = answer

        def drive() -> None:
            with self._using:
                if self._session is session:
                    telling.drive()
                else:
                    telling.refuse(BusyError("the enclave is verified again, for another page"))

        enclave = session.enclave
        async for event in telling.follow(drive):
            anew = event["type"] != "news" and session.enclave is not enclave
            yield {"found": find_verified(session)} | event if anew else event

    def _verify(self) -> Json:
        with self._using:
            self._close()
            try:
                self._session = self._open_session()
            except AppError as error:
                return find_refused(error)
            self.page = secrets.token_hex(_PAGE_BYTES)
            found = find_verified(self._session)
        return found | {"page": self.page, "suggestions": self._suggestions}

    def _begin(self) -> None:
        with self._using:
            if self._session:
                self._session.new_conversation()

    def _close(self) -> None:
        self.page = ""
        self._answer = None
        if self._session:
            self._session.close()
        self._session = None
