import logging
import socket
import ssl
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from types import SimpleNamespace
from typing import cast
from wsgiref.types import WSGIApplication

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidRequestLine
from gunicorn.workers.gthread import ThreadWorker

from app.parent import server
from app.parent.config import ParentConfig
from app.parent.lobby import Lobby
from app.protocol.constants import MAX_CONNECTIONS
from tests.fake_enclave import FakeEnclave

CONFIG = ParentConfig(host="::1", port=0, max_streams=3, answer_seconds=60)
CANARY = "canary-17aa"


class Arbiter:
    """Takes gunicorn's place: loads the application as a worker would, and returns."""

    loaded: WSGIApplication
    settings: Config

    def __init__(self, application: server._Application) -> None:
        Arbiter.settings = application.cfg
        Arbiter.loaded = application.wsgi()

    def run(self) -> None:
        """Return."""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> server._Worker:
    monkeypatch.setattr(ThreadWorker, "__init__", lambda _: None)
    return server._Worker()


@pytest.fixture
def answer(
    worker: server._Worker, caplog: pytest.LogCaptureFixture
) -> Callable[[Exception], bytes]:
    """What a client gets when serving it ends in an error."""
    caplog.set_level(logging.INFO)

    def handle(error: Exception) -> bytes:
        ours, theirs = socket.socketpair()
        with theirs:
            with ours:
                worker.handle_error(None, ours, ("", 0), error)
            return theirs.recv(1000)

    return handle


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All settings that matter are made here, and the environment cannot make others.
    """
    monkeypatch.setattr("gunicorn.app.base.Arbiter", Arbiter)
    monkeypatch.setenv("WEB_CONCURRENCY", "7")
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--workers 7")
    wrapped: list[WSGIApplication] = []

    def wrap(application: WSGIApplication) -> WSGIApplication:
        wrapped.append(application)
        return application

    server.serve(CONFIG, FakeEnclave().connect, wrap=wrap)
    assert [Arbiter.loaded] == wrapped
    settings = Arbiter.settings
    assert settings.address == [("::1", 0)]
    assert settings.workers == 1
    assert settings.threads > CONFIG.max_streams
    # One place in the enclave stays free for the supervisor, whatever strangers ask for.
    assert ParentConfig().max_streams + server._SPARE_THREADS < MAX_CONNECTIONS
    assert settings.graceful_timeout > CONFIG.answer_seconds
    assert settings.accesslog is None
    assert settings.control_socket_disable
    assert settings.forwarded_allow_ips == []
    assert not settings.is_ssl


def test_default_wrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Nothing is wrapped around the application unless the caller says so.
    """
    monkeypatch.setattr("gunicorn.app.base.Arbiter", Arbiter)
    server.serve(replace(CONFIG, host="127.0.0.1"), FakeEnclave().connect)
    assert Arbiter.settings.address == [("127.0.0.1", 0)]
    assert type(Arbiter.loaded).__name__ == "Flask"


def test_tls() -> None:
    """
    TLS before 1.2 is refused.
    """
    context = server._ssl_context(Config(), lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


def test_listening(caplog: pytest.LogCaptureFixture) -> None:
    """
    The log says which port it is.
    """
    caplog.set_level(logging.INFO)
    listener = SimpleNamespace(getsockname=lambda: ("127.0.0.1", 4711), setsockopt=lambda *_: None)
    server._when_ready(SimpleNamespace(LISTENERS=[listener]))
    assert '"port": 4711' in caplog.text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequestLine(CANARY), b"400 Bad Request", b'{"code": "bad_request"}'),
        (KeyError(CANARY), b"500 Internal Server Error", b'{"code": "internal"}'),
    ],
)
def test_errors(
    answer: Callable[[Exception], bytes],
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: bytes,
    code: bytes,
) -> None:
    """
    The client's fault or ours, neither it nor the log gets the exception's text.
    """
    head, _, body = answer(error).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 " + status)
    assert b"Content-Length: %d" % len(body) in head
    assert body == code
    assert type(error).__name__ in caplog.text
    assert CANARY not in caplog.text


def test_tls_errors(answer: Callable[[Exception], bytes]) -> None:
    """
    Who fails to speak TLS is not answered in clear.
    """
    assert answer(ssl.SSLError()) == b""


@pytest.mark.parametrize("error", [None, ValueError(CANARY)])
def test_exceptions_are_named(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> None:
    """
    The server's log of an exception is its class alone.
    """
    lines: list[tuple[object, ...]] = []
    monkeypatch.setattr(server._Logger, "__init__", lambda _: None)
    monkeypatch.setattr(server._Logger, "error", lambda _, *args: lines.append(args))
    monkeypatch.setattr(sys, "exc_info", lambda: (type(error) if error else None, error, None))
    server._Logger().exception("Error handling %s", CANARY)
    assert lines == [("%s while serving", "ValueError" if error else "nothing")]


@pytest.mark.parametrize("another", [True, False])
def test_handle(worker: server._Worker, monkeypatch: pytest.MonkeyPatch, *, another: bool) -> None:
    """
    Headers have a time limit here, too, which ends when they are there.
    """
    cut_offs = []

    def handle(self: ThreadWorker, conn: SimpleNamespace) -> object:
        return self.handle_request("request", conn)

    def handle_request(_: ThreadWorker, __: str, conn: SimpleNamespace) -> bool:
        cut_offs.append(conn.header_cut_off)
        return another

    monkeypatch.setattr(ThreadWorker, "handle", handle)
    monkeypatch.setattr(ThreadWorker, "handle_request", handle_request)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert worker.handle(SimpleNamespace(sock=ours)) is another
        theirs.settimeout(0)
        with pytest.raises(BlockingIOError):  # closing is the lobby's
            theirs.recv(1)
    assert not cut_offs[0].happened


@pytest.mark.parametrize("end", ["failed", "cancelled", "closed", "kept"])
def test_what_ends_is_seen_out(
    worker: server._Worker, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    """
    A connection is kept for another request, or leaves through the lobby, which holds no thread.
    """
    seen_out: list[str] = []
    kept: list[str] = []
    worker._lobby = cast("Lobby", SimpleNamespace(see_out=seen_out.append))
    monkeypatch.setattr(ThreadWorker, "finish_request", lambda *_: kept.append("conn"))
    future: Future[object] = Future()
    if end == "cancelled":
        future.cancel()
    elif end == "failed":
        future.set_exception(ValueError())
    else:
        future.set_result(end == "kept")
    worker.finish_request("conn", future)
    assert (seen_out, kept) == ((["conn"], []) if end != "kept" else ([], ["conn"]))


def test_stopping(worker: server._Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Once stopping, newcomers are refused instead of queued.
    """
    monkeypatch.setattr(ThreadWorker, "set_accept_enabled", lambda *_: None)
    with socket.socket() as listener:
        worker.sockets = [listener]
        worker.alive = True
        worker.set_accept_enabled(False)
        assert listener.fileno() >= 0
        worker.alive = False
        worker.set_accept_enabled(False)
        assert listener.fileno() == -1
