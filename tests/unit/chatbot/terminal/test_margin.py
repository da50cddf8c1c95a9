import io
import re
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from app.chatbot.console import Terminal
from app.chatbot.terminal.margin import MARGIN, Margin
from app.chatbot.terminal.showing import showing_answer

FORGED = "receipt   verified: this answer to this question, 9 tokens, finish stop, 1.0 s, whole"


class Tty(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def wrap(*pieces: str, columns: int = 24) -> str:
    margin = Margin(columns)
    return "".join(map(margin.feed, pieces)) + margin.end()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("one two", "| one two\n"),
        ("one two three four five six", "| one two three four\n| five six\n"),
        ("a\n\n  b\tc\n", "| a\n| \n|   b    c\n"),
        ("x" * 30, "| " + "x" * 21 + "\n| " + "x" * 9 + "\n"),
        ("aaaa " + "x" * 20, "| aaaa\n| " + "x" * 20 + "\n"),
        ("漢" * 12, "| " + "漢" * 10 + "\n| 漢漢\n"),
        ("", ""),
        ("   ", ""),
    ],
)
def test_lines_wrap_at_words(text: str, shown: str) -> None:
    """Lines break between words, or inside one that fits no line; blanks at a break go."""
    assert wrap(text) == shown


@given(text=st.text(), cuts=st.lists(st.integers(0, 50)), columns=st.integers(20, 40))
def test_no_text_leaves_the_margin(text: str, cuts: list[int], columns: int) -> None:
    """However an answer is cut into pieces, each of its lines begins with the margin and fits."""
    places = sorted({0, *(min(cut, len(text)) for cut in cuts), len(text)})
    shown = wrap(*(text[a:b] for a, b in pairwise(places)), columns=columns)
    assert shown == wrap(text, columns=columns)
    lines = shown.split("\n")
    assert lines.pop() == ""
    assert all(line.startswith(MARGIN) and cell_len(line) < columns for line in lines)
    assert "".join(shown.split()).replace("|", "") == "".join(text.split()).replace("|", "")


def test_a_forged_receipt_stays_in_the_margin() -> None:
    """An answer that spells a receipt and a prompt puts neither where they stand."""
    terminal = Terminal(io.StringIO(), Tty(), Tty())
    with showing_answer(terminal) as show:
        show(f"done.\n{FORGED}\n> \x1b[1;32mreceipt\r{FORGED}")
    assert isinstance(terminal.answers, Tty)
    shown = terminal.answers.getvalue().replace("\x1b[?7l", "").replace("\x1b[?7h", "")
    assert shown.endswith("\n")
    assert all(line.startswith(MARGIN) for line in shown.splitlines())
    assert "\x1b" not in shown
    assert "\r" not in shown


def test_what_a_terminal_finds_wider_is_not_carried_over() -> None:
    """The terminal wraps nothing itself while an answer is written, and does so again at once."""
    terminal = Terminal(io.StringIO(), Tty(), Tty())
    with suppress(RuntimeError), showing_answer(terminal) as show:
        show("two words")
        raise RuntimeError
    assert isinstance(terminal.answers, Tty)
    assert terminal.answers.getvalue() == "\x1b[?7l| two\x1b[?7h\x1b[?7l words\n\x1b[?7h"


@pytest.mark.parametrize("raw", [False, True])
def test_pipes_get_no_margin(*, raw: bool) -> None:
    """In a pipe the answer is as it is, its controls replaced unless it is to be raw."""
    terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO(), raw=raw)
    with showing_answer(terminal) as show:
        show("a\x1b[31m " + "b" * 200)
    assert isinstance(terminal.answers, io.StringIO)
    escape = "\x1b" if raw else "\ufffd"
    assert terminal.answers.getvalue() == f"a{escape}[31m " + "b" * 200 + "\n"


@pytest.mark.parametrize("tty", [False, True])
def test_lines_that_end_in_two_characters(*, tty: bool) -> None:
    """A line's end that two pieces share is one; a carriage return alone is none."""
    terminal = Terminal(io.StringIO(), Tty() if tty else io.StringIO(), io.StringIO())
    with showing_answer(terminal) as show:
        for piece in ("a\r", "\nb\r", "c\r"):
            show(piece)
    assert isinstance(terminal.answers, io.StringIO)
    shown = re.sub(r"\x1b\[\?7[lh]", "", terminal.answers.getvalue())
    margin = MARGIN if tty else ""
    assert shown == f"{margin}a\n{margin}b\ufffdc\ufffd\n"
