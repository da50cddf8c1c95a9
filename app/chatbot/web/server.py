"""
The page: a conversation in a browser, on 127.0.0.1, beside its proof and what the parent saw.

A link with a token that works once gives the browser a cookie; everything but that link needs it.
Browsers send a cookie to every port of a host: the ports of 127.0.0.1 that other programs hold
should be this machine's user's own.
"""

import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from app.chatbot.local_http import is_token, make_token, read_body
from app.chatbot.web.visit import Visit
from app.protocol.constants import MAX_QUESTION_BYTES
from app.protocol.errors import TooLongError

Body = dict[str, object]
Handler = Callable[[Request], Awaitable[Response]]

_FOLDER: Final = Path(__file__).parent / "page"
_TYPES: Final = {
    "index.html": "text/html",
    "refused.html": "text/html",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
}
_SCRIPTS: Final = ("page.js", "server.js", "elements.js", "proof.js", "sight.js")
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
_MAX_BODY_BYTES: Final = 6 * MAX_QUESTION_BYTES + 1024  # JSON may write a byte as six


class Web:
    """
    The ASGI application of one *visit*.

    Attributes:
        token: What the link has to end in, once.
    """

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self.token = make_token()
        self._unused = True
        self._cookie = secrets.token_urlsafe()
        self._files = {name: (_FOLDER / name).read_bytes() for name in (*_TYPES, *_SCRIPTS)}

    def application(self) -> Starlette:
        """Give the application."""
        posts: dict[str, Handler] = {
            "/api/verify": self._verify,
            "/api/new": self._new,
            "/api/stop": self._stop,
            "/api/ask": self._ask,
        }
        routes = [Route(path, handler, methods=["POST"]) for path, handler in posts.items()]
        return Starlette(routes=[Route("/", self._index), *routes, Route("/{name}", self._file)])

    async def _index(self, request: Request) -> Response:
        given = request.query_params.get("token")
        fresh = self._unused and request.method == "GET"  # HEAD is what previews and scanners send
        if fresh and given is not None and is_token(given, self.token):
            self._unused = False
            answer = RedirectResponse("/", HTTPStatus.SEE_OTHER, _HEADERS)
            answer.set_cookie(
                _cookie_name(request), self._cookie, httponly=True, samesite="strict", path="/"
            )
            return answer
        if not self._is_let_in(request):
            return self._send("refused.html", HTTPStatus.FORBIDDEN)
        if given is not None:
            return RedirectResponse("/", HTTPStatus.SEE_OTHER, _HEADERS)
        return self._send("index.html")

    async def _file(self, request: Request) -> Response:
        """Give a file of the page; they hold no secret, and the refusal needs the style, too."""
        name = request.path_params["name"]
        if name not in self._files or name.endswith(".html"):
            return _refuse(HTTPStatus.NOT_FOUND)
        return self._send(name)

    async def _verify(self, request: Request) -> Response:
        if await self._read(request) is None:
            return _refuse(HTTPStatus.FORBIDDEN)
        return _json(await self._visit.verify())

    async def _new(self, request: Request) -> Response:
        if not await self._read_of_page(request):
            return _refuse(HTTPStatus.FORBIDDEN)
        await self._visit.begin()
        return _json({})

    async def _stop(self, request: Request) -> Response:
        if not await self._read_of_page(request):
            return _refuse(HTTPStatus.FORBIDDEN)
        self._visit.stop()
        return _json({})

    async def _ask(self, request: Request) -> Response:
        match await self._read_of_page(request):
            case {"text": str(text)}:
                events = self._tell(request, text)
                return StreamingResponse(events, 200, _HEADERS, "application/x-ndjson")
        return _refuse(HTTPStatus.FORBIDDEN)

    async def _tell(self, request: Request, text: str) -> AsyncIterator[bytes]:
        """Give the answer's events, a line each, until the page has gone."""
        async for event in self._visit.ask(text):
            yield json.dumps(event).encode() + b"\n"
            if await request.is_disconnected():
                self._visit.stop()

    async def _read_of_page(self, request: Request) -> Body | None:
        """Read what the page that was verified last sends; None for any other."""
        body = await self._read(request)
        page = (body or {}).get("page")
        if not isinstance(page, str) or not self._visit.page:
            return None
        return body if is_token(page, self._visit.page) else None

    async def _read(self, request: Request) -> Body | None:
        """Read what a browser that was let in sends; None for any other, or what is no object."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip()
        if not self._is_let_in(request) or kind != "application/json":
            return None
        try:
            body: object = json.loads(await read_body(request, _MAX_BODY_BYTES))
        except (ValueError, RecursionError, TooLongError):
            return None
        return body if isinstance(body, dict) else None

    def _is_let_in(self, request: Request) -> bool:
        given = request.cookies.get(_cookie_name(request), "")
        return is_token(given, self._cookie)

    def _send(self, name: str, status: int = HTTPStatus.OK) -> Response:
        return Response(self._files[name], status, _HEADERS, _TYPES.get(name, "text/javascript"))


def _cookie_name(request: Request) -> str:
    """Name the cookie by port, since ports of a host share cookies."""
    return f"enclave-llm-{request.url.port}"


def _json(content: Body) -> Response:
    return JSONResponse(content, headers=_HEADERS)


def _refuse(status: int) -> Response:
    return JSONResponse({}, status, _HEADERS)
