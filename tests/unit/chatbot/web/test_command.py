import socket
import webbrowser
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from starlette.types import ASGIApp

from app.chatbot import main as program
from app.chatbot.console import Terminal
from app.chatbot.local_http import listen
from app.chatbot.session.session import Session
from app.chatbot.web import command as web_command
from app.chatbot.web.command import serve_page
from app.protocol.errors import ConfigError, UnavailableError
from app.protocol.question import Options


def never() -> Session:
    """Fail the test: nobody has opened the page."""
    pytest.fail("the enclave was verified before anybody opened the page")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What a browser was told to open, where nothing is really served."""
    links: list[str] = []

    def interrupted(_: ASGIApp, __: socket.socket, *, ending: Callable[[], None]) -> None:
        ending()
        raise KeyboardInterrupt

    monkeypatch.setattr(web_command, "serve", interrupted)
    monkeypatch.setattr(webbrowser, "open", links.append)
    return links


def test_a_port_that_is_taken_is_told_in_plain_words() -> None:
    """It says what is wrong and what to do, once."""
    with listen() as taken, pytest.raises(ConfigError) as caught, listen(taken.getsockname()[1]):
        pytest.fail("two programs listen")
    assert "cannot be had (taken by a program that runs): name another with" in str(caught.value)
    assert "bind" not in str(caught.value)


@pytest.mark.parametrize("browser", [False, True])
def test_the_link_is_printed_and_opened_only_when_asked(
    opened: list[str], *, browser: bool
) -> None:
    """It is on 127.0.0.1 and carries a token; Ctrl-C is how the page ends."""
    notes = StringIO()
    terminal = Terminal(StringIO(), StringIO(), notes)
    assert serve_page(never, Options(), terminal, browser=browser) == 0
    [link] = [word for word in notes.getvalue().split() if word.startswith("http")]
    assert urlsplit(link).hostname == "127.0.0.1"
    assert urlsplit(link).query == ""  # what follows # is sent nowhere
    assert len(urlsplit(link).fragment) >= 43  # 256 bits
    assert opened == ([link] if browser else [])


def test_a_port_that_is_taken_is_told(opened: list[str]) -> None:
    """The message says how to name another."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(ConfigError, match="--port"):
            serve_page(never, Options(), Terminal(), port=port, browser=True)
    assert opened == []


def test_the_command_gives_its_options_to_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What connects is what `bin/chat` itself uses: it verifies, or raises."""
    given: list[tuple[Options, int, bool]] = []
    url = "http://127.0.0.1:1"

    def served(
        connect: Callable[[], Session], options: Options, _: Terminal, *, port: int, browser: bool
    ) -> int:
        given.append((options, port, browser))
        with pytest.raises(UnavailableError, match=url):
            connect()
        return 7

    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(program, "serve_page", served)
    monkeypatch.setattr(program, "production_trust", lambda _: None)
    deployment = (
        f"--url={url}",
        "--key-arn=arn:aws:kms:us-east-1:111122223333:key/6f1e0a52-5f0b-4a1c-9e1b-6f0d7a1c2b3d",
        "--role-arn=arn:aws:iam::111122223333:role/chat",
        "--region=us-east-1",
    )
    assert program.main([*deployment, "--max-tokens=9", "web", "--port=8123", "--open"]) == 7
    assert given == [(Options(max_tokens=9), 8123, True)]
