from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.asker.question import encode_question
from app.protocol.constants import MAX_QUESTION_BYTES, MAX_TURNS
from app.protocol.errors import ProtocolError, TooLongError
from app.protocol.question import Message, Options, Question, Role, parse_question
from tests.samples import make_question

roles: st.SearchStrategy[Role] = st.sampled_from(["system", "user", "assistant"])
messages = st.builds(Message, roles, st.text(max_size=40))
asked = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() != "")
options = st.builds(
    Options,
    max_tokens=st.integers(1, 2**20),
    temperature=st.integers(0, 2_000_000).map(lambda millionths: millionths / 1_000_000),
    top_p=st.integers(1, 1_000_000).map(lambda millionths: millionths / 1_000_000),
    top_k=st.integers(0, 2**20),
    seed=st.none() | st.integers(0, 2**63 - 1),
    stop=st.lists(st.text(min_size=1, max_size=20), max_size=4).map(tuple),
    padding=st.sampled_from(["constant", "off"]),
)


@given(history=st.lists(messages, max_size=5), text=asked, options=options)
def test_round_trip(history: list[Message], text: str, options: Options) -> None:
    """
    Messages in order and every option come back.
    """
    question = Question((*history, Message("user", text)), options)
    assert parse_question(encode_question(question)) == question


@given(data=st.binary())
def test_any_bytes(data: bytes) -> None:
    """
    Any bytes are a question or a `ProtocolError`.
    """
    with suppress(ProtocolError):
        parse_question(data)


def fields(**changes: cbor.Encodable) -> dict[str, cbor.Encodable]:
    """Give a question's map with other values."""
    given: dict[str, cbor.Encodable] = {
        "messages": [["user", "hello"]],
        "max_tokens": 8,
        "temperature": 0,
        "top_p": 1_000_000,
        "top_k": 0,
        "seed": None,
        "stop": [],
        "padding": "constant",
    }
    return given | changes


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text(),
    lambda item: st.lists(item, max_size=3) | st.dictionaries(st.text(), item, max_size=3),
    max_leaves=6,
)


@given(name=st.sampled_from(sorted(fields())), value=anything)
def test_any_value(name: str, value: cbor.Encodable) -> None:
    """
    Whatever stands in a field, the answer is a question or a `ProtocolError`.
    """
    with suppress(ProtocolError):
        parse_question(cbor.encode(fields(**{name: value})))


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": []},
        {"messages": [["user", "hello"]] * (MAX_TURNS + 1)},
        {"messages": [["user", " \n"]]},
        {"messages": [["user", "hello"], ["assistant", "hi"]]},
        {"messages": [["tool", "hello"]]},
        {"messages": [["user"]]},
        {"messages": [["user", "hello", "more"]]},
        {"messages": [["user", b"hello"]]},
        {"messages": [{"user": "hello"}]},
        {"messages": {"user": "hello"}},
        {"max_tokens": 0},
        {"max_tokens": 2**20 + 1},
        {"max_tokens": True},
        {"max_tokens": "8"},
        {"temperature": -1},
        {"temperature": 2_000_001},
        {"top_p": 0},
        {"top_p": 1_000_001},
        {"top_k": -1},
        {"top_k": 2**20 + 1},
        {"seed": -1},
        {"seed": 2**63},
        {"seed": False},
        {"stop": ["a"] * 5},
        {"stop": [""]},
        {"stop": ["é" * 129]},
        {"stop": [b"a"]},
        {"stop": "a"},
        {"padding": "none"},
        {"padding": None},
        {"extra": 1},
    ],
)
def test_out_of_range(changes: dict[str, cbor.Encodable]) -> None:
    """
    Each value outside the range of SPEC.md section 5.3, and each further field, is refused.
    """
    parse_question(cbor.encode(fields()))
    with pytest.raises(ProtocolError):
        parse_question(cbor.encode(fields(**changes)))


def test_fields_in_another_order() -> None:
    """
    A question has one encoding: the same fields in another order are refused.
    """
    moved = dict(reversed(fields().items()))
    with pytest.raises(ProtocolError, match="other fields"):
        parse_question(cbor.encode(moved))


def test_longer_form_of_a_number() -> None:
    """
    A question has one encoding: a number in more bytes than it needs is refused.
    """
    encoded = cbor.encode(fields())
    longer = encoded.replace(cbor.encode("top_k") + b"\x00", cbor.encode("top_k") + b"\x18\x00")
    assert longer != encoded
    with pytest.raises(ProtocolError, match=r"other fields|not the shortest"):
        parse_question(longer)


@pytest.mark.parametrize("field", list(fields()))
def test_missing_field(field: str) -> None:
    """
    No field has a default on the wire.
    """
    rest = {name: value for name, value in fields().items() if name != field}
    with pytest.raises(ProtocolError, match="other fields"):
        parse_question(cbor.encode(rest))


def test_full_history() -> None:
    """
    A history of the most messages there may be passes.
    """
    history = tuple(Message("user", "a") for _ in range(MAX_TURNS))
    assert parse_question(encode_question(Question(history))).messages == history


def test_longest_question() -> None:
    """
    A question of exactly the limit is encoded and read; one byte more is `too_long`, and the
    error has size and limit.
    """
    around = len(encode_question(make_question("a" * 70_000))) - 70_000
    longest = make_question("a" * (MAX_QUESTION_BYTES - around))
    assert parse_question(encode_question(longest)) == longest
    with pytest.raises(TooLongError) as caught:
        encode_question(make_question("a" * (MAX_QUESTION_BYTES - around + 1)))
    assert caught.value.numbers == (MAX_QUESTION_BYTES + 1, MAX_QUESTION_BYTES)


@pytest.mark.parametrize(
    "make",
    [
        lambda: encode_question(make_question("half \ud800 a pair")),
        lambda: make_question(options=Options(stop=("\udfff",))),
    ],
    ids=["text", "stop"],
)
def test_half_a_surrogate_pair(make: Callable[[], object]) -> None:
    """
    Text that UTF-8 cannot carry, as JSON and terminals may give it, is a `ProtocolError`.
    """
    with pytest.raises(ProtocolError, match="not Unicode"):
        make()


@pytest.mark.parametrize(
    ("temperature", "top_p"), [(float("nan"), 1.0), (0.0, float("nan")), (2.1, 1.0), (0.0, 0.0)]
)
def test_floats_out_of_range(temperature: float, top_p: float) -> None:
    """
    Numbers that are none, or out of range, are refused on the asker's own side.
    """
    with pytest.raises(ProtocolError):
        Options(temperature=temperature, top_p=top_p)


def test_smallest_top_p() -> None:
    """
    What the asker's side takes, the enclave takes: a top_p that would travel as 0 is refused.
    """
    smallest = make_question(options=Options(top_p=1e-6))
    assert parse_question(encode_question(smallest)) == smallest
    with pytest.raises(ProtocolError, match="under one millionth"):
        Options(top_p=1e-7)


def test_repr() -> None:
    """
    What a question says never shows in its representation.
    """
    question = make_question("CANARY", Options(stop=("CANARY",)))
    assert "CANARY" not in repr(question)
