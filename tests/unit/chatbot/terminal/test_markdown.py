import re
from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from app.chatbot.console import clean
from app.chatbot.terminal.inline import Inline
from app.chatbot.terminal.margin import MARGIN, Margin
from app.chatbot.terminal.markdown import Markdown
from tests.markdown import CASES, HOSTILE, Case

CODES = re.compile(r"\x1b\[([0-9])m")
# What means something, and letters; half of the lines are of these alone.
MARKED = st.text(st.sampled_from("ab1*_`~[]()|#>-+.!\\: \t\n漢。é"), max_size=120)
TEXTS = st.one_of(
    MARKED,
    st.text(max_size=80),
    st.lists(st.sampled_from([case.source for case in CASES]), max_size=4).map("\n".join),
)


def show(*pieces: str, columns: int = 44) -> str:
    markdown = Markdown(Margin(columns))
    return "".join([markdown.feed(clean(piece)) for piece in pieces]) + markdown.end()


def cut(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, *(min(place, len(text)) for place in cuts), len(text)})
    return [text[a:b] for a, b in pairwise(places)]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.source[:24])
def test_what_becomes_of_it(case: Case) -> None:
    """Each kind of Markdown is shown as it is meant; what is none, and HTML, stays text."""
    assert CODES.sub(r"{\1}", show(case.source)) == case.terminal


@given(text=TEXTS, cuts=st.lists(st.integers(0, 120)), columns=st.integers(20, 60))
def test_nothing_that_was_shown_changes(text: str, cuts: list[int], columns: int) -> None:
    """However an answer is cut into pieces, the same is shown of it in the end."""
    text = clean(text)
    assert show(*cut(text, cuts), columns=columns) == show(text, columns=columns)


@given(text=TEXTS, columns=st.integers(20, 60))
def test_no_text_leaves_the_margin(text: str, columns: int) -> None:
    """Each line begins with the margin, fits, and leaves no style to what follows it."""
    lines = show(text, columns=columns).split("\n")
    assert lines.pop() == ""
    for line in lines:
        assert line.startswith(MARGIN)
        codes = CODES.findall(line)
        assert codes[-1:] in (["0"], [])
        plain = CODES.sub("", line)
        assert plain == clean(plain)
        assert cell_len(plain) < columns


@given(text=MARKED)
def test_no_letter_is_lost(text: str) -> None:
    """What Markdown takes away are its marks alone."""
    shown = CODES.sub("", show(text, columns=400)).replace(" (image, not loaded: ", "")
    letters = re.compile(r"[^\W\d_]")
    assert sorted(letters.findall(shown)) == sorted(letters.findall(text))


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_answers_cost_what_their_length_does(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A piece costs the reading of a few hundred characters at most, and nothing waits for ever."""
    read = Inline.read
    seen = 0

    def count(self: Inline) -> object:
        nonlocal seen
        seen += len(self.text)
        return read(self)

    monkeypatch.setattr(Inline, "read", count)
    size = 40
    pieces = [text[place : place + size] for place in range(0, len(text), size)]
    shown = show(*pieces)
    assert seen < 40 * len(text)
    assert max(map(len, shown.split("\n"))) < 44 * 40  # codes at each word, and no more
    assert shown == show(text)


def test_words_are_shown_as_they_come() -> None:
    """What is certain waits for no end of a line: text at each word, emphasis at its end."""
    markdown = Markdown(Margin(80))
    assert markdown.feed("one two thr") == "| one two"
    assert markdown.feed("ee **fo") == " three"
    assert markdown.feed("ur** fi") == " \x1b[1mfour\x1b[0m"
    assert markdown.feed("ve\n- s") == " five\n"
    assert markdown.feed("ix seven") == "| - six"
    assert markdown.end() == " seven\n"


def test_chinese_is_shown_as_it_comes() -> None:
    """Text without blanks waits for no end of a line either."""
    markdown = Markdown(Margin(80))
    assert markdown.feed("漢字漢字**強") == "| 漢字"
    assert markdown.feed("い**です。").replace("\x1b[1m", "").replace("\x1b[0m", "") == "漢字強いで"
    assert markdown.end() == "す。\n"


def test_what_never_ends_waits_for_a_few_hundred_characters() -> None:
    """Emphasis, code and links that nobody ends are text, and hold up no more than that."""
    for begins in ("**a", "`a", "[a"):
        markdown = Markdown(Margin(80))
        assert markdown.feed(f"x {begins}" + " b" * 150) == "| x"
        assert begins in markdown.feed(" b" * 150).replace("\n| ", " ")


def test_chinese_breaks_anywhere_but_before_what_ends_a_clause() -> None:
    """Wide characters count two columns; a comma stays with what it follows."""
    narrow = partial(show, columns=24)
    assert narrow("abc 漢字漢字漢字漢字漢字。漢") == "| abc 漢字漢字漢字漢字\n| 漢字。漢\n"
    assert narrow("漢字漢字漢字漢字漢字。") == "| 漢字漢字漢字漢字漢\n| 字。\n"
