"""
The OpenAI-compatible API: what any client of OpenAI's talks to, and an enclave answers.

It is an ASGI application for `local_http`. Verification is the session's: an answer to a client
begins only when a verified enclave's has, and ends well only when its receipt verifies.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.chatbot.local_http import bearer, is_token
from app.chatbot.name import PROGRAM
from app.chatbot.openai.body import RequestError
from app.chatbot.openai.conversations import MAX_SESSIONS, Conversations
from app.chatbot.openai.http import NotFoundError, parse_aside, read
from app.chatbot.openai.request import Asked, parse_chat, parse_completion
from app.chatbot.openai.response import (
    Endpoint,
    Limit,
    Shape,
    describe_model,
    error_body,
    fail,
)
from app.chatbot.openai.responses.endpoints import PATH, Responses
from app.chatbot.openai.running import Running, ending, unused_header, watch
from app.chatbot.reading.parts import Part
from app.protocol.errors import AppError
from app.protocol.question import Options

_MAX_NAME: Final = 64  # characters of a name that is told back
# More than there are sessions, so that one that finds none is told so instead of queued.
_THREADS: Final = 4 * MAX_SESSIONS
_COMPLETIONS: Final = "/v1/completions"
_NOT_SERVED: Final = (
    "this is not served here; GET /v1/models and POST /v1/chat/completions, /v1/completions and "
    "/v1/responses are, for text and files of text"
)
_CODES: Final = {404: "unknown_url", 405: "method_not_allowed", 413: "request_too_large"}
_PARSERS: Final[dict[Endpoint, Callable[..., Asked]]] = {
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
        *server.responses.routes,
    ]
    handlers: dict[object, Callable[..., object]] = {
        AppError: server.answer_error,
        RequestError: server.answer_error,
        HTTPException: _answer_http,
        Exception: _answer_fault,
    }
    return _RequireToken(Starlette(routes=routes, exception_handlers=handlers), token)  # type: ignore[arg-type]


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
        self.responses = Responses(conversations, defaults, self._threads, self._require_model)

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
        asked = await parse_aside(
            partial(_PARSERS[endpoint], defaults=self._defaults), await read(request)
        )
        self._require_model(asked.model)
        shape = Shape(
            endpoint,
            asked.model,
            self._limit(request),
            include_usage=asked.include_usage,
            answers=sum(question.options.n for question in asked.questions),
        )
        running = Running(self._conversations, *asked.questions, threads=self._threads)
        parts = running.parts()
        watching = watch(request, running)
        if not asked.stream:
            async with ending(watching):
                async for part in parts:
                    shape.take(part)
            shape.model = running.model
            return JSONResponse(shape.whole(running.evidence()), headers=unused_header(running))
        try:
            first = await anext(parts, None)  # what fails so early has a status of its own
        except BaseException:
            watching.cancel()
            raise
        shape.model = running.model
        return StreamingResponse(
            _events(shape, first, parts, running, watching),
            headers={"cache-control": "no-store", **unused_header(running)},
            media_type="text/event-stream",
        )

    async def answer_error(self, request: Request, error: AppError | RequestError) -> Response:
        """Answer what is raised on purpose."""
        failure = fail(error, self._limit(request))
        return JSONResponse(failure.body, failure.status, failure.headers)

    def _limit(self, request: Request) -> Limit:
        if request.url.path == PATH:
            return self.responses.limit
        parameter = "prompt" if request.url.path == _COMPLETIONS else "messages"
        return Limit(parameter, self._conversations.context_tokens)

    def _require_model(self, name: str) -> None:
        if name != self._conversations.model:
            words = f"the model {name[:_MAX_NAME]} is not served here, see /v1/models"
            raise NotFoundError(words, "model_not_found")


async def _events(
    shape: Shape,
    first: Part | None,
    parts: AsyncIterator[Part],
    running: Running,
    watching: "asyncio.Task[None]",
) -> AsyncIterator[str]:
    """Give the events of a stream; one that fails ends with an error, and without its end."""
    async with ending(watching):
        try:
            yield shape.first()
            if first is not None:
                yield shape.add(first)
            async for part in parts:
                yield shape.add(part)
            yield shape.last(running.evidence())
        except AppError as error:
            yield shape.failed(error)
        finally:
            running.stop()


def _answer_http(_: Request, error: HTTPException) -> Response:
    code = error.code if isinstance(error, NotFoundError) else _CODES.get(error.status_code)
    words = _NOT_SERVED if code in {"unknown_url", "method_not_allowed"} else error.detail
    body = error_body(words, "invalid_request_error", code)
    return JSONResponse(body, error.status_code, error.headers)


def _answer_fault(_: Request, __: Exception) -> Response:
    """Answer what nobody has foreseen, without what it says, which may quote a question."""
    body = error_body(f"{PROGRAM} serve failed; please report it", "server_error", "internal")
    return JSONResponse(body, 500)
