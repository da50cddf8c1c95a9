from typing import NoReturn

import pytest

from app.chatbot import main as program


def test_ctrl_c_while_a_schema_comes_by_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is read for the arguments is stopped as all else is, and says so."""

    def interrupt(_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "parse_arguments", interrupt)
    assert program.main(["ask"]) == 130
    assert capsys.readouterr().err == "stopped\n"
