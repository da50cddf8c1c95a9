import io
from typing import NoReturn

import pytest

from app.chatbot import main as program
from app.chatbot.arguments import parse_arguments
from app.chatbot.console import Terminal
from app.chatbot.errors import NoQuestionError
from app.chatbot.evidence.advice import exit_code
from app.chatbot.terminal.command import talk


def test_ctrl_c_while_a_schema_comes_by_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is read for the arguments is stopped as all else is, and says so."""

    def interrupt(_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "parse_arguments", interrupt)
    assert program.main(["ask"]) == 130
    assert capsys.readouterr().err == "stopped\n"


@pytest.mark.parametrize("arguments", [["ask"], ["ask", "-"]])
def test_nothing_piped_in_is_wrong_usage_before_anybody_is_asked(arguments: list[str]) -> None:
    """An empty pipe ends with 2, as an empty question does, and no enclave is verified."""

    def connect() -> NoReturn:
        pytest.fail("the enclave was verified")

    terminal = Terminal(io.StringIO(" \n"), io.StringIO(), io.StringIO())
    with pytest.raises(NoQuestionError, match="type or pipe one") as caught:
        talk(connect, parse_arguments(arguments), terminal)
    assert exit_code(caught.value) == 2
