import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.own_text import OwnText, join, own_spans

own = st.text("ab ", max_size=6).map(OwnText.whole)
texts = st.lists(st.one_of(own, st.text("ab ", max_size=6)), max_size=6)


def mask(text: str) -> str:
    """Give a letter a character: o for the template's own, c for content."""
    marks = ["c"] * len(text)
    for begin, end in own_spans(text):
        marks[begin:end] = "o" * (end - begin)
    return "".join(marks)


def expected(pieces: list[str]) -> str:
    return "".join(("o" if isinstance(piece, OwnText) else "c") * len(piece) for piece in pieces)


@given(texts)
def test_join(pieces: list[str]) -> None:
    """
    What is joined, or added piece by piece from either side, knows where each piece came from, and
    has one span for what stands together.
    """
    joined = join(pieces)
    assert joined == "".join(pieces)
    assert mask(joined) == expected(pieces)
    added = ""
    for piece in pieces:
        added = added + piece
    assert (added, mask(added)) == (joined, mask(joined))
    ends = [end for _, end in own_spans(joined)]
    assert all(begin not in ends for begin, _ in own_spans(joined))


@given(texts, st.integers(-20, 20), st.integers(-20, 20))
def test_cut(pieces: list[str], begin: int, end: int) -> None:
    """
    A slice, and what is stripped, knows the same of what is left.
    """
    text, plain, marks = join(pieces), "".join(pieces), expected(pieces)
    assert (text[begin:end], mask(text[begin:end])) == (plain[begin:end], marks[begin:end])
    for name in ("strip", "lstrip", "rstrip"):
        for characters in (None, "a", " b"):
            cut = getattr(text, name)(characters)
            assert cut == getattr(plain, name)(characters)
            at = len(plain) - len(plain.lstrip(characters)) if name != "rstrip" else 0
            assert mask(cut) == marks[at : at + len(cut)]


def test_what_is_forgotten_is_content() -> None:
    """
    What comes out of any other operation is content, never the template's.
    """
    text = OwnText.whole("<a>")
    others = (
        text.upper(), text.replace("a", "b"), text[0], text[::-1], text * 2, text.center(9),
        text.split("a")[0], "-".join(text),
    )  # fmt: skip
    assert [own_spans(other) for other in others] == [()] * len(others)


def test_same_as_any_string() -> None:
    """
    It is equal to the same characters in any other string, and found by them.
    """
    text = OwnText.whole("user")
    assert text == "user"
    assert {"user": 1}[text] == 1
    assert str(text) is text
    with pytest.raises(TypeError):
        text + 1
