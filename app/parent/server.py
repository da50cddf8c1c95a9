"""
The server: gunicorn, one process, a thread a request, set up from `ParentConfig` alone.

gunicorn logs and echoes parts of malformed requests, gives a thread to whoever connects, lingers
over closing connections in its accept loop, and lets connections queue that come while it stops;
the classes here and the lobby undo that.
"""

import json
import socket
import ssl
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Final
from wsgiref.types import WSGIApplication

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.errors import ParseException
from gunicorn.http.message import Request
from gunicorn.sock import ssl_context
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.parent.body import CutOff
from app.parent.config import ParentConfig
from app.parent.lobby import PLACES, Lobby, Wrap
from app.parent.observe import log, log_to_stderr
from app.parent.relay import Connect
from app.parent.routes import create_app
from app.protocol.errors import AppError, ProtocolError

# For attestation, health and refusals while all streams are taken. With them and the default's
# streams, the enclave has places left: one is the supervisor's, who ends an enclave that is silent.
_SPARE_THREADS: Final = 12
_HEADER_SECONDS: Final = 10  # TLS handshake, request line and headers together
_KEEP_ALIVE_SECONDS: Final = 5
_UNREAD_SECONDS: Final = 0.02  # for what is there already of a body that nobody has read
_KEPT_ALIVE: Final = 64  # connections; those of others end with their answer
_QUEUED: Final = 128  # whole requests that wait for a thread, beyond which nobody is let in
_DRAIN_SECONDS: Final = 10  # beyond the longest answer, for a graceful stop


def serve(
    config: ParentConfig,
    connect: Connect,
    *,
    wrap: Callable[[WSGIApplication], WSGIApplication] = lambda application: application,
) -> None:
    """
    Serve until SIGTERM; then finish the answers under way and return.

    Call it in a process's main thread; it forks one worker.

    Args:
        config: Where to listen, and the limits.

        connect: Gives a connected socket to the enclave, or raises OSError.

        wrap: Put around the WSGI application; for the twin, which records what a parent sees.
            What it makes must pass on `close` of what the application returns.
    """
    log_to_stderr()
    _Application(config, lambda: wrap(create_app(config, connect))).run()


class _Application(BaseApplication):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn, told everything: it reads no file, argument or variable of its own."""

    def __init__(self, config: ParentConfig, load: Callable[[], WSGIApplication]) -> None:
        self._config = config
        self.load = load  # called in the worker, after the fork
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn's settings."""
        for name, value in _settings(self._config).items():
            self.cfg.set(name, value)


def _settings(config: ParentConfig) -> dict[str, object]:
    threads = config.max_streams + _SPARE_THREADS
    host = f"[{config.host}]" if ":" in config.host else config.host
    return {
        "bind": f"{host}:{config.port}",
        "workers": 1,  # one semaphore, one set of counts
        "worker_class": _Worker,
        "threads": threads,
        "worker_connections": threads + PLACES + _KEPT_ALIVE + _QUEUED,
        "keepalive": _KEEP_ALIVE_SECONDS,
        "graceful_timeout": config.answer_seconds + _DRAIN_SECONDS,
        "limit_request_line": 1024,
        "limit_request_fields": 64,
        "limit_request_field_size": 4096,
        "logger_class": _Logger,
        "accesslog": None,
        "control_socket_disable": True,
        "forwarded_allow_ips": "",
        "secure_scheme_headers": {},
        "proc_name": "enclave-llm-parent",
        "when_ready": _when_ready,
        "certfile": config.certificate_path,
        "keyfile": config.key_path,
        "ssl_context": _ssl_context,
    }


def _ssl_context(_: Config, default: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    context = default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _when_ready(arbiter: Arbiter) -> None:
    for listener in arbiter.LISTENERS:
        # A connection without data occupies the kernel, not a thread.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, _HEADER_SECONDS)
        log("listening", port=listener.getsockname()[1])


class _Logger(Logger):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn's log without the texts of exceptions, which may quote a request."""

    def exception(self, *_: object) -> None:
        """Name the exception being handled."""
        kind = sys.exc_info()[0]
        self.error("%s while serving", kind.__name__ if kind else "nothing")


class _Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn is untyped
    """gunicorn's threaded worker, with limits on slow and malformed clients."""

    def set_accept_enabled(self, enabled: bool) -> None:  # noqa: FBT001  # gunicorn's signature
        """Accept or do not; once stopping, refuse newcomers rather than let them queue."""
        super().set_accept_enabled(enabled)
        if not self.alive:
            for listener in self.sockets:
                listener.close()

    def run(self) -> None:
        """Serve until stopped."""
        self.max_keepalived = _KEPT_ALIVE
        self._lobby = Lobby(
            self.poller,
            wrap=_tls(self.cfg),
            serve=super().enqueue_req,
            close=self._close,
            refusal=_refusal(malformed=True),
            seconds=_HEADER_SECONDS,
        )
        super().run()

    def enqueue_req(self, conn: TConn) -> None:
        """Let *conn*, which may have something to say, wait until that is whole."""
        self._lobby.admit(conn)

    def murder_pending(self) -> None:
        """Close what has waited too long; gunicorn's loop calls this each second."""
        self._lobby.expire()

    def finish_request(self, conn: TConn, fs: "Future[object]") -> None:
        """Keep *conn* for another request, or see it out."""
        if fs.cancelled() or fs.exception() is not None or not fs.result():
            self._lobby.see_out(conn)
        else:
            super().finish_request(conn, fs)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def handle(self, conn: TConn) -> object:
        """Serve one request of *conn*, whose headers are there; true if another may follow."""
        with CutOff(lambda: conn.sock, _HEADER_SECONDS) as conn.header_cut_off:
            return super().handle(conn)

    def handle_request(self, req: Request, conn: TConn) -> object:
        """Serve the request whose headers have come."""
        conn.header_cut_off.cancel()
        return super().handle_request(req, conn)

    def _keepalive_after(self, conn: TConn, keepalive: object) -> bool:
        """Keep *conn* for another request unless more is to come of a body that nobody reads."""
        ends = time.monotonic() + _UNREAD_SECONDS
        return bool(keepalive) and bool(conn.parser.finish_body(deadline=ends))

    def handle_error(self, _: Request, client: socket.socket, __: object, error: Exception) -> None:
        """Refuse what is not HTTP, and answer for what failed on our side, quoting nothing."""
        log("malformed", error=type(error).__name__)
        if not isinstance(error, ssl.SSLError):
            with suppress(OSError):
                client.sendall(_refusal(malformed=isinstance(error, ParseException)))


def _refusal(*, malformed: bool) -> bytes:
    status, code = (
        ("400 Bad Request", ProtocolError.code)
        if malformed
        else ("500 Internal Server Error", AppError.code)
    )
    body = json.dumps({"code": code})
    return (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


def _tls(config: Config) -> Wrap | None:
    """Give what puts TLS around a socket, without its handshake; None where there is none."""
    if not config.is_ssl:
        return None
    return partial(ssl_context(config).wrap_socket, server_side=True, do_handshake_on_connect=False)
