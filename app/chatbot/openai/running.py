"""
Running answers: a thread takes them from their sessions, and an endpoint awaits their parts.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from starlette.requests import Request

from app.chatbot.openai.conversations import Conversations
from app.chatbot.reading.parts import Part
from app.chatbot.session.exchange import Answer, Evidence
from app.protocol.errors import UnsupportedError
from app.protocol.question import FIELDS, Question

# What may be left out where a model cannot honour it: tools that may be called and need not, with
# what belongs to them; the order not to think.
_UNUSED_HEADER: Final = "x-not-in-the-prompt"
_TOOLS: Final = FIELDS.index("tools")
_WITH_TOOLS: Final = frozenset(map(FIELDS.index, ("tools", "tool_choice", "tool_calls")))
_THINKING: Final = FIELDS.index("thinking")


class Running:
    """
    The answers to questions, one question after the other, for whoever awaits their parts.

    A thread takes them from their sessions. The index of a part counts on from one question to the
    next.

    Attributes:
        left_out: Parameters that the model has not seen and that nobody insists on.
    """

    def __init__(
        self, conversations: Conversations, *questions: Question, threads: ThreadPoolExecutor
    ) -> None:
        self._conversations = conversations
        self._questions = questions
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Part | None] = asyncio.Queue()
        self._stopped = False
        self._answer: Answer | None = None
        self._evidence: list[Evidence] = []
        self.left_out: tuple[str, ...] = ()
        self._work = self._loop.run_in_executor(threads, self._run)
        self._work.add_done_callback(_retrieve)  # what it raises once nobody waits is not news

    def stop(self) -> None:
        """Stop the answer, if it is not over."""
        self._stopped = True
        if self._answer is not None:
            self._answer.stop()

    async def parts(self) -> AsyncIterator[Part]:
        """
        Give the answers' parts as they come; leaving off stops them.

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
        return enclave.manifest.model if enclave else self._conversations.model

    def evidence(self) -> tuple[Evidence, ...]:
        """Give what can be said of the answers to each question, once their parts have ended."""
        assert len(self._evidence) == len(self._questions)  # noqa: S101 - the work did not raise
        return tuple(self._evidence)

    def _run(self) -> None:
        try:
            first = 0
            for question in self._questions:
                self._ask(question, first)
                first += question.options.n
        finally:
            self._put(None)

    def _ask(self, question: Question, first: int) -> None:
        """Ask *question*; once more, with less, where that is what can be honoured."""
        with self._conversations.take(question) as session:
            try:
                self._take(session.ask_question(question), first)
            except UnsupportedError as error:
                honoured, self.left_out = _leave_out(question, error)
                if not self.left_out:
                    raise
                self._take(session.ask_question(honoured), first)

    def _take(self, answer: Answer, first: int) -> None:
        self._answer = answer
        if self._stopped:
            answer.stop()
        for part in answer.parts():
            self._put(replace(part, index=part.index + first))
        if answer.evidence is not None:
            self._evidence.append(answer.evidence)

    def _put(self, part: Part | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, part)


def _leave_out(question: Question, error: UnsupportedError) -> tuple[Question, tuple[str, ...]]:
    """Give *question* without what cannot be honoured, and what that is; none if it has to be."""
    options = question.options
    numbers, left_out = set(error.numbers), []
    if _TOOLS in numbers and options.tool_choice in {"auto", "none"}:
        options = replace(options, tools=None, tool_choice="auto", tool_calls="many")
        numbers -= _WITH_TOOLS
        left_out.append("tools")
    if _THINKING in numbers and options.thinking == "off":
        options = replace(options, thinking="auto")
        numbers -= {_THINKING}
        left_out.append("reasoning_effort")
    return replace(question, options=options), () if numbers else tuple(left_out)


def _retrieve(work: "asyncio.Future[None]") -> None:
    if not work.cancelled():
        work.exception()


def unused_header(running: Running) -> dict[str, str]:
    """Give the header that names what the model has not seen of a request, if there is such."""
    return {_UNUSED_HEADER: ", ".join(running.left_out)} if running.left_out else {}


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
