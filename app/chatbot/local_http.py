"""
Local HTTP: an ASGI application on 127.0.0.1 or a Unix socket, for programs of one user.

Other users of the machine, and pages of other sites in the user's browser, can reach a port: a
request needs a Host header that names it (which DNS rebinding does not give), no Origin but its
own, and whatever token the application asks for. `localhost` is no name for it: another user may
bind the same port of ::1, which many programs try first. Nothing is logged of a request.
"""

import argparse
import errno
import hmac
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import uvicorn
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from app.chatbot.machine import HANG_UP, is_unix, listen_alone
from app.protocol.errors import ConfigError, TooLongError, UnavailableError

ADDRESS: Final = "127.0.0.1"
_PORTS: Final = 2**16
UNIX_URL: Final = "http://enclave-llm.invalid"  # RFC 6761: a name that never resolves
_TOKEN_BYTES: Final = 32
_STOP_SECONDS: Final = 3
_START_SECONDS: Final = 10.0
_SILENT: Final = logging.CRITICAL + 1


def make_token() -> str:
    """Give a fresh token of 256 bits that can stand in a URL or a header."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


def is_token(given: str, token: str) -> bool:
    """Tell whether *given* is *token*, in a time that tells nothing else."""
    return hmac.compare_digest(given.encode(), token.encode())


def bearer(headers: Headers) -> str:
    """Give the bearer token of a request, "" where there is none."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else ""


def parse_port(text: str) -> int:
    """
    Give the port that *text* names, for a command line.

    Raises:
        ArgumentTypeError: It names none.
    """
    if not (text.isascii() and text.isdigit() and int(text[:6]) < _PORTS):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: name one of 0 to {_PORTS - 1}")
    return int(text)


def listen(port: int = 0) -> socket.socket:
    """
    Listen on *port* of 127.0.0.1, a free one where it is 0.

    Raises:
        ConfigError: The port is taken or not allowed.
    """
    if not 0 <= port < _PORTS:
        raise ConfigError(f"port {port} is none: name one of 0 to 65535 with --port")
    try:
        return listen_alone(ADDRESS, port)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        why = "taken by a program that runs" if taken else os.strerror(error.errno or 0)
        raise ConfigError(
            f"port {port} of {ADDRESS} cannot be had ({why}): name another with --port, or leave "
            "it out for a free one"
        ) from None


def url_of(listener: socket.socket) -> str:
    """Give the URL of what is served on *listener*; that of a Unix socket leads nowhere else."""
    if is_unix(listener):
        return UNIX_URL
    return f"http://{ADDRESS}:{_port_of(listener)}"


def _port_of(listener: socket.socket) -> int:
    port: int = listener.getsockname()[1]
    return port


class Guard:
    """
    ASGI around an application: refuses what did not mean this port, before anything reads it.

    Args:
        port: Where it is served; None for a Unix socket, which only its owner reaches and no
            browser does, so that any Host will do there.
    """

    def __init__(self, application: ASGIApp, port: int | None) -> None:
        self._application = application
        self._host = None if port is None else f"{ADDRESS}:{port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 421 (another host) or 403 (another origin)."""
        if scope["type"] == "http":
            answer = self._refuse(Headers(scope=scope)) or self._application
            await answer(scope, receive, send)

    def _refuse(self, headers: Headers) -> ASGIApp | None:
        if self._host and headers.getlist("host") != [self._host]:
            message = f"name this port as http://{self._host}; another name may lead elsewhere"
            return _refusal(421, message, "wrong_host")
        own = {f"http://{self._host}"} if self._host else set()
        if headers.get("origin") not in {None, *own}:
            return _refusal(403, "pages of other origins may not ask here", "wrong_origin")
        return None


def _refusal(status: int, message: str, code: str) -> ASGIApp:
    """Refuse in the shape of OpenAI's errors, which its clients show to people."""
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return JSONResponse({"error": error}, status)


async def read_body(request: Request, limit: int) -> bytes:
    """
    Read a request's body of at most *limit* bytes.

    Raises:
        TooLongError: It is longer; numbers are (size so far, limit).
    """
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > limit:
            raise TooLongError(
                f"the body is over {len(body) - 1} bytes, the limit is {limit}",
                numbers=(len(body), limit),
            )
    return bytes(body)


def serve(
    application: ASGIApp, listener: socket.socket, *, ending: Callable[[], None] = lambda: None
) -> None:
    """
    Serve *application*, guarded, on *listener* until SIGINT, SIGTERM or SIGHUP.

    Args:
        ending: Called before the port is given up.

    Raises:
        KeyboardInterrupt: One of them came; so that whoever calls this can clean up.
    """
    with ending_like_ctrl_c():
        _Server(application, listener, ending).run(sockets=[listener])


@contextmanager
def ending_like_ctrl_c() -> Iterator[None]:
    """
    Have SIGTERM and its like end the block as SIGINT does; one that is ignored stays so.

    Process 1 of a container has no other way: the kernel spares it what it has no handler for.
    """
    # The server stops at SIGTERM, then raises it again.
    handlers: dict[signal.Signals, Callable[..., object]] = {
        signal.SIGTERM: signal.default_int_handler,
        HANG_UP: lambda *_: signal.raise_signal(signal.SIGTERM),
    }
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handler in handlers.items():
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


@contextmanager
def serving(
    application: ASGIApp, listener: socket.socket, *, ending: Callable[[], None] = lambda: None
) -> Iterator[str]:
    """
    Serve *application*, guarded, from a thread while the block runs; give its URL.

    Args:
        ending: As for `serve`.

    Raises:
        UnavailableError: It does not begin to serve.
    """
    server = _Server(application, listener, ending)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        pause = threading.Event()
        for _ in range(int(_START_SECONDS * 100)):
            if server.started or not thread.is_alive():
                break
            pause.wait(0.01)
        if not server.started:
            raise UnavailableError("the local server does not start")
        yield url_of(listener)
    finally:
        server.should_exit = True
        thread.join(_STOP_SECONDS + _START_SECONDS)


class _Server(uvicorn.Server):
    """A server that logs nothing, and says that it is ending before it gives up its port."""

    def __init__(
        self, application: ASGIApp, listener: socket.socket, ending: Callable[[], None]
    ) -> None:
        config = uvicorn.Config(
            Guard(application, None if is_unix(listener) else _port_of(listener)),
            access_log=False,
            log_config=None,
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=_STOP_SECONDS,
        )
        super().__init__(config)
        self._ending = ending
        # After the above, which sets levels. Without configuration of its own, uvicorn would take
        # whatever handlers the program has for leave to log each request's path.
        for name in ("uvicorn.access", "uvicorn.error", "uvicorn.asgi"):
            logging.getLogger(name).setLevel(_SILENT)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is served, then the server."""
        self._ending()
        await super().shutdown(sockets)
