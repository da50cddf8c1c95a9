"""Tools, schemas, reasoning, log-probabilities as OpenAI's client gets them; a scripted model."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from openai import BadRequestError
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from app.chatbot.console import Terminal
from app.chatbot.terminal.conversation import ask_once
from local.twin.twin import run_twin
from tests.endless import copy_demo
from tests.integration.test_serve import FAST, MODEL, Api, conversations_asked, serve
from tests.scripted_twin import ScriptedTwin, control, token

ASKED: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Weather in Bonn?"}]
TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Give the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
CALL = [control("<tool_call>"), '\n{"name": "get_weather", ', '"arguments": {"city": "Bonn"}}\n']
CALLING = [
    control("<think>"),
    "\nThe weather, ",
    "then.\n",
    control("</think>"),
    "\n\n",
    *CALL,
    control("</tool_call>"),
]
RULES: tuple[dict[str, Any], ...] = (
    {"when": "^user: Weather", "tools": True, "says": CALLING},
    {"when": "^tool: 18", "says": ["It is ", "18 °C."]},
)


@pytest.fixture(scope="module")
def api(scripted: ScriptedTwin) -> Iterator[Api]:
    """The API on it."""
    with serve(scripted.twin.connect) as served:
        yield served


def test_a_loop_of_tools(scripted: ScriptedTwin, api: Api) -> None:
    """
    A call has name and arguments; its result, sent back, continues the same conversation.
    """
    scripted.script(*RULES)
    before = len(scripted.twin.aws.audit.events)
    first = api.client.chat.completions.create(model=MODEL, messages=ASKED, tools=[TOOL])
    [choice] = first.choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert (choice.message.model_extra or {})["reasoning_content"] == "The weather, then."
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert json.loads(call.function.arguments) == {"city": "Bonn"}
    called = choice.message.model_dump(exclude={"reasoning_content"})
    result = {"role": "tool", "tool_call_id": call.id, "content": "18 °C"}
    follow = [*ASKED, called, result]
    second = api.client.chat.completions.create(
        model=MODEL,
        messages=follow,  # type: ignore[arg-type] # as it was received
        tools=[TOOL],
    )
    assert second.choices[0].message.content == "It is 18 °C."
    assert second.choices[0].finish_reason == "stop"
    assert len(set(conversations_asked(scripted.twin, before))) == 1
    _, asked = scripted.asked()
    assert json.loads(asked["options"]["tools"]) == [TOOL]
    assert asked["messages"][1]["calls"][0]["id"] == asked["messages"][2]["call_id"] == call.id


def test_a_call_streams(scripted: ScriptedTwin, api: Api) -> None:
    """Name and id come first, then arguments, each delta with the call's index; no mark is told."""
    both = [*CALLING, "\n", *CALL]
    scripted.script({"says": both})
    stream = api.client.chat.completions.create(
        model=MODEL, messages=ASKED, tools=[TOOL], stream=True
    )
    chunks = [chunk.choices[0] for chunk in stream]
    assert chunks[-1].finish_reason == "tool_calls"
    deltas = [call for chunk in chunks for call in chunk.delta.tool_calls or ()]
    assert [delta.index for delta in deltas] == [0, 0, 1, 1]
    assert [bool(delta.id) for delta in deltas] == [True, False, True, False]
    names = [delta.function.name for delta in deltas if delta.function]
    assert names == ["get_weather", None, "get_weather", None]
    more = [chunk.delta.model_extra or {} for chunk in chunks]
    assert "".join(one.get("reasoning_content", "") for one in more) == "The weather, then."
    assert not "".join(chunk.delta.content or "" for chunk in chunks)


def test_one_call_at_a_time(scripted: ScriptedTwin, api: Api) -> None:
    """Where calls may not be parallel, the first one counts."""
    scripted.script({"says": [*CALLING, *CALL]})
    answer = api.client.chat.completions.create(
        model=MODEL, messages=ASKED, tools=[TOOL], parallel_tool_calls=False
    )
    assert len(answer.choices[0].message.tool_calls or ()) == 1
    assert scripted.asked()[0]["options"]["tool_calls"] == "one"


def test_without_tools_nothing_is_a_call(scripted: ScriptedTwin, api: Api) -> None:
    """What a model calls that was given no tools, or may call none, is text without marks."""
    scripted.script({"says": CALL})
    text = '{"name": "get_weather", "arguments": {"city": "Bonn"}}'
    for more in ({}, {"tools": [TOOL], "tool_choice": "none"}):
        _, answer = api.post({"model": MODEL, "messages": ASKED, **more})
        [choice] = answer["choices"]
        assert choice["message"]["content"].strip() == text
        assert choice["finish_reason"] == "stop"


def test_options_arrive(scripted: ScriptedTwin, api: Api) -> None:
    """What a request asks for is what the enclave opens."""
    scripted.script({"says": ["{}"]})
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    told = {"name": "a", "strict": True, "schema": schema}
    api.client.chat.completions.create(  # type: ignore[call-overload] # a plain dictionary
        model=MODEL,
        messages=ASKED,
        response_format={"type": "json_schema", "json_schema": told},
        reasoning_effort="high",
        frequency_penalty=0.5,
        logit_bias={"5": -1},
    )
    [asked] = scripted.asked()
    options = asked["options"]
    assert json.loads(options["schema"]) == schema
    assert (options["thinking"], options["frequency_penalty"]) == ("high", 0.5)
    assert options["logit_bias"] == [5, -1_000_000]


def test_log_probabilities(scripted: ScriptedTwin, api: Api) -> None:
    """Each token of the text has its own; those of marks and reasoning are not told."""
    said = [
        control("<think>"),
        token("<think>", -0.5, no=-1.0),
        "Hm",
        token("Hm", -0.5, no=-1.0),
        control("</think>"),
        token("</think>", -0.5, no=-1.0),
        "Yes",
        token("Yes", -0.25, No=-2.0),
        " €",
        token(" €", -1.5, no=-1.75),
    ]
    scripted.script({"says": said})
    asked: dict[str, Any] = {"model": MODEL, "messages": ASKED, "logprobs": True, "top_logprobs": 1}
    whole = api.client.chat.completions.create(**asked)
    told = whole.choices[0].logprobs
    assert told is not None
    assert told.content is not None
    assert [(item.token, item.logprob) for item in told.content] == [("Yes", -0.25), (" €", -1.5)]
    assert told.content[1].bytes == list(" €".encode())
    assert told.content[0].top_logprobs[0].token == "No"
    streamed = [
        item.token
        for chunk in api.client.chat.completions.create(**asked, stream=True)
        for item in (chunk.choices[0].logprobs and chunk.choices[0].logprobs.content) or ()
    ]
    assert streamed == ["Yes", " €"]
    scripted.script({"says": said[6:]})
    old = api.client.completions.create(model=MODEL, prompt="a", logprobs=1).choices[0].logprobs
    assert old is not None
    assert (old.tokens, old.token_logprobs) == (["Yes", " €"], [-0.25, -1.5])
    assert (old.text_offset, old.top_logprobs) == ([0, 3], [{"No": -2.0}, {"no": -1.75}])


# As Hermes's, in a vocabulary that has no tokens for its marks.
TEMPLATE = b"""{% if tools %}Tools: {{ tools | tojson }}
{% endif %}{% for m in messages %}{{ m.role }}: {{ m.content }}
{%- for call in m.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% if not loop.last %}
{% endif %}{% endfor %}
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"""


def test_a_real_engine_that_must_call(tmp_path: Path) -> None:
    """A model that has learned nothing of tools calls one where it must, as its parameters say."""
    copy_demo(tmp_path / "weights", TEMPLATE, 2048)
    parameters = {
        "type": "object",
        "properties": {"city": {"enum": ["Bonn", "Köln"]}, "days": {"enum": [1, 2]}},
        "required": ["city", "days"],
        "additionalProperties": False,
    }
    function = {"name": "get_weather", "parameters": parameters}
    asked: dict[str, Any] = {
        "model": MODEL,
        "messages": ASKED,
        "tools": [{"type": "function", "function": function}],
        "parallel_tool_calls": False,
        "max_tokens": 1000,
    }
    with (
        run_twin(tmp_path / "twin", weights=tmp_path / "weights") as twin,
        serve(twin.connect) as api,
    ):
        for choice in ("required", {"type": "function", "function": {"name": "get_weather"}}):
            status, answer = api.post({**asked, "tool_choice": choice})
            assert status == 200, answer
            [first] = answer["choices"]
            assert first["finish_reason"] == "tool_calls", answer
            [call] = first["message"]["tool_calls"]
            given = json.loads(call["function"]["arguments"])
            assert given.keys() == {"city", "days"}
            assert given["city"] in {"Bonn", "Köln"}
        follow = [
            *ASKED,
            first["message"],
            {"role": "tool", "tool_call_id": call["id"], "content": ""},
        ]
        status, answer = api.post({**asked, "messages": follow, "max_tokens": 5})
        assert status == 200, answer
        assert answer["choices"][0]["finish_reason"] == "length"


def test_people_are_shown_the_text_alone(scripted: ScriptedTwin) -> None:
    """A terminal, a page and the library give the text; marks and reasoning are no part of it."""
    scripted.script({"says": [*CALLING[:4], "\n\nIt ", "rains."]})
    with scripted.twin.connect() as session:
        answer = session.ask("Weather?", FAST)
        assert "".join(answer) == answer.text == "It rains."
        said = session.history[-1]
        assert (said.text, said.reasoning, said.calls) == ("It rains.", "The weather, then.", ())
        terminal = Terminal(io.StringIO(), io.StringIO(), io.StringIO())
        ask_once(session, "And now?", FAST, terminal, as_json=False)
        assert cast("io.StringIO", terminal.answers).getvalue().strip() == "It rains."
    scripted.script({"says": [*CALLING[:2]], "finish": "length"})
    with scripted.twin.connect() as session:
        assert not list(session.ask("Weather?", FAST))


def test_what_a_model_cannot_do(scripted: ScriptedTwin, api: Api) -> None:
    """Tools that may be called are left out, and a header says so; all else is refused by name."""
    scripted.script({"tools": True, "refuses": ["tools", "tool_calls"]}, {"says": ["Hello."]})
    answer = api.client.chat.completions.with_raw_response.create(
        model=MODEL, messages=ASKED, tools=[TOOL], parallel_tool_calls=False
    )
    assert answer.headers["x-not-in-the-prompt"] == "tools"
    assert answer.parse().choices[0].message.content == "Hello."
    with pytest.raises(BadRequestError) as raised:
        api.client.chat.completions.create(
            model=MODEL, messages=ASKED, tools=[TOOL], tool_choice="required"
        )
    assert raised.value.param == "tools"
    assert "parallel_tool_calls" in raised.value.message
    scripted.script({"refuses": ["schema", "thinking"]})
    with pytest.raises(BadRequestError) as raised:
        api.client.chat.completions.create(model=MODEL, messages=ASKED, reasoning_effort="low")
    assert raised.value.param == "response_format"
    assert raised.value.code == "unsupported_parameter"
