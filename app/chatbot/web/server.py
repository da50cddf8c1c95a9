"""
The page: a conversation in a browser, on 127.0.0.1, beside its proof and what the server saw.

The files of the page are for anybody; they hold no secret. A link with a token that works once
opens the page, which then agrees with this program on the keys of a channel. Nothing is told, and
no command is taken, but sealed in that channel.
"""

import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from app.chatbot.documents.document import MAX_FILE_BYTES
from app.chatbot.local_http import is_token, make_token, read_body
from app.chatbot.web.channel import Channel
from app.chatbot.web.files import MOST_FILES
from app.chatbot.web.visit import Ending, Visit
from app.protocol.constants import MAX_QUESTION_BYTES
from app.protocol.errors import AppError, EnvelopeError

Json = dict[str, object]
Handler = Callable[[Request], Awaitable[Response]]

_FOLDER: Final = Path(__file__).parent / "page"
_INDEX: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".js": "text/javascript",
}
_POLICY: Final = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self'",
    "connect-src": "'self'",
    "base-uri": "'none'",
    "form-action": "'none'",
    "frame-ancestors": "'none'",
    "require-trusted-types-for": "'script'",
}
_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_MAX_OPENING_BYTES: Final = 1024
_MAX_COMMAND_BYTES: Final = 6 * MAX_QUESTION_BYTES + 1024  # JSON may write a byte as six


@dataclass(frozen=True, slots=True)
class _Page:
    """The page that was opened last."""

    channel: Channel
    visit: Visit


class Web:
    """
    The ASGI application of one program's page, for one page at a time.

    Args:
        make_visit: Makes what an opening of the page does.

    Attributes:
        token: What the link has to end in, once.
    """

    def __init__(self, make_visit: Callable[[], Visit]) -> None:
        self._make_visit = make_visit
        self.token = make_token()
        self._unused = True
        self._again = make_token()  # with it a page that was open opens again, when reloaded
        self._page: _Page | None = None
        files = (path for path in _FOLDER.iterdir() if path.suffix in _TYPES)
        self._files = {path.name: path.read_bytes() for path in files}

    def application(self) -> Starlette:
        """Give the application."""
        posts: dict[str, Handler] = {
            "/api/open": self._open,
            "/api/events": self._listen,
            "/api/command": self._command,
        }
        routes = [Route(path, handler, methods=["POST"]) for path, handler in posts.items()]
        return Starlette(routes=[Route("/", self._file), *routes, Route("/{name}", self._file)])

    def end(self, why: Ending = "ended") -> None:
        """End the page that is open, if any, and tell it *why*; in the thread that serves."""
        if self._page:
            self._page.visit.end(why)
        self._page = None

    @property
    def visit(self) -> Visit | None:
        """Of the page that is open."""
        return self._page.visit if self._page else None

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", _INDEX)
        if name not in self._files:
            return _refuse(HTTPStatus.NOT_FOUND)
        return Response(self._files[name], 200, _HEADERS, _TYPES[Path(name).suffix])

    async def _open(self, request: Request) -> Response:
        """Agree on keys with a page that has a token, in place of any page before."""
        try:
            match json.loads(await _read(request, "application/json", _MAX_OPENING_BYTES)):
                case {"token": str(token), "key": str(key)} if self._lets_in(token):
                    channel = Channel(base64.b64decode(key))
                case _:
                    return _refuse(HTTPStatus.FORBIDDEN)
        except (AppError, ValueError, RecursionError):
            return _refuse(HTTPStatus.FORBIDDEN)
        self._unused = self._unused and not is_token(token, self.token)
        self.end("replaced")
        self._page = _Page(channel, self._make_visit())
        return JSONResponse({"key": _to_text(channel.public_key)}, headers=_HEADERS)

    async def _listen(self, request: Request) -> Response:
        """Tell the page all that happens, an event a line, until it has gone or is ended."""
        page, command = await self._take(request)
        if page is None or command != {"do": "listen"}:
            return _refuse(HTTPStatus.FORBIDDEN)
        return StreamingResponse(self._tell(page), 200, _HEADERS, "text/plain")

    async def _command(self, request: Request) -> Response:
        """Take one command, and reply in a way that only this program can."""
        page, command = await self._take(request)
        if page is None:
            return _refuse(HTTPStatus.FORBIDDEN)
        try:
            page.visit.do(command)
        except AppError:
            return _refuse(HTTPStatus.FORBIDDEN)
        return Response(page.channel.reply(b""), 200, _HEADERS, "application/octet-stream")

    async def _tell(self, page: _Page) -> AsyncIterator[bytes]:
        limits = {"limit": MAX_QUESTION_BYTES, "file_limit": MAX_FILE_BYTES, "files": MOST_FILES}
        opened = {"type": "opened", "again": self._again, **limits}
        yield _seal(page.channel, opened)
        async for event in page.visit.listen():
            yield _seal(page.channel, event)

    async def _take(self, request: Request) -> tuple[_Page | None, Json]:
        """Give the open page and its next command; None for whatever is not that."""
        try:
            record = await _read(request, "application/octet-stream", _MAX_COMMAND_BYTES)
            if self._page is None:
                return None, {}
            command: object = json.loads(self._page.channel.take(record))
        except (AppError, ValueError):
            return None, {}
        return (self._page, command) if isinstance(command, dict) else (None, {})

    def _lets_in(self, token: str) -> bool:
        return (self._unused and is_token(token, self.token)) or is_token(token, self._again)


async def _read(request: Request, kind: str, limit: int) -> bytes:
    """
    Read a body of *kind*, which is none that a form can send, of at most *limit* bytes.

    Raises:
        EnvelopeError: It is of another kind.

        TooLongError: It is longer.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip() != kind:
        raise EnvelopeError(f"the body is not {kind}")
    return await read_body(request, limit)


def _seal(channel: Channel, event: Json) -> bytes:
    return _to_text(channel.tell(json.dumps(event).encode())).encode() + b"\n"


def _to_text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _refuse(status: int) -> Response:
    return JSONResponse({}, status, _HEADERS)
