"""
A running answer: a thread takes it from its session, and an endpoint awaits its parts.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from starlette.requests import Request

from app.chatbot.openai.conversations import Conversations
from app.chatbot.openai.request import Asked
from app.chatbot.reading.parts import Part, Text
from app.chatbot.session.exchange import Answer, Evidence


class Running:
    """One answer that a thread takes from its session, for whoever awaits its parts."""

    def __init__(
        self, conversations: Conversations, asked: Asked, threads: ThreadPoolExecutor
    ) -> None:
        self._conversations = conversations
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Part | None] = asyncio.Queue()
        self._stopped = False
        self._answer: Answer | None = None
        self._evidence: Evidence | None = None
        self._work = self._loop.run_in_executor(threads, self._run)
        self._work.add_done_callback(_retrieve)  # what it raises once nobody waits is not news

    def stop(self) -> None:
        """Stop the answer, if it is not over."""
        self._stopped = True
        if self._answer is not None:
            self._answer.stop()

    async def parts(self) -> AsyncIterator[Part]:
        """
        Give the answer's parts as they come; leaving off stops it.

        Raises:
            AppError: As `Session.ask`.
        """
        try:
            while (part := await self._queue.get()) is not None:
                yield part
            await self._work
        finally:
            self.stop()

    @property
    def model(self) -> str:
        """The model's name, as the enclave that is asked attested it."""
        enclave = self._answer.enclave if self._answer else None
        return enclave.manifest.model if enclave else self._asked.model

    def evidence(self) -> Evidence:
        """Give what can be said of the answer, once its parts have come to their end."""
        assert self._evidence is not None  # noqa: S101 - the work ended without raising
        return self._evidence

    def _run(self) -> None:
        try:
            with self._conversations.take(self._asked.history) as session:
                self._answer = session.ask(self._asked.text, self._asked.options)
                if self._stopped:
                    self._answer.stop()
                for piece in self._answer:
                    self._put(Text(piece))
                self._evidence = self._answer.evidence
        finally:
            self._put(None)

    def _put(self, part: Part | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, part)


def _retrieve(work: "asyncio.Future[None]") -> None:
    if not work.cancelled():
        work.exception()


def watch(request: Request, running: Running) -> "asyncio.Task[None]":
    """Stop the answer when its client hangs up, until the task that this gives is cancelled."""
    return asyncio.create_task(_stop_when_gone(request, running))


@asynccontextmanager
async def ending(task: "asyncio.Task[None]") -> AsyncIterator[None]:
    """Cancel *task* when the block ends."""
    try:
        yield
    finally:
        task.cancel()


async def _stop_when_gone(request: Request, running: Running) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    running.stop()
