import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chatbot.openai.body import RequestError
from app.chatbot.openai.request import Asked, parse_chat, parse_completion
from app.protocol.question import Message, Options

DEFAULTS = Options(max_tokens=99, padding="off")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "model",
        "messages",
        "stream",
        "stream_options",
        "n",
        "stop",
        "seed",
        "top_p",
        "prompt",
        "user",
    ]
)


def encode(**body: Any) -> bytes:
    return json.dumps(body).encode()


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def chat(**more: Any) -> Asked:
    messages = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": [part("He"), part("y.")]},
        {"role": "user", "content": "Who reads this?"},
    ]
    return parse_chat(encode(**{"model": "m", "messages": messages, **more}), DEFAULTS)


def test_messages_and_options() -> None:
    """Messages become history and question; what is left out is the program's default."""
    asked = chat(temperature=1, stop="x", stream=True, stream_options={"include_usage": True})
    assert asked.history == (
        Message("system", "Be short."),
        Message("user", "Hello?"),
        Message("assistant", "Hey."),
    )
    assert asked.text == "Who reads this?"
    assert asked.options == Options(max_tokens=99, temperature=1, stop=("x",), padding="off")
    assert asked.stream
    assert asked.include_usage


def test_prompts() -> None:
    """A prompt, alone or in a list, is a question without history; more than one is refused."""
    for prompt in ("Who?", ["Who?"]):
        asked = parse_completion(encode(model="m", prompt=prompt), DEFAULTS)
        assert (asked.history, asked.text) == ((), "Who?")
    for wrong in (["a", "b"], [], [1, 2], [[1]], " "):
        with pytest.raises(RequestError) as raised:
            parse_completion(encode(model="m", prompt=wrong), DEFAULTS)
        assert (raised.value.parameter or "").startswith("prompt")


def test_neutral_values_are_of_their_own_type() -> None:
    """1 is not true: what only looks like the value that changes nothing is refused."""
    assert chat(n=1, logprobs=False, presence_penalty=0.0).text
    cases: list[dict[str, object]] = [{"n": True}, {"logprobs": 0}, {"logit_bias": []}]
    for wrong in cases:
        with pytest.raises(RequestError) as raised:
            chat(**wrong)
        assert raised.value.parameter in wrong


def test_only_an_assistant_may_say_nothing() -> None:
    """A message without content is refused by its place, but for an assistant's."""
    question = {"role": "user", "content": "Who?"}
    asked = chat(messages=[question, {"role": "assistant", "content": None}, question])
    assert asked.history[1] == Message("assistant", "")
    for role in ("system", "developer", "user"):
        for empty in ({"role": role}, {"role": role, "content": None}):
            with pytest.raises(RequestError) as raised:
                chat(messages=[question, empty, question])
            assert raised.value.parameter == "messages[1].content"
            assert raised.value.code == "missing_required_parameter"


def test_neutral_names_are_of_the_whole() -> None:
    """What may stand beside the messages, since it changes nothing, may not stand in one."""
    for name, value in (("n", 1), ("store", False)):
        with pytest.raises(RequestError) as raised:
            chat(messages=[{"role": "user", "content": "Who?", name: value}])
        assert raised.value.parameter == f"messages[0].{name}"


def refuse(**more: Any) -> RequestError:
    with pytest.raises(RequestError) as raised:
        chat(**more)
    return raised.value


def test_a_refusal_names_all_that_is_refused() -> None:
    """All are named in the caller's order, and last what clients add by themselves."""
    error = refuse(
        user="jdoe", response_format={"type": "json_object"}, tool_choice="auto", top_k=5
    )
    assert (error.parameter, error.code) == ("response_format", "unsupported_parameter")
    named = [part.split(" ")[0] for part in str(error).split("; ")]
    assert named == ["response_format", "top_k", "user", "tool_choice"]
    question = {"role": "user", "content": [{"type": "image_url", "text": "x"}], "x": 1}
    error = refuse(messages=[question], temperature="warm", model=None)
    assert error.parameter == "model"
    for name in ("messages[0].content[0].type", "messages[0].x", "temperature"):
        assert name in str(error)


def test_a_refusal_is_bounded() -> None:
    """However much is refused, the words that say so are few."""
    error = refuse(**{f"parameter_{number}" * 99: 1 for number in range(999)})
    assert "and 991 more" in str(error)
    assert len(str(error)) < 1000


def test_a_refusal_of_very_much_is_quick() -> None:
    """A body full of what is not served costs no more than in proportion to its size."""
    started = time.process_time()
    error = refuse(**{f"parameter_{number}": 1 for number in range(50_000)})
    assert "and 49992 more" in str(error)
    assert time.process_time() - started < 10  # each with each would take minutes


def test_whole_numbers() -> None:
    """An integer may be written as 8.0; neither 8.5 nor true is one."""
    assert chat(max_tokens=8.0, seed=3.0).options == Options(max_tokens=8, seed=3, padding="off")
    for wrong in (8.5, True, "8", 1e300):
        assert refuse(max_tokens=wrong).parameter == "max_tokens"


def test_names_of_speakers() -> None:
    """A name is taken, is no part of the prompt, and is told as that."""
    asked = chat(messages=[{"role": "user", "content": "Who?", "name": "jdoe"}])
    assert (asked.text, asked.unused) == ("Who?", ("messages.name",))
    assert chat().unused == ()


@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_request_or_an_error(body: bytes) -> None:
    """Whatever comes gives a request or the one documented error."""
    for parse in (parse_chat, parse_completion):
        with suppress(RequestError):
            parse(body, DEFAULTS)


@given(change=st.dictionaries(NAMES, JSON, max_size=3), word=st.just("canary"))
def test_errors_quote_nothing(change: dict[str, object], word: str) -> None:
    """No error says more than the names of members; questions do not end up in messages."""
    messages = [{"role": "user", "content": word, "x": word}]
    with pytest.raises(RequestError) as raised:
        parse_chat(encode(**{"messages": messages, **change, "model": None}), DEFAULTS)
    assert word not in str(raised.value)
