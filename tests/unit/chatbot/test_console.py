import io

import pytest

from app.chatbot.console import Terminal
from app.chatbot.evidence.words import short


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


HOSTILE = "a\x1b]52;c;x\x07b\x9bc\rd\u202ee\tf\ng"


def test_terminals_get_no_controls() -> None:
    """
    Escape sequences in an answer, or in what an enclave calls its model, do nothing to a terminal.

    They could otherwise overwrite the proof, or the clipboard.
    """
    terminal = Terminal(io.StringIO(), Tty(), Tty())
    terminal.piece(HOSTILE)
    terminal.note(HOSTILE)
    for stream in (terminal.answers, terminal.notes):
        assert isinstance(stream, Tty)
        assert stream.getvalue().rstrip("\n") == "a�]52;c;x�b�c�d�e\tf\ng"


def test_pipes_get_the_answer_as_it_is() -> None:
    """What is no terminal gets every character."""
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
    terminal.piece(HOSTILE)
    assert isinstance(terminal.answers, io.StringIO)
    assert terminal.answers.getvalue() == HOSTILE


@pytest.mark.parametrize(("digest", "shown"), [(bytes(range(48)), "00010203…2e2f")])
def test_short_form(digest: bytes, shown: str) -> None:
    """A digest's short form is its first four and last two bytes."""
    assert short(digest) == shown


@pytest.mark.parametrize("colour", [True, False])
def test_labels_stand_out(monkeypatch: pytest.MonkeyPatch, *, colour: bool) -> None:
    """At a terminal a line's label is coloured, unless NO_COLOR is set; no control gets in."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal(io.StringIO(), Tty(), Tty())
    terminal.tell("enclave   \x1b[31m [red]is[/red] " + "x" * 200)
    assert isinstance(terminal.notes, Tty)
    shown = terminal.notes.getvalue()
    assert ("\x1b[1;32menclave" in shown) == colour
    assert "\x1b[31m" not in shown
    assert "[red]is[/red] " + "x" * 200 in shown  # neither markup nor wrapped


def test_pipes_get_plain_lines() -> None:
    """What is no terminal gets the line as it is."""
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
    terminal.tell("enclave   is")
    assert isinstance(terminal.notes, io.StringIO)
    assert terminal.notes.getvalue() == "enclave   is\n"
