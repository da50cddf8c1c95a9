from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.completion import Completion
from app.protocol.piece import Piece, TokenLogprob
from tests.pieces import text_of

TEXTS = st.text().filter(lambda text: "\ufffd" not in text)


def decode(ids: Sequence[int]) -> str:
    return bytes(ids).decode(errors="replace")


def complete(text: str, *stops: str, strip_start: bool = False) -> tuple[list[str], str]:
    """Push *text* byte by byte; give the texts that came on the way and at the end."""
    completion = Completion(decode, stops=stops, strip_start=strip_start)
    pieces = []
    for token in text.encode():
        pieces.append(text_of(completion.push(token)))
        if completion.has_stopped():
            break
    return pieces, text_of(completion.end())


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
    texts = [text_of(completion.push(byte)) for byte in "é€".encode()[:4]]
    assert texts == ["", "é", "", ""]
    assert completion.end(cut=True) == []


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
    pieces = [piece for _ in range(200) for piece in completion.push(1)]
    text = text_of([*pieces, *completion.end()])
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


def test_a_text_that_goes_on() -> None:
    """
    The space with which a text goes on stays, though the decoder drops one at the start; and what
    it continues is none of it.
    """

    def decode_words(tokens: Sequence[int]) -> str:
        return "".join(f" {token}" for token in tokens).removeprefix(" ")

    completion = Completion(decode_words, stops=(), strip_start=False, before=(1, 2))
    pieces = completion.push(3) + completion.push(4) + completion.end()
    assert (text_of(pieces), completion.tokens) == (" 3 4", 2)


THINK, DONE = 256, 257
CONTROLS = {THINK: "<think>", DONE: "</think>"}
Made = bytes | int  # of a script: text, byte by byte, or a control token


def tell(token: int) -> TokenLogprob:
    spelling = CONTROLS[token].encode() if token in CONTROLS else bytes([token])
    return TokenLogprob(spelling, -1.0)


def run(script: Sequence[Made], *stops: str, cut: bool = False) -> list[Piece]:
    """Push what *script* says, all of it told, until a stop string comes."""
    completion = Completion(decode, stops=stops, strip_start=False, controls=CONTROLS, index=2)
    tokens = [t for made in script for t in (made if isinstance(made, bytes) else [made])]
    pieces: list[Piece] = []
    for token in tokens:
        pieces += completion.push(token, tell(token))
        if completion.has_stopped():
            break
    return pieces + completion.end(cut=cut)


def told(pieces: Sequence[Piece]) -> bytes:
    return b"".join(one.token for piece in pieces for one in piece.logprobs)


def shown(pieces: Sequence[Piece]) -> str:
    """Write control tokens in brackets that no script has."""
    return "".join(f"[{piece.text}]" if piece.control else piece.text for piece in pieces)


@given(
    st.lists(st.sampled_from([THINK, DONE]) | TEXTS.filter(lambda text: "[" not in text)),
)
def test_control_tokens(script: list[int | str]) -> None:
    """
    A control token is a piece of its own in its place, text that spells one is text, and every
    token is told of once, in order.
    """
    pieces = run([made.encode() if isinstance(made, str) else made for made in script])
    expected = [f"[{CONTROLS[made]}]" if isinstance(made, int) else made for made in script]
    assert shown(pieces) == "".join(expected)
    spelled = [CONTROLS[made] if isinstance(made, int) else made for made in script]
    assert told(pieces) == "".join(spelled).encode()
    assert {piece.index for piece in pieces} <= {2}


def test_a_control_token_inside_a_character() -> None:
    """
    A character that a control token breaks off is none, and none spans it.
    """
    bear = "🐻".encode()
    assert shown(run([b"a", bear[:2], THINK, bear[2:], b"b"])) == "a\ufffd[<think>]\ufffd\ufffdb"


def test_a_stop_string_does_not_span_a_control_token() -> None:
    """
    Text held back as the beginning of a stop string comes before the control token.
    """
    assert shown(run([b"one EN", THINK, b"D two"], "END")) == "one EN[<think>]D two"


def test_a_control_token_as_a_stop_string() -> None:
    """
    A stop string that is a control token's spelling ends the answer at the token.
    """
    pieces = run([THINK, b"why", DONE, b"so"], "</think>")
    assert shown(pieces) == "[<think>]why"
    assert told(pieces) == b"<think>why"


def test_a_stop_string_before_a_control_token() -> None:
    """
    A stop string that ends right before a control token keeps that out, too.
    """
    completion = Completion(decode, stops=("\ufffd",), strip_start=False, controls=CONTROLS)
    pieces = completion.push(0xF0) + completion.push(THINK)
    assert (pieces, completion.has_stopped()) == ([], True)


@given(before=TEXTS, stop=TEXTS.filter(bool), after=TEXTS)
def test_what_is_told_beside_a_stop_string(before: str, stop: str, after: str) -> None:
    """
    Of what a stop string cuts off nothing is told; of every token that has text, something is.
    """
    text = (before + stop + after).encode()
    pieces = run([text], stop)
    kept = text_of(pieces, 2).encode()
    assert text.startswith(kept)
    assert told(pieces) == kept


def test_told_with_its_text() -> None:
    """
    What is told of a token comes right after its text, all tokens of a character together, and
    with what is held back.
    """
    completion = Completion(decode, stops=("xy",), strip_start=False)
    made = [completion.push(byte, tell(byte)) for byte in "éxz".encode()]
    e, bytes_of_e = Piece("é"), tuple(map(tell, "é".encode()))
    xz = Piece("", logprobs=tuple(map(tell, b"xz")))
    assert made == [[], [e, Piece("", logprobs=bytes_of_e)], [], [Piece("xz"), xz]]


def test_a_token_cut_by_the_limit_is_told() -> None:
    """
    A token whose character the limit cut off was made, and is told of.
    """
    pieces = run(["aé".encode()[:2]], cut=True)
    assert (text_of(pieces, 2), told(pieces)) == ("a", "aé".encode()[:2])
