"""
A visit: one opening of the page, with its session and the answer under way.

It lasts as long as the page listens to it. Until the enclave is verified it has no session, and so
nothing it could ask with.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Final, Literal

from app.chatbot.documents.frame import compose
from app.chatbot.documents.reader import READING
from app.chatbot.evidence.finding import Json, find_doubted, find_refused, find_verified
from app.chatbot.session.exchange import Answer
from app.chatbot.session.session import Session
from app.chatbot.web.files import Files, name_files, offer_pages
from app.chatbot.web.news import Telling, describe_failure
from app.protocol.errors import AppError, BusyError, ProtocolError, UnavailableError
from app.protocol.question import Options

_ANY: Final = 2**63  # tokens, while nobody knows how many there may be
_BEAT_SECONDS: Final = 2.0  # so that a page that has gone is missed, and no browser gives up

Ending = Literal["replaced", "ended", "failed"]


class Visit:
    """
    What the page does, one thing at a time.

    Args:
        open_session: Verifies the enclave and gives a session with it, or raises.

        options: What shapes every answer.

        suggestions: Questions to begin with.
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
        self._events: asyncio.Queue[Json] = asyncio.Queue()
        self._turn = asyncio.Lock()  # of the page's commands
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = False
        self._files = Files()
        self._reading = asyncio.Lock()  # of files, which goes on beside an answer

    async def listen(self) -> AsyncIterator[Json]:
        """
        Verify the enclave, and tell what comes of that and of each command, until `end`.

        The last event is `closed`. Whoever stops listening ends the answer and the session.
        """
        self.do({"do": "verify"})
        event: Json = {}
        try:
            while event.get("type") != "closed":
                event = await self._next()
                yield event
        finally:
            self._leave()

    def do(self, command: Json) -> None:
        """
        Begin what the page commands; `listen` tells what comes of it.

        Raises:
            ProtocolError: There is no such command, or a file is not as a page sends it.
        """
        match command:
            case {"do": "prove"}:  # that this is the program: whoever replies has shown it
                pass
            case {"do": "stop"}:
                self._stop()
            case {"do": "verify"}:
                self._begin(self._verify())
            case {"do": "new"}:
                self._begin(self._start_anew())
            case {"do": "upload", "file": int(number), "data": str(piece)}:
                self._files.take(number, piece)
            case {"do": "read", "file": int(number), "name": str(name), "pages": str(pages)}:
                self._begin(self._read(number, name, pages), self._reading)
            case {"do": "remove", "file": int(number)}:
                self._begin(self._remove(number), self._reading)
            case {"do": "ask", "text": str(text)}:
                self._begin(self._ask(text))
            case _:
                raise ProtocolError("the page commands what this program does not know")

    def end(self, why: Ending) -> None:
        """Tell the page *why* it may do nothing more; in the thread that listens."""
        self._stop()
        self._events.put_nowait({"type": "closed", "why": why})

    def _begin(self, work: Coroutine[None, None, None], turn: asyncio.Lock | None = None) -> None:
        task = asyncio.create_task(self._take_turn(work, turn or self._turn))
        self._tasks.add(task)
        task.add_done_callback(self._finish)

    async def _take_turn(self, work: Coroutine[None, None, None], turn: asyncio.Lock) -> None:
        async with turn:
            await work

    def _finish(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception():  # a fault of this program: nobody goes on
            self.end("failed")

    async def _verify(self) -> None:
        self._tell({"type": "verifying"})
        self._tell(await asyncio.to_thread(self._reopen))

    async def _start_anew(self) -> None:
        await asyncio.to_thread(self._forget)
        self._tell({"type": "begun"})

    async def _ask(self, text: str) -> None:
        async with self._reading:
            files = self._files.documents
        documents = list(files.values())
        asked: Json = {"question": text, "files": name_files(documents), "given": list(files)}
        self._tell({"type": "asked", **asked})
        session = self._session
        if session is None:
            self._tell(describe_failure(BusyError("the enclave is not verified yet")))
            return
        shown = compose(documents, text)
        self._answer = answer = session.ask(shown, self._options)
        telling = Telling(answer, shown, self._options.padding)
        enclave = session.enclave
        async for event in telling.follow(lambda: self._use(telling.drive)):
            anew = session.doubted or session.enclave is not enclave
            found = _find(session) if anew and event["type"] != "news" else {}
            if event["type"] == "whole":
                for number in files:
                    self._files.remove(number)
            self._tell(found | event | offer_pages(documents, telling.error))

    async def _read(self, number: int, name: str, pages: str) -> None:
        context_tokens = self._session.enclave.manifest.context_tokens if self._session else _ANY
        read = partial(self._files.read, number, name, pages, context_tokens)
        self._tell(await asyncio.get_running_loop().run_in_executor(READING, read))

    async def _remove(self, number: int) -> None:
        self._files.remove(number)

    async def _next(self) -> Json:
        try:
            return await asyncio.wait_for(self._events.get(), _BEAT_SECONDS)
        except TimeoutError:
            return {"type": "beat"}

    def _tell(self, event: Json) -> None:
        self._events.put_nowait(event)

    def _reopen(self) -> Json:
        with self._using:
            self._end_session()
            try:
                if self._left:
                    raise UnavailableError("the page has gone")
                self._session = self._open_session()
            except AppError as error:
                return {"type": "finding", "finding": find_refused(error)}
            finding = find_verified(self._session)
        return {"type": "finding", "finding": finding, "suggestions": self._suggestions}

    def _forget(self) -> None:
        with self._using:
            if self._session:
                self._session.new_conversation()

    def _use(self, drive: Callable[[], None]) -> None:
        with self._using:
            drive()

    def _stop(self) -> None:
        if self._answer:
            self._answer.stop()

    def _leave(self) -> None:
        """Stop all work, and end the session once the thread that uses it has noticed."""
        self._left = True
        self._stop()
        self._files.clear()
        asyncio.get_running_loop().run_in_executor(None, self._close)

    def _close(self) -> None:
        with self._using:
            self._end_session()

    def _end_session(self) -> None:
        if self._session:
            self._session.close()
        self._session = None


def _find(session: Session) -> Json:
    return {"finding": find_doubted() if session.doubted else find_verified(session)}
