from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.completion import Completion

TEXTS = st.text().filter(lambda text: "\ufffd" not in text)


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def complete(text: str, *stops: str, strip_start: bool = False) -> tuple[list[str], str]:
    """Push *text* byte by byte; give the pieces that came on the way and at the end."""
    completion = Completion(decode, stops=stops, strip_start=strip_start)
    pieces = []
    for token in text.encode():
        pieces.append(completion.push(token))
        if completion.has_stopped():
            break
    return pieces, completion.end()


@given(text=TEXTS)
def test_whole_text(text: str) -> None:
    """
    However characters are cut into tokens, their text comes back, whole characters at a time.
    """
    pieces, end = complete(text)
    assert "".join(pieces) + end == text
    assert all("\ufffd" not in piece for piece in pieces)


@given(before=TEXTS, stop=TEXTS.filter(bool), after=TEXTS)
def test_stop(before: str, stop: str, after: str) -> None:
    """
    The text ends where a stop string begins, and no part of it was given before that showed.
    """
    text = before + stop + after
    pieces, end = complete(text, stop)
    assert "".join(pieces) + end == text[: text.index(stop)]


@given(text=TEXTS, stop=TEXTS.filter(bool))
def test_no_stop(text: str, stop: str) -> None:
    """
    Text held back as the possible beginning of a stop string comes at the end.
    """
    pieces, end = complete(text, stop)
    assert "".join(pieces) + end == text.partition(stop)[0]


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("aab", ("ab",), "a"),
        ("one two", ("two", "ne"), "o"),
        ("abcd", ("bc", "abx"), "a"),
        ("abX", ("abc",), "abX"),
    ],
)
def test_overlap(text: str, stops: tuple[str, ...], expected: str) -> None:
    """
    Stop strings that overlap themselves, each other or the end are found all the same.
    """
    pieces, end = complete(text, *stops)
    assert "".join(pieces) + end == expected


def test_incomplete_character() -> None:
    """
    A character whose last bytes the limit cut off is left out.
    """
    completion = Completion(decode, stops=(), strip_start=False)
    assert [completion.push(byte) for byte in "é€".encode()[:4]] == ["", "é", "", ""]
    assert completion.end(cut=True) == ""


def test_a_replacement_character_at_the_end() -> None:
    """
    An answer that the model ends with U+FFFD keeps it: that is what the model wrote.
    """
    pieces, end = complete("what \ufffd")
    assert "".join(pieces) + end == "what \ufffd"


def test_white_space_first() -> None:
    """
    White space before the first word is left out where asked, and only there.
    """
    pieces, end = complete(" \n a b", strip_start=True)
    assert "".join(pieces) + end == "a b"


def test_bytes_that_are_no_character_are_not_held_back_for_ever() -> None:
    """
    Tokens that never become a character are given as what they are, so the work stays small.
    """
    longest = 0

    def decode(tokens: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(tokens))
        return "\ufffd" * len(tokens)

    completion = Completion(decode, stops=(), strip_start=False)
    text = "".join(completion.push(1) for _ in range(200)) + completion.end()
    assert text == "\ufffd" * 200
    assert longest < 20


@pytest.mark.parametrize("text", ["\n\nQuestion: why?", " \nQuestion: why?"])
def test_stop_before_the_first_word(text: str) -> None:
    """
    A stop string that begins with white space ends an answer that has no word yet, though white
    space before the first word is left out.
    """
    pieces, end = complete(text, "\nQuestion:", strip_start=True)
    assert "".join(pieces) + end == ""


@given(text=TEXTS, stop=TEXTS.filter(bool))
def test_strip_and_stop(text: str, stop: str) -> None:
    """
    With both, what is given is the text up to the stop string, without white space at its start.
    """
    pieces, end = complete(text, stop, strip_start=True)
    assert "".join(pieces) + end == text.partition(stop)[0].lstrip()
