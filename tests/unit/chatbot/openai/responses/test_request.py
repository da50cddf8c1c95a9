import json
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.chatbot.openai.body import RequestError
from app.chatbot.openai.responses.items import Item, parse_held
from app.chatbot.openai.responses.request import Asked, parse_body, resolve_request
from app.protocol.question import Message, Options, ToolCall

DEFAULTS = Options(max_tokens=99, padding="off")
LOOK = {"type": "function", "name": "look", "parameters": {"type": "object"}}
CALL = {"type": "function_call", "call_id": "callAAAA1", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "callAAAA1", "output": "seen"}
HELD = {"id": "msg_held", "type": "message", "role": "assistant", "content": "Nobody."}


def find_response(name: str) -> Sequence[Item] | None:
    before = [{"role": "user", "content": "Who?"}, HELD]
    return parse_held(json.dumps(before).encode()) if name == "resp_held" else None


def find_item(name: str) -> Item | None:
    return parse_held(json.dumps([HELD]).encode())[0] if name == "msg_held" else None


def parse(body: bytes) -> Asked:
    found = parse_body(body)
    return resolve_request(found, DEFAULTS, find_response=find_response, find_item=find_item)


def ask(given: object = "Who?", **more: object) -> Asked:
    return parse(json.dumps({"model": "m", "input": given, **more}).encode())


def refuse(given: object = "Who?", **more: object) -> RequestError:
    with pytest.raises(RequestError) as raised:
        ask(given, **more)
    return raised.value


def say(role: str, *texts: str, kind: str = "input_text") -> dict[str, object]:
    return {"role": role, "content": [{"type": kind, "text": text} for text in texts]}


def test_a_text_is_a_users_message() -> None:
    """The shortest request: a text, and the program's own defaults."""
    asked = ask()
    assert asked.question.messages == (Message("user", "Who?"),)
    assert asked.question.options == DEFAULTS
    assert (asked.stream, asked.store) == (False, True)


def test_messages() -> None:
    """Instructions come first; every role and both forms of content are read."""
    asked = ask(
        [
            {"role": "developer", "content": "Be kind."},
            {"type": "message", **say("user", "Hel", "lo?")},
            {**say("assistant", "Hey.", kind="output_text"), "id": "msg_1", "status": "completed"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            say("user", "Who?"),
        ],
        instructions="Be short.",
    )
    assert asked.question.messages == (
        Message("system", "Be short."),
        Message("system", "Be kind."),
        Message("user", "Hello?"),
        Message("assistant", "Hey."),
        Message("assistant", "No."),
        Message("user", "Who?"),
    )


def test_an_assistants_turn_is_one_message() -> None:
    """Reasoning, text and parallel calls are one message; outputs know their tools' names."""
    reasoning = {"type": "reasoning", "id": "rs", "summary": []}
    thought = {**reasoning, "content": [{"type": "reasoning_text", "text": "Hm."}]}
    again = {**reasoning, "summary": [{"type": "summary_text", "text": "Again."}]}
    other = {**CALL, "call_id": "callAAAA2", "name": "book", "arguments": '{"a":1}'}
    text = say("assistant", "So:", kind="output_text")
    seen = {**OUTPUT, "output": [{"type": "input_text", "text": "seen"}]}
    asked = ask([say("user", "Who?"), thought, text, CALL, other, seen])
    calls = (ToolCall("callAAAA1", "look", "{}"), ToolCall("callAAAA2", "book", '{"a":1}'))
    answer = Message("tool", "seen", "look", call_id="callAAAA1")
    assert asked.question.messages[1:] == (Message("assistant", "So:", "", "Hm.", calls), answer)
    asked = ask([say("user", "Who?"), thought, CALL, OUTPUT, again, other, OUTPUT])
    assert [message.role for message in asked.question.messages[1:]] == ["assistant", "tool"] * 2
    assert asked.question.messages[3].reasoning == "Again."
    asked = ask([thought, say("user", "Who?")])
    assert asked.question.messages == (Message("user", "Who?"),), "what was only thought is no turn"


def test_options() -> None:
    """Each parameter that an enclave honours becomes its option."""
    schema = {
        "type": "json_schema",
        "name": "n",
        "schema": {"required": ["b"], "type": "object"},
        "strict": True,
    }
    asked = ask(
        max_output_tokens=8.0,
        temperature=1,
        top_p=0.5,
        top_logprobs=2,
        reasoning={"effort": "none", "summary": "auto"},
        text={"format": schema},
        tools=[LOOK],
        tool_choice={"type": "function", "name": "look"},
        parallel_tool_calls=False,
        stream=True,
        store=False,
    )
    function = {"name": "look", "parameters": {"type": "object"}}
    assert asked.question.options == Options(
        max_tokens=8,
        temperature=1,
        top_p=0.5,
        logprobs=2,
        thinking="off",
        schema='{"required":["b"],"type":"object"}',
        tools=json.dumps([{"type": "function", "function": function}], separators=(",", ":")),
        tool_choice="function:look",
        tool_calls="one",
        padding="off",
    )
    assert (asked.stream, asked.store, asked.summarised) == (True, False, True)
    asked = ask(text={"format": {"type": "json_object"}}, include=["message.output_text.logprobs"])
    assert (asked.question.options.schema, asked.question.options.logprobs) == (
        '{"type":"object"}',
        0,
    )


def test_what_changes_nothing_is_taken() -> None:
    """What clients send by default, and what names its caller, is accepted."""
    asked = ask(
        background=False,
        context_management=[],
        conversation=None,
        include=["reasoning.encrypted_content", "file_search_call.results"],
        max_tool_calls=3,
        metadata={"trace": "1"},
        parallel_tool_calls=True,
        previous_response_id=None,
        prompt_cache_key="k",
        prompt_cache_retention="24h",
        prompt_cache_options={"mode": "implicit", "ttl": "30m"},
        reasoning={"effort": None, "summary": None, "context": "auto"},
        safety_identifier="s",
        service_tier="auto",
        stream_options={"include_obfuscation": True, "include_usage": True},
        text={"format": {"type": "text"}, "verbosity": "medium"},
        tool_choice="auto",
        tools=[],
        top_logprobs=0,
        truncation="disabled",
        user="u",
    )
    assert asked.question.options == DEFAULTS
    assert asked.echo["metadata"] == {"trace": "1"}
    assert asked.echo["user"] == "u"


def test_tools_that_may_be_called() -> None:
    """Choices are checked against the tools; only allowed ones are shown."""
    book = {**LOOK, "name": "book"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function"}]}
    allowed["tools"][0]["name"] = "book"  # type: ignore[index]
    asked = ask(tools=[LOOK, book], tool_choice=allowed)
    assert asked.question.options.tool_choice == "required"
    assert [
        tool["function"]["name"] for tool in json.loads(asked.question.options.tools or "")
    ] == ["book"]
    wrong = json.dumps({"tools": [{**LOOK, "parameters": {"a": 5}}, book], "tool_choice": allowed})
    with pytest.raises(RequestError, match="a number in it"):
        parse(b'{"model": "m", "input": "a", ' + wrong[1:].replace("5", "1e400").encode())
    assert ask(tools=[LOOK], tool_choice="none").question.options.tool_choice == "none"
    named = {"type": "function", "name": "gone"}
    for choice, tools in (("required", []), (named, [LOOK]), ({**allowed, "tools": []}, [book])):
        assert refuse(tools=tools, tool_choice=choice).parameter == "tool_choice"
    assert refuse(tools=[LOOK, book, LOOK]).parameter == "tools[2].name"


@pytest.mark.parametrize(
    ("more", "parameter", "code", "words"),
    [
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "unsupported_value", "type function"),
        ({"tools": [LOOK, {"type": "mcp"}]}, "tools[1]", "unsupported_value", "not served"),
        ({"tool_choice": {"type": "web_search"}}, "tool_choice", "unsupported_value", "auto"),
        ({"background": True}, "background", "unsupported_parameter", "other than false"),
        ({"truncation": "auto"}, "truncation", "unsupported_parameter", "other than 'disabled'"),
        ({"conversation": "conv_1"}, "conversation", "unsupported_parameter", "not supported"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter", "not supported"),
        ({"service_tier": "flex"}, "service_tier", "invalid_value", "'auto' or 'default'"),
        ({"reasoning": {"summary": "concise"}}, "reasoning.summary", "invalid_value", "detailed"),
        ({"text": {"verbosity": "low"}}, "text.verbosity", "unsupported_parameter", "verbosity"),
        ({"include": ["everything"]}, "include[0]", "invalid_value", "reasoning"),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value", "is not 1 to"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value", "0 to 20"),
        ({"temperature": 1e400}, "temperature", "invalid_value", "0 to 2"),
        ({"metadata": {"a": 1}}, "metadata.a", "invalid_value", "string"),
        ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "invalid_value", "16"),
        ({"model": None}, "model", "missing_required_parameter", "missing"),
        ({"input": None}, "input", "missing_required_parameter", "missing"),
    ],
)
def test_what_is_not_served(more: dict[str, object], parameter: str, code: str, words: str) -> None:
    """It is refused by name, in words that say what is served."""
    error = refuse(**more)
    assert (error.parameter, error.code) == (parameter, code)
    assert words in str(error)


def test_schemas_that_cannot_be_held_to() -> None:
    """What an answer or a call could not be held to is refused by its place."""
    schema = {"type": "object", "properties": {"a": {"not": {}}}}
    error = refuse(text={"format": {"type": "json_schema", "name": "n", "schema": schema}})
    assert (error.parameter, error.code) == ("text.format.schema", "unsupported_value")
    assert "#/properties/a/not" in str(error)
    tool = LOOK | {"parameters": schema}
    assert refuse(tools=[tool], tool_choice="required").parameter == "tools[0].parameters"
    assert ask(tools=[tool]).question.options.tool_choice == "auto"


def test_a_refusal_names_all_the_callers_own_first() -> None:
    """One refusal names whatever is refused; what clients add by themselves comes last."""
    error = refuse(store=5, background=True, tools=[{"type": "mcp"}], prompt={})
    assert error.parameter == "background"
    for name in ("tools[0]", "prompt", "store"):
        assert f"; {name}" in str(error)
    assert str(error).index("store") > str(error).index("prompt")


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ([{"type": "web_search_call", "id": "x"}], "input[0]"),
        ([say("user", "a", kind="input_image")], "input[0].content[0]"),
        ([{"role": "user", "content": [{"type": ["deep"]}]}], "input[0].content[0]"),
        ([{"role": "user"}], "input[0].content"),
        ([{"role": "tool", "content": "x"}], "input[0].role"),
        ([CALL | {"name": "two words"}], "input[0].name"),
        ([CALL | {"namespace": "n"}], "input[0].namespace"),
        ([OUTPUT], "input"),
        ([{"id": "msg_gone"}], "input[0].id"),
        ([{"type": "item_reference", "id": "msg_held"}] * 2, "input[1].id"),
        ([say("user", "Who?"), say("assistant", "I.")], "input"),
        ([say("user", "Who?"), CALL], "input"),
        ([say("system", "Be.")], "input"),
        ([], "input"),
        (" ", "input"),
        (5, "input"),
        ([5], "input[0]"),
    ],
)
def test_input_that_cannot_be_read(given: object, parameter: str) -> None:
    """It is refused by its place; nothing of what it says is repeated."""
    error = refuse(given)
    assert error.parameter == parameter
    assert "Who" not in str(error)


def test_going_on() -> None:
    """A response that is held, or an item of it, stands for what it said."""
    who, held = Message("user", "Who?"), Message("assistant", "Nobody.")
    asked = ask("Why?", previous_response_id="resp_held", instructions="Be short.")
    assert asked.question.messages == (
        Message("system", "Be short."),
        who,
        held,
        Message("user", "Why?"),
    )
    assert len(asked.items) == 3
    for reference in ({"id": "msg_held"}, {"type": "item_reference", "id": "msg_held"}):
        asked = ask([say("user", "Who?"), reference, say("user", "Why?")])
        assert asked.question.messages == (who, held, Message("user", "Why?"))


def test_what_is_no_longer_held() -> None:
    """It is refused in the reference's words, by which clients know it."""
    error = refuse(previous_response_id="resp_gone")
    assert error.parameter == "previous_response_id"
    assert error.code == "previous_response_not_found"
    assert "previous response not found" in str(error).lower()
    assert refuse([{"id": "x"}]).code == "item_not_found"


def test_numbers_that_json_has_not() -> None:
    """A schema or a tool with infinity in it is refused, not sent as what nobody can read."""
    tool = json.dumps({"tools": [{**LOOK, "parameters": {"maximum": 5}}]})
    schema = {"type": "json_schema", "name": "n", "schema": {"maximum": 5}}
    for more in (tool, json.dumps({"text": {"format": schema}})):
        body = f'{{"model": "m", "input": "a", {more[1:].replace("5", "1e400")}'.encode()
        with pytest.raises(RequestError, match="a number in it"):
            parse(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *("input", "tools", "tool_choice", "text", "reasoning", "include", "metadata", "type"),
        *("id", "instructions", "role", "content", "previous_response_id", "name", "call_id"),
        *("output", "format", "schema", "parameters", "effort", "summary", "arguments"),
    ]
)
NAMED = st.recursive(
    JSON | st.sampled_from(["message", "function_call", "reasoning", "user", "function"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)


@given(body=st.dictionaries(NAMES, NAMED))
def test_any_body_is_a_request_or_a_refusal(body: dict[str, Any]) -> None:
    """Whatever is sent, it is understood or refused, and nothing else is raised."""
    with suppress(RequestError):
        parse(json.dumps({"model": "m", **body}).encode())


@pytest.mark.parametrize(
    "body",
    [
        {"input": [{"role": "canary", "content": "x"}]},
        {"input": [{"type": "canary"}]},
        {"input": [{"role": "user", "content": [{"type": "canary", "text": "x"}]}]},
        {
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": 5, "x": "canary"}]}
            ]
        },
        {"input": [CALL | {"name": "canary canary"}]},
        {"input": [{"type": "item_reference", "id": "canary"}]},
        {"input": [OUTPUT | {"call_id": "canary"}]},
        {"input": "x", "previous_response_id": "canary"},
        {"input": "x", "include": ["canary"]},
        {"input": "x", "tools": [{"type": "canary"}]},
        {"input": "x", "tools": [LOOK], "tool_choice": {"type": "function", "name": "canary"}},
        {"input": "x", "tools": [LOOK | {"name": "canary"}, LOOK | {"name": "canary"}]},
        {"input": "x", "reasoning": {"effort": "canary"}},
        {"input": "x", "text": {"format": {"type": "canary"}}},
        {"input": "x", "metadata": {"a": ["canary"]}},
        {"input": "x", "max_output_tokens": "canary"},
        {"input": {"canary": 1}},
    ],
)
def test_refusals_quote_nothing(body: dict[str, Any]) -> None:
    """A refusal has names and words of the API's, never what was said."""
    with pytest.raises(RequestError) as raised:
        parse(json.dumps({"model": "m", **body}).encode())
    assert "canary" not in f"{raised.value}{raised.value.parameter}"
