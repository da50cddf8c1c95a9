import io
import signal
from pathlib import Path
from typing import NoReturn

import pytest

from app.chatbot.console import Terminal
from app.chatbot.local_http import listen
from app.chatbot.openai.command import serve_sessions
from app.protocol.errors import ConfigError
from app.protocol.question import Options


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_it_ends_while_it_verifies(number: signal.Signals, tmp_path: Path) -> None:
    """
    What asks it to end is heeded from the start: process 1 of a container is spared what it has no
    handler for.
    """
    before = signal.getsignal(number)

    def connect() -> NoReturn:
        assert signal.getsignal(number) is not signal.SIG_DFL  # or it would end this test, too
        signal.raise_signal(number)
        pytest.fail("it goes on")

    terminal = Terminal(answers=io.StringIO(), notes=(notes := io.StringIO()))
    assert serve_sessions(connect, Options(), terminal, path=tmp_path / "socket") == 0
    assert notes.getvalue() == "stopped\n"
    assert signal.getsignal(number) is before


def test_a_place_that_cannot_be_had_is_told_before_anything_is_asked_for(tmp_path: Path) -> None:
    """
    No enclave is verified for a port that is taken, or a socket where there is no folder.
    """

    def connect() -> NoReturn:
        pytest.fail("the enclave was verified")

    terminal = Terminal(answers=io.StringIO(), notes=io.StringIO())
    with listen() as taken, pytest.raises(ConfigError, match="taken by a program"):
        serve_sessions(connect, Options(), terminal, port=taken.getsockname()[1])
    with pytest.raises(ConfigError, match="socket"):
        serve_sessions(connect, Options(), terminal, path=tmp_path / "none" / "socket")
