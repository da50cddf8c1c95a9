import json
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chatbot.openai.body import RequestError
from app.chatbot.openai.request import Asked, parse_chat, parse_completion
from app.protocol.question import Message, Options, ToolCall

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
    [question] = asked.questions
    assert question.messages == (
        Message("system", "Be short."),
        Message("user", "Hello?"),
        Message("assistant", "Hey."),
        Message("user", "Who reads this?"),
    )
    assert question.options == Options(max_tokens=99, temperature=1, stop=("x",), padding="off")
    assert asked.stream
    assert asked.include_usage


def test_prompts() -> None:
    """Each prompt is a question without history; tokens are none."""
    for prompt, texts in (("Who?", ["Who?"]), (["Who?"], ["Who?"]), (["a", "b"], ["a", "b"])):
        asked = parse_completion(encode(model="m", prompt=prompt), DEFAULTS)
        expected = [(Message("user", text),) for text in texts]
        assert [question.messages for question in asked.questions] == expected
    for wrong in (["a", " "], [], [1, 2], [[1]], " ", ["a"] * 17):
        with pytest.raises(RequestError) as raised:
            parse_completion(encode(model="m", prompt=wrong), DEFAULTS)
        assert (raised.value.parameter or "").startswith("prompt")


def test_neutral_values_are_of_their_own_type() -> None:
    """1 is not true: what only looks like the value that changes nothing is refused."""
    assert options(n=1, logprobs=False, presence_penalty=0.0) == DEFAULTS
    cases: list[dict[str, object]] = [{"n": True}, {"logprobs": 0}, {"logit_bias": []}]
    for wrong in cases:
        with pytest.raises(RequestError) as raised:
            chat(**wrong)
        assert raised.value.parameter in wrong


def test_only_an_assistant_may_say_nothing() -> None:
    """A message without content is refused by its place, but for an assistant's."""
    question = {"role": "user", "content": "Who?"}
    asked = chat(messages=[question, {"role": "assistant", "content": None}, question])
    assert asked.questions[0].messages[1] == Message("assistant", "")
    for role in ("system", "developer", "user"):
        for empty in ({"role": role}, {"role": role, "content": None}):
            with pytest.raises(RequestError) as raised:
                chat(messages=[question, empty, question])
            assert raised.value.parameter == "messages[1].content"
            assert raised.value.code == "missing_required_parameter"


def test_neutral_names_are_of_the_whole() -> None:
    """What may stand beside the messages, since it changes nothing, may not stand in one."""
    for name, value in (("n", 1), ("functions", [])):
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
        service_tier="flex", prediction={"type": "content"}, functions=[{"name": "f"}], audio={}
    )
    assert (error.parameter, error.code) == ("prediction", "unsupported_parameter")
    named = [part.split(" ")[0] for part in str(error).split("; ")]
    assert named == ["prediction", "functions", "audio", "service_tier"]
    assert "other than 'auto' or 'default'" in str(error)
    question = {"role": "user", "content": [{"type": "image_url", "text": "x"}], "x": 1}
    error = refuse(messages=[question], temperature="warm", model=None)
    assert error.parameter == "model"
    for name in ("messages[0].content[0]: only parts of type text", "messages[0].x", "temperature"):
        assert name in str(error)


def test_a_refusal_is_bounded() -> None:
    """However much is refused, the words that say so are few."""
    error = refuse(**{f"parameter_{number}" * 99: 1 for number in range(999)})
    assert "and 991 more" in str(error)
    assert len(str(error)) < 1000


def test_very_much_is_only_counted() -> None:
    """What would take long to list is counted, after as much as may well be a mistake."""
    assert "and 9992 more" in str(refuse(**{f"parameter_{n}": 1 for n in range(10_000)}))
    error = refuse(**{f"parameter_{number}": 1 for number in range(10_001)})
    assert (error.parameter, error.code) == (None, "invalid_value")
    assert "10001 members that are not served" in str(error)


def test_whole_numbers() -> None:
    """An integer may be written as 8.0; neither 8.5 nor true is one."""
    assert options(max_tokens=8.0, seed=3.0) == replace(DEFAULTS, max_tokens=8, seed=3)
    for wrong in (8.5, True, "8", 1e300):
        assert refuse(max_tokens=wrong).parameter == "max_tokens"


def messages_of(*given: Any) -> tuple[Message, ...]:
    return chat(messages=list(given)).questions[0].messages


def test_names_of_speakers() -> None:
    """A name goes with its message; one that no template could tell from text is refused."""
    [message] = messages_of({"role": "user", "content": "Who?", "name": "jdoe"})
    assert message == Message("user", "Who?", "jdoe")
    wrong = {"role": "user", "content": "Who?", "name": "John Doe"}
    assert refuse(messages=[wrong]).parameter == "messages[0].name"


ASKED = {"role": "user", "content": "Weather?"}
GIVEN_CALL = {
    "id": "call_0123456789",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Bonn"}'},
}
RESULT = {"role": "tool", "tool_call_id": "call_0123456789", "content": [part("18"), part(" °C")]}


def test_calls_and_their_results() -> None:
    """What an assistant called, and what came of it, is part of the conversation."""
    calling = {
        "role": "assistant",
        "content": None,
        "tool_calls": [GIVEN_CALL],
        "reasoning_content": "Hm.",
        "refusal": None,
        "annotations": [],
    }
    _, called, result = messages_of(ASKED, calling, RESULT)
    [call] = called.calls
    assert (call.name, call.arguments, called.reasoning) == (
        "get_weather",
        '{"city":"Bonn"}',
        "Hm.",
    )
    assert (result.role, result.text, result.call_id) == ("tool", "18 °C", call.id)
    assert re.fullmatch("[A-Za-z0-9]{9}", call.id)
    ours = {**GIVEN_CALL, "id": "aB3456789", "index": 0, "function": {"name": "f", "arguments": ""}}
    _, called, _ = messages_of(
        ASKED, {"role": "assistant", "tool_calls": [ours]}, {**RESULT, "tool_call_id": "aB3456789"}
    )
    assert called.calls == (ToolCall("aB3456789", "f", "{}"),)


@pytest.mark.parametrize(
    ("messages", "parameter"),
    [
        ([ASKED, {"role": "tool", "content": "18"}], "messages[1].tool_call_id"),
        ([ASKED, {"role": "tool", "tool_call_id": "a"}], "messages[1].content"),
        ([{**ASKED, "tool_calls": [GIVEN_CALL]}], "messages[0].tool_calls"),
        ([{**ASKED, "tool_call_id": "a"}], "messages[0].tool_call_id"),
        ([ASKED, {"role": "assistant", "tool_calls": [GIVEN_CALL]}], "messages"),
        ([ASKED, {"role": "assistant", "content": " "}], "messages"),
        ([ASKED, {"role": "system", "content": "Be short."}], "messages"),
        ([{"role": "function", "content": "18", "name": "f"}], "messages[0].role"),
        ([{**ASKED, "content": [{"type": "image_url"}]}], "messages[0].content[0]"),
        ([{**ASKED, "content": 5}], "messages[0].content"),
    ],
)
def test_messages_that_do_not_fit(messages: list[object], parameter: str) -> None:
    """What a role cannot have, or lacks, and what leaves nothing to answer, is named."""
    assert refuse(messages=messages).parameter == parameter


def test_an_assistants_last_message_is_continued() -> None:
    """A conversation may end with the beginning of an answer."""
    begun = {"role": "assistant", "content": "The weather"}
    assert messages_of(ASKED, begun)[-1] == Message("assistant", "The weather")


def tool(name: str, **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, **more}}


def schema(told: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": told}}


def thinking(*, enabled: bool) -> dict[str, Any]:
    return {"chat_template_kwargs": {"enable_thinking": enabled}}


TOOL = tool("f", description="Does f.", parameters={"type": "object"})
OTHER_TOOL = tool("g", strict=True)


def options(**more: Any) -> Options:
    [question] = chat(**more).questions
    return question.options


def test_tools() -> None:
    """Tools travel as JSON, as templates know them; so does the choice among them."""
    got = options(tools=[TOOL, OTHER_TOOL], tool_choice="required", parallel_tool_calls=False)
    assert got.tools is not None
    none = {"type": "object", "properties": {}, "additionalProperties": False}
    assert json.loads(got.tools) == [TOOL, tool("g", parameters=none)]
    assert (got.tool_choice, got.tool_calls) == ("required", "one")
    assert options(tools=[TOOL, OTHER_TOOL], tool_choice=tool("g")).tool_choice == "function:g"
    assert options(tools=[TOOL], tool_choice="none").tool_choice == "none"


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"tools": [tool(f"f{number}") for number in range(129)]}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [tool("a b")]}, "tools[0].function.name"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": tool("f")}, "tool_choice"),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": [TOOL]}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": tool("g")}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        (schema({"schema": {"const": "a" * 40_000}}), "response_format"),
        ({"tools": [tool("f", description="a" * 140_000)]}, "tools"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 101}}, "logit_bias"),
        ({"n": 5}, "n"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"reasoning_effort": "huge"}, "reasoning_effort"),
        ({"chat_template_kwargs": {"add_vision_id": True}}, "chat_template_kwargs.add_vision_id"),
        ({"presence_penalty": 3}, "presence_penalty"),
        ({"min_p": 2}, "min_p"),
    ],
)
def test_options_out_of_range(change: dict[str, object], parameter: str) -> None:
    """Each is named as the caller knows it."""
    assert refuse(**change).parameter == parameter


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"response_format": {"type": "json_object"}}, {"schema": '{"type":"object"}'}),
        (
            schema({"name": "x", "strict": True, "schema": {"enum": ["é", 1]}}),
            {"schema": '{"enum":["é",1]}'},
        ),
        (schema({"name": "x"}), {"schema": '{"type":"object"}'}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": 3}),
        ({"n": 4}, {"n": 4}),
        ({"presence_penalty": 0.5}, {"presence_penalty": 0.5}),
        ({"frequency_penalty": -1}, {"frequency_penalty": -1}),
        ({"logit_bias": {"7": -100, "5": 1.5}}, {"logit_bias": (5, 1_500_000, 7, -100_000_000)}),
        ({"min_p": 0.1, "top_k": 5}, {"min_p": 0.1, "top_k": 5}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"top_k": -1, "seed": -1}, {}),
        ({"seed": -2}, {"seed": 2**63 - 2}),
        ({"top_p": 0}, {"top_p": 0.000001}),
        ({"stop": ["", "x"]}, {"stop": ("x",)}),
        ({"stop": ""}, {}),
        ({"reasoning_effort": "none"}, {"thinking": "off"}),
        ({"reasoning_effort": "minimal"}, {"thinking": "low"}),
        ({**thinking(enabled=False), "reasoning_effort": "high"}, {"thinking": "off"}),
        ({"chat_template_kwargs": {"thinking": True}}, {"thinking": "on"}),
        ({**thinking(enabled=True), "reasoning_effort": "low"}, {"thinking": "low"}),
        ({**thinking(enabled=True), "reasoning_effort": "none"}, {"thinking": "on"}),
        ({"max_completion_tokens": 5}, {"max_tokens": 5}),
        # What clients send by default, or for OpenAI alone.
        ({"tools": [], "tool_choice": "auto", "parallel_tool_calls": True}, {}),
        ({"tools": [], "tool_choice": "none", "parallel_tool_calls": False}, {}),
        ({"functions": [], "function_call": "none"}, {}),
        ({"function_call": "auto", "service_tier": "default", "verbosity": "medium"}, {}),
        ({"user": "jdoe", "metadata": {"a": "b"}, "store": True, "service_tier": "auto"}, {}),
        ({"safety_identifier": "x", "prompt_cache_key": "y", "prompt_cache_retention": "24h"}, {}),
        ({"stream": True, "stream_options": {"include_obfuscation": True}}, {}),
        ({"modalities": ["text"], "response_format": {"type": "text"}, "logit_bias": {}}, {}),
    ],
)  # fmt: skip
def test_options(change: dict[str, object], expected: dict[str, Any]) -> None:
    """What is asked for becomes an option of the question; what changes nothing, nothing."""
    assert options(**change) == replace(DEFAULTS, **expected)


def test_a_schema_that_cannot_be_held_to() -> None:
    """What a schema has that is not served is named by its path, before anything is sent."""
    wrong = {"type": "object", "properties": {"a": {"not": {}}}}
    error = refuse(**schema({"name": "x", "schema": wrong}))
    assert error.parameter == "response_format.json_schema.schema"
    assert error.code == "unsupported_value"
    assert "#/properties/a/not" in str(error)
    given: dict[str, Any] = {"tools": [TOOL, tool("g", parameters=wrong)]}
    assert options(**given).tools is not None  # what the model is free to call is held to nothing
    for held in ({"tool_choice": "required"}, schema({"name": "x", "schema": {}})):
        error = refuse(**given, **held)
        assert error.parameter == "tools[1].function.parameters"
    assert options(**given, tool_choice=tool("f")).tool_choice == "function:f"
    assert refuse(**given, tool_choice=tool("g")).parameter == "tools[1].function.parameters"


def test_completions_have_their_own() -> None:
    """`logprobs` is a number there; `suffix`, `echo` and `best_of` may say what is so anyway."""
    given = {"logprobs": 2, "suffix": "", "echo": False, "best_of": 1, "n": 2}
    [question] = parse_completion(encode(model="m", prompt="a", **given), DEFAULTS).questions
    assert question.options == replace(DEFAULTS, logprobs=2, n=2)


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
