import io
import re
import time
from collections.abc import Generator

import pytest

from app.chatbot.console import Terminal
from app.chatbot.reading.parts import Part, Text
from app.chatbot.session.exchange import Answer, Exchange, State
from app.chatbot.terminal.progress import describe_progress, showing_progress
from tests.patience import wait_until


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def no_parts() -> Generator[Part]:
    yield from ()


def make_answer(state: State, *, place: int | None = None, text: str = "") -> Answer:
    exchange = Exchange(time.monotonic() - 3, parts=[Text(text)], state=state, place=place)
    return Answer(no_parts(), exchange)


@pytest.mark.parametrize(
    ("state", "place", "says"),
    [
        ("sealing", None, "sealing the question"),
        ("sent", None, "the enclave is opening it"),
        ("waiting", None, "no word yet"),
        ("waiting", 4, "place 4 in the queue"),
        ("thinking", 0, "thinking"),
        ("answering", 0, "1,234 characters so far"),
    ],
)
def test_each_state_has_words(state: State, place: int | None, says: str) -> None:
    """What goes on, and for how long, is said in a few words."""
    shown = describe_progress(make_answer(state, place=place, text="x" * 1234))
    assert says in shown
    assert re.search(r"\(([3-9]|\d\d+) s\)", shown)


def test_waits_are_shown_until_the_first_piece() -> None:
    """A terminal shows the place in the queue, and takes it away when the text begins."""
    notes = Tty()
    terminal = Terminal(io.StringIO(), Tty(), notes)
    answer = make_answer("waiting", place=2)
    with showing_progress(answer, terminal, beside_text=False) as at_piece:
        wait_until(lambda: "place 2 in the queue" in notes.getvalue())
        at_piece()
        shown = notes.getvalue()
        time.sleep(0.6)
        assert notes.getvalue() == shown
    assert shown.endswith(("\x1b[2K", "\x1b[?25h"))  # the line is erased, the cursor is back


def test_progress_goes_on_beside_text_that_goes_elsewhere() -> None:
    """Where the text goes to a file, the terminal goes on showing how much has come."""
    notes = Tty()
    terminal = Terminal(io.StringIO(), io.StringIO(), notes)
    answer = make_answer("answering", text="abc")
    with showing_progress(answer, terminal, beside_text=True) as at_piece:
        at_piece()
        wait_until(lambda: "3 characters so far" in notes.getvalue())


def test_pipes_get_no_progress() -> None:
    """What is no terminal gets nothing of it."""
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
    with showing_progress(make_answer("waiting"), terminal, beside_text=False) as at_piece:
        at_piece()
    assert isinstance(terminal.notes, io.StringIO)
    assert terminal.notes.getvalue() == ""
