"""
The OpenAI-compatible API: what any client of OpenAI's talks to, and an enclave answers.

It is an ASGI application for `local_http`. Verification is the session's: an answer to a client
begins only when a verified enclave's has, and ends well only when its receipt verifies.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.chatbot.local_http import bearer, is_token, read_body
from app.chatbot.openai.conversations import MAX_SESSIONS, Conversations
from app.chatbot.openai.request import Asked, RequestError, parse_chat, parse_completion
from app.chatbot.openai.response import (
    Endpoint,
    Limit,
    Shape,
    describe_model,
    error_body,
    fail,
)
from app.chatbot.session.exchange import Answer, Evidence
from app.protocol.errors import AppError, TooLongError
from app.protocol.question import Options

# JSON may write each byte of a text in six; the enclave's own limit says what is too long.
_MAX_BODY_BYTES: Final = 2 * 1024 * 1024
# More than there are sessions, so that one that finds none is told so instead of queued.
_THREADS: Final = 4 * MAX_SESSIONS
_COMPLETIONS: Final = "/v1/completions"
_UNUSED_HEADER: Final = "x-not-in-the-prompt"
_CODES: Final = {404: "unknown_url", 405: "method_not_allowed", 413: "request_too_large"}
_PARSERS: Final[dict[Endpoint, Callable[[bytes, Options], Asked]]] = {
    "chat": parse_chat,
    "completion": parse_completion,
}


def make_application(
    conversations: Conversations, *, token: str, defaults: Options | None = None
) -> ASGIApp:
    """
    Make the application.

    Args:
        token: What every request has to bear.

        defaults: Of what a request leaves out.
    """
    server = _Server(conversations, defaults or Options())
    routes = [
        Route("/v1/models", server.list_models, methods=["GET"]),
        Route("/v1/models/{name:path}", server.show_model, methods=["GET"]),
        Route("/v1/chat/completions", server.chat, methods=["POST"]),
        Route(_COMPLETIONS, server.complete, methods=["POST"]),
    ]
    handlers: dict[object, Callable[..., object]] = {
        AppError: server.answer_error,
        RequestError: server.answer_error,
        HTTPException: _answer_http,
        Exception: _answer_fault,
    }
    return _RequireToken(Starlette(routes=routes, exception_handlers=handlers), token)  # type: ignore[arg-type]


class _NoModelError(HTTPException):
    """A request names a model that is not served here."""


class _RequireToken:
    """ASGI around an application: a bearer token with everything, paths with or without a slash."""

    def __init__(self, application: ASGIApp, token: str) -> None:
        self._application = application
        self._token = token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if is_token(bearer(Headers(scope=scope)), self._token):
            path = scope["path"].rstrip("/") or "/"
            return await self._application({**scope, "path": path}, receive, send)
        message = "no valid token: give the one that was printed at the start as the API key"
        body = error_body(message, "invalid_request_error", "invalid_api_key")
        refusal = JSONResponse(body, 401, {"www-authenticate": "Bearer"})
        return await refusal(scope, receive, send)


class _Server:
    """The endpoints."""

    def __init__(self, conversations: Conversations, defaults: Options) -> None:
        self._conversations = conversations
        self._defaults = defaults
        self._created = int(time.time())
        self._threads = ThreadPoolExecutor(_THREADS, "answer")

    async def list_models(self, _: Request) -> Response:
        """Answer `GET /v1/models`."""
        model = describe_model(self._conversations.model, self._created)
        return JSONResponse({"object": "list", "data": [model]})

    async def show_model(self, request: Request) -> Response:
        """Answer `GET /v1/models/…`."""
        self._require_model(request.path_params["name"])
        return JSONResponse(describe_model(self._conversations.model, self._created))

    async def chat(self, request: Request) -> Response:
        """Answer `POST /v1/chat/completions`."""
        return await self._answer(request, "chat")

    async def complete(self, request: Request) -> Response:
        """Answer `POST /v1/completions`."""
        return await self._answer(request, "completion")

    async def _answer(self, request: Request, endpoint: Endpoint) -> Response:
        asked = _PARSERS[endpoint](await _read(request), self._defaults)
        self._require_model(asked.model)
        shape = Shape(endpoint, asked.model, self._limit(endpoint), asked.include_usage)
        unused = {_UNUSED_HEADER: ", ".join(asked.unused)} if asked.unused else {}
        running = _Running(self._conversations, asked, self._threads)
        pieces = running.pieces()
        watch = asyncio.create_task(_stop_when_gone(request, running))
        if not asked.stream:
            async with _ending(watch):
                text = "".join([piece async for piece in pieces])
            shape = replace(shape, model=running.model)
            return JSONResponse(shape.whole(text, running.evidence()), headers=unused)
        try:
            first = await anext(pieces, "")  # what fails so early has a status of its own
        except BaseException:
            watch.cancel()
            raise
        return StreamingResponse(
            _events(replace(shape, model=running.model), first, pieces, running, watch),
            headers={"cache-control": "no-store", **unused},
            media_type="text/event-stream",
        )

    async def answer_error(self, request: Request, error: AppError | RequestError) -> Response:
        """Answer what is raised on purpose."""
        completion = request.url.path == _COMPLETIONS
        failure = fail(error, self._limit("completion" if completion else "chat"))
        return JSONResponse(failure.body, failure.status, failure.headers)

    def _limit(self, endpoint: Endpoint) -> Limit:
        context_tokens = self._conversations.context_tokens
        return Limit("prompt" if endpoint == "completion" else "messages", context_tokens)

    def _require_model(self, name: str) -> None:
        if name != self._conversations.model:
            raise _NoModelError(404, f"the model {name} is not served here, see /v1/models")


class _Running:
    """One answer that a thread takes from its session, for whoever awaits its pieces."""

    def __init__(
        self, conversations: Conversations, asked: Asked, threads: ThreadPoolExecutor
    ) -> None:
        self._conversations = conversations
        self._asked = asked
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[str | None] = asyncio.Queue()
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

    async def pieces(self) -> AsyncIterator[str]:
        """
        Give the answer's pieces as they come; leaving off stops it.

        Raises:
            AppError: As `Session.ask`.
        """
        try:
            while (piece := await self._queue.get()) is not None:
                yield piece
            await self._work
        finally:
            self.stop()

    @property
    def model(self) -> str:
        """The model's name, as the enclave that is asked attested it."""
        enclave = self._answer.enclave if self._answer else None
        return enclave.manifest.model if enclave else self._asked.model

    def evidence(self) -> Evidence:
        """Give what can be said of the answer, once its pieces have come to their end."""
        assert self._evidence is not None  # noqa: S101 - the work ended without raising
        return self._evidence

    def _run(self) -> None:
        try:
            with self._conversations.take(self._asked.history) as session:
                self._answer = session.ask(self._asked.text, self._asked.options)
                if self._stopped:
                    self._answer.stop()
                for piece in self._answer:
                    self._put(piece)
                self._evidence = self._answer.evidence
        finally:
            self._put(None)

    def _put(self, piece: str | None) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._queue.put_nowait, piece)


def _retrieve(work: "asyncio.Future[None]") -> None:
    if not work.cancelled():
        work.exception()


async def _events(
    shape: Shape,
    first: str,
    pieces: AsyncIterator[str],
    running: _Running,
    watch: "asyncio.Task[None]",
) -> AsyncIterator[str]:
    """Give the events of a stream; one that fails ends with an error, and without its end."""
    async with _ending(watch):
        try:
            yield shape.first()
            if first:
                yield shape.piece(first)
            async for piece in pieces:
                yield shape.piece(piece)
            yield shape.last(running.evidence())
        except AppError as error:
            yield shape.failed(error)
        finally:
            running.stop()


@asynccontextmanager
async def _ending(task: "asyncio.Task[None]") -> AsyncIterator[None]:
    try:
        yield
    finally:
        task.cancel()


async def _read(request: Request) -> bytes:
    try:
        return await read_body(request, _MAX_BODY_BYTES)
    except TooLongError as error:
        raise HTTPException(413, str(error)) from None


async def _stop_when_gone(request: Request, running: _Running) -> None:
    """Stop the answer when its client hangs up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    running.stop()


def _answer_http(_: Request, error: HTTPException) -> Response:
    code = "model_not_found" if isinstance(error, _NoModelError) else _CODES.get(error.status_code)
    body = error_body(error.detail, "invalid_request_error", code)
    return JSONResponse(body, error.status_code, error.headers)


def _answer_fault(_: Request, __: Exception) -> Response:
    """Answer what nobody has foreseen, without what it says, which may quote a question."""
    body = error_body("bin/chat serve failed; please report it", "server_error", "internal")
    return JSONResponse(body, 500)
