"""
The library for asyncio.

Everything waits in a thread, one for each answer under way. Whoever is cancelled while an answer
comes stops it, wherever it is, and goes on once its thread has let go of it.
"""

import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import boto3
from anyio import CancelScope, CapacityLimiter, get_cancelled_exc_class, to_thread

from app.chatbot.config import ChatbotConfig
from app.chatbot.documents.document import Document
from app.chatbot.evidence.proof import Step
from app.chatbot.library.form import Form
from app.chatbot.library.opening import connect
from app.chatbot.library.session import Session
from app.chatbot.library.tools import Tools
from app.chatbot.reading.parts import Part
from app.chatbot.session.exchange import Answer, Evidence, Seen, State
from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.question import Message, Options, ToolCall

_Value = TypeVar("_Value")


@asynccontextmanager
async def connect_async(
    config: ChatbotConfig | Path | None = None,
    *,
    releases: Path | None = None,
    aws: boto3.Session | None = None,
) -> AsyncIterator["AsyncSession"]:
    """
    Verify the enclave as `connect` does, and give a session with it while the block runs.

    Raises:
        AppError: As `connect`.
    """
    opening = partial(connect, config, releases=releases, aws=aws)
    session = await to_thread.run_sync(opening, limiter=CapacityLimiter(1))
    async with AsyncSession(session) as opened:
        yield opened


class AsyncAnswer:
    """
    One answer as it comes; made by `AsyncSession.ask`. Iterate over it for its text.

    It is what `Answer` is. Whoever leaves the iteration early calls `aclose`.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._parts = answer.parts()
        self._lock = threading.Lock()  # held by the thread that waits for a piece

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> str:
        """Give the next piece of text."""
        piece = await self._take(self._answer)
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def parts(self) -> AsyncIterator[Part]:
        """Give all parts of all answers as they come."""
        while (part := await self._take(self._parts)) is not None:
            yield part

    async def aclose(self) -> None:
        """End the answer, where it has not ended."""
        self.stop()
        with CancelScope(shield=True):
            await _wait(self._end)

    def stop(self) -> None:
        """Stop the answer: who iterates gets `TruncatedError`, at once."""
        self._answer.stop()

    @property
    def text(self) -> str:
        """What has come of its text so far."""
        return self._answer.text

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools that it has made so far."""
        return self._answer.calls

    @property
    def state(self) -> State:
        """How far it has come."""
        return self._answer.state

    @property
    def place(self) -> int | None:
        """Its place among those that wait, 0 once it has begun, None where nothing was told."""
        return self._answer.place

    @property
    def seconds(self) -> float:
        """How long it has been under way, since it was asked for."""
        return self._answer.seconds

    @property
    def stopped(self) -> bool:
        """Whether somebody had it stopped."""
        return self._answer.stopped

    @property
    def seen(self) -> Seen:
        """What the parent saw of it so far."""
        return self._answer.seen

    @property
    def enclave(self) -> VerifiedEnclave | None:
        """The enclave that it was sealed to; None before one was verified for it."""
        return self._answer.enclave

    @property
    def evidence(self) -> Evidence | None:
        """What can be said of it once it is whole; None before."""
        return self._answer.evidence

    async def _take(self, source: Iterator[_Value]) -> _Value | None:
        try:
            return await _wait(partial(self._next, source))
        except get_cancelled_exc_class():
            await self.aclose()
            raise

    def _next(self, source: Iterator[_Value]) -> _Value | None:
        with self._lock:
            return next(source, None)

    def _end(self) -> None:
        with self._lock:
            self._answer.close()


class AsyncSession:
    """
    `Session` for asyncio: a verified enclave, and one conversation with it.

    For one task and one question at a time. A context manager, which closes it.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._session.close()

    def ask(
        self,
        text: str,
        options: Options | None = None,
        *,
        tools: Tools | None = None,
        documents: Sequence[Document] = (),
    ) -> AsyncAnswer:
        """
        Ask *text*, and give the answer, which raises as that of `Session.ask` does.

        Nothing is sent before the first piece is asked for.
        """
        return AsyncAnswer(self._session.ask(text, options, tools=tools, documents=documents))

    def give(self, results: Mapping[ToolCall, str]) -> AsyncAnswer:
        """Give the results of the calls that the last answer made, as `Session.give` does."""
        return AsyncAnswer(self._session.give(results))

    async def fill(
        self,
        form: type[_Value],
        text: str,
        options: Options | None = None,
        *,
        documents: Sequence[Document] = (),
    ) -> _Value:
        """
        Ask *text*, have the answer be of *form*, and give it as that.

        Raises:
            AppError: As `Session.fill`.
        """
        wanted = Form(form)
        shaped = wanted.shape(options or Options())
        answer = self._session.ask(text, shaped, documents=documents)
        async for _ in AsyncAnswer(answer):
            pass
        return wanted.read(answer)

    def new_conversation(self, history: tuple[Message, ...] = ()) -> None:
        """Forget the conversation so far and begin another, after *history*, with its own keys."""
        self._session.new_conversation(history)

    @property
    def history(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return self._session.history

    @property
    def enclave(self) -> VerifiedEnclave:
        """The enclave as it was last verified."""
        return self._session.enclave

    def prove(self) -> tuple[Step, ...]:
        """Give the steps by which the enclave was last verified, in words and with raw values."""
        return self._session.prove()

    async def aclose(self) -> None:
        """Close the connections; whoever asks afterwards gets an error, and sends nothing."""
        self._session.close()


async def _wait(step: Callable[[], _Value]) -> _Value:
    """Do *step* in a thread of its own; it goes on if whoever waits is cancelled."""
    return await to_thread.run_sync(step, abandon_on_cancel=True, limiter=CapacityLimiter(1))
