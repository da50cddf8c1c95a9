import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from app.chatbot.health import is_served, main
from app.chatbot.local_http import listen, serving
from app.chatbot.openai.response import error_body
from app.chatbot.unix_socket import listen_unix


def refuse(_: object) -> JSONResponse:
    """As `serve` refuses whoever has no token."""
    return JSONResponse(error_body("no", "invalid_request_error", "invalid_api_key"), 401)


SERVED: ASGIApp = Starlette(routes=[Route("/v1/models", refuse)])
OTHER: ASGIApp = Starlette()


@contextmanager
def at(application: ASGIApp) -> Iterator[str]:
    with listen() as listener, serving(application, listener):
        yield str(listener.getsockname()[1])


def test_a_port_that_serves() -> None:
    """Where `serve` answers, the check passes."""
    with at(SERVED) as port:
        assert is_served(port)
        assert main([port]) == 0


def test_a_socket_that_serves(tmp_path: Path) -> None:
    """A path is a Unix socket's."""
    tmp_path.chmod(0o700)
    with listen_unix(tmp_path / "chat") as listener, serving(SERVED, listener):
        assert main([str(tmp_path / "chat")]) == 0
    assert main([str(tmp_path / "chat")]) == 1


def test_another_program_is_not_it() -> None:
    """Who answers otherwise, or not at all, is not what was asked for."""
    with at(OTHER) as port:
        assert main([port]) == 1
    assert main([port]) == 1


def test_whoever_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that takes the connection and is silent fails the check in time."""
    monkeypatch.setattr("app.chatbot.health._SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # whose kernel takes connections
        assert main([str(listener.getsockname()[1])]) == 1


def test_something_has_to_be_named() -> None:
    """Without a place it is wrong usage."""
    assert main([]) == 2
