import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.asker.question import encode_question
from app.protocol.constants import (
    MAX_QUESTION_BYTES,
    MAX_SCHEMA_BYTES,
    MAX_TOOLS_BYTES,
    MAX_TURNS,
)
from app.protocol.errors import ProtocolError, QuestionError, TooLongError
from app.protocol.question import FIELDS, Message, Options, Question, ToolCall, parse_question
from tests.samples import make_question

ROOT = Path(__file__).parents[3]

texts = st.text(max_size=40)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=64)
names = st.just("") | ids
calls = st.lists(st.builds(ToolCall, ids, ids, texts), max_size=3).map(tuple)
messages = (
    st.builds(Message, st.sampled_from(["system", "user"]), texts, names)
    | st.builds(Message, st.just("assistant"), texts, names, texts, calls)
    | st.builds(Message, st.just("tool"), texts, names, call_id=ids)
)
asked = st.text(min_size=1, max_size=40).filter(lambda text: text.strip() != "")
json = st.none() | st.text(min_size=2, max_size=40)


def fraction(least: int, most: int) -> st.SearchStrategy[float]:
    """Give numbers that travel as *least* to *most* millionths."""
    return st.integers(least, most).map(lambda millionths: millionths / 1_000_000)


def flatten(biases: dict[int, int]) -> tuple[int, ...]:
    """Give a map of biases as it travels."""
    return tuple(value for pair in sorted(biases.items()) for value in pair)


options = st.builds(
    Options,
    tools=json,
    tool_choice=st.sampled_from(["auto", "none"]),
    tool_calls=st.sampled_from(["many", "one"]),
    schema=json,
    thinking=st.sampled_from(["auto", "off", "on", "low", "medium", "high"]),
    max_tokens=st.integers(1, 2**20),
    temperature=fraction(0, 2_000_000),
    top_p=fraction(1, 1_000_000),
    top_k=st.integers(0, 2**20),
    min_p=fraction(0, 1_000_000),
    presence_penalty=fraction(-2_000_000, 2_000_000),
    frequency_penalty=fraction(-2_000_000, 2_000_000),
    repetition_penalty=fraction(1, 2_000_000),
    logit_bias=st.dictionaries(st.integers(0, 2**31 - 1), st.integers(-(10**8), 10**8)).map(
        flatten
    ),
    logprobs=st.none() | st.integers(0, 20),
    n=st.integers(1, 16),
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
        "messages": [["user", "hello", ""]],
        "tools": None,
        "tool_choice": "auto",
        "tool_calls": "many",
        "schema": None,
        "thinking": "auto",
        "max_tokens": 8,
        "temperature": 0,
        "top_p": 1_000_000,
        "top_k": 0,
        "min_p": 0,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "repetition_penalty": 1_000_000,
        "logit_bias": [],
        "logprobs": None,
        "n": 1,
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


CALLS = ["assistant", "", "", "", [["id", "f", "{}"], ["id2", "f", "{}"]]]


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
        {"messages": [["user", "hello", ""]] * (MAX_TURNS + 1)},
        {"messages": [CALLS, *[["user", "hello", ""]] * (MAX_TURNS - 1)]},
        {"messages": [["user", " \n", ""]]},
        {"messages": [["system", "hello", ""]]},
        {"messages": [["assistant", "", "", "", []]]},
        {"messages": [CALLS]},
        {"messages": [["assistant", "a", "", ""]]},
        {"messages": [["assistant", "a", "", "", [["id", "", "{}"]]], ["user", "hello", ""]]},
        {"messages": [["assistant", "a", "", "", [["i d", "f", "{}"]]], ["user", "hello", ""]]},
        {"messages": [["tool", "hello", ""]]},
        {"messages": [["tool", "hello", "", ""]]},
        {"messages": [["tool", "hello", "", "x" * 65]]},
        {"messages": [["user", "hello", "é"]]},
        {"messages": [["user"]]},
        {"messages": [["user", "hello"]]},
        {"messages": [["user", "hello", "", "more"]]},
        {"messages": [["user", b"hello", ""]]},
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
        {"temperature": None},
        {"tools": "["},
        {"tools": "[" + " " * MAX_TOOLS_BYTES},
        {"tools": []},
        {"schema": "{" + " " * MAX_SCHEMA_BYTES},
        {"schema": True},
        {"tool_choice": "function:f"},
        {"tool_choice": "function:", "tools": "[]"},
        {"tool_choice": "any"},
        {"tool_choice": ["auto"]},
        {"tool_calls": True},
        {"thinking": None},
        {"min_p": 1_000_001},
        {"presence_penalty": -2_000_001},
        {"frequency_penalty": 2_000_001},
        {"repetition_penalty": 0},
        {"logit_bias": [1]},
        {"logit_bias": [[1, 2]]},
        {"logit_bias": [1, 2, 1, 3]},
        {"logit_bias": [True, 0]},
        {"logit_bias": [2**31, 0]},
        {"logit_bias": [n // 2 for n in range(602)]},
        {"logprobs": 21},
        {"logprobs": False},
        {"n": 0},
        {"n": 17},
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
    A history of the most messages and tool calls there may be passes, with every option in use.
    """
    called = Message("assistant", "a", "b", reasoning="c", calls=(ToolCall("d", "e", "f"),))
    history = (*[called] * (MAX_TURNS // 2 - 1), Message("user", "a"), Message("user", "b"))
    biases = tuple(n // 2 for n in range(600))
    question = Question(history, Options(logit_bias=biases, stop=("a",) * 4))
    assert parse_question(encode_question(question)) == question


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
    with pytest.raises(ProtocolError, match="top_p is not over 0 to 1"):
        Options(top_p=1e-7)


def test_repr() -> None:
    """
    What a question says never shows in its representation.
    """
    secrets = {"tools": "CANARY", "schema": "CANARY", "stop": ("CANARY",)}
    options = Options(tool_choice="function:CANARY", **secrets)  # type: ignore[arg-type] # as named
    question = make_question("CANARY", options)
    called = Message("assistant", "a", reasoning="CANARY", calls=(ToolCall("a", "b", "CANARY"),))
    assert "CANARY" not in repr((question, called))


def test_options_are_numbered_as_in_the_spec() -> None:
    """
    The table of SPEC.md section 5.3 lists the keys of a question in their order, by number.
    """
    section = (ROOT / "SPEC.md").read_text().partition("### 5.3")[2].partition("### 5.4")[0]
    rows = re.findall(r"^\| ([0-9]+) \| `(\w+)` \|", section, re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == list(enumerate(FIELDS))


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": True},
        {"max_tokens": 1.5},
        {"n": 2.0},
        {"min_p": float("inf")},
        {"seed": "1"},
        {"logit_bias": (1,)},
        {"logit_bias": ((1, 2),)},
        {"stop": ["a"]},
        {"tools": b"[]"},
        {"thinking": "loud"},
        {"tool_choice": "required"},
    ],
)
def test_options_are_checked_where_they_are_made(changes: dict[str, object]) -> None:
    """
    What the enclave would refuse is refused on the asker's own side, when it is made.
    """
    with pytest.raises(QuestionError):
        Options(**changes)  # type: ignore[arg-type] # that is the point


@pytest.mark.parametrize(
    "message",
    [
        Message("user", "a", "a b"),
        Message("assistant", "a", calls=(ToolCall("", "f", "{}"),)),
        Message("tool", "a"),
    ],
)
def test_messages_are_checked_before_they_are_sealed(message: Message) -> None:
    """
    A message that the enclave would refuse is never sealed.
    """
    with pytest.raises(QuestionError, match="malformed"):
        encode_question(Question((message, Message("user", "b"))))
