import io

import pytest

from app.chatbot.console import Terminal
from app.chatbot.terminal.prompt_line import read_all, read_lines
from app.protocol.errors import QuestionError


def piped(data: bytes) -> Terminal:
    return Terminal(io.TextIOWrapper(io.BytesIO(data), "utf-8"), io.StringIO(), io.StringIO())


def test_pipes_give_their_lines() -> None:
    """Lines come stripped, and all of them at once as they are."""
    assert list(read_lines(piped(b" a\n\xc3\xbc\n"), ())) == ["a", "ü"]
    assert read_all(piped(b" a\nb\n")) == " a\nb\n"


def test_a_byte_order_mark_is_no_part_of_a_question() -> None:
    """What an editor put before the text is left out; a mark anywhere else is text."""
    data = "\ufeffWho\ufeff?\n\ufeffa\n".encode()
    assert read_all(piped(data)) == "Who\ufeff?\n\ufeffa\n"
    assert list(read_lines(piped(data), ())) == ["Who\ufeff?", "\ufeffa"]
    assert read_all(piped("\ufeff".encode())) == ""


def test_what_is_no_text_is_told() -> None:
    """Bytes in another encoding are an error that says so, not a fault of the program."""
    with pytest.raises(QuestionError, match="not utf-8"):
        list(read_lines(piped(b"M\xfcller\n"), ()))
    with pytest.raises(QuestionError, match="not utf-8"):
        read_all(piped(b"M\xfcller\n"))
