from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import omit
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from app.chatbot.openai.response import Limit, fail
from app.chatbot.openai.responses.request import parse_body, resolve_request
from app.chatbot.openai.responses.response import Response, encode_event
from app.chatbot.reading.parts import Arguments, Call, Part, Reasoning, Text, Tokens
from app.chatbot.session.exchange import Evidence
from app.protocol.errors import AppError, BusyError, EngineError, ReceiptError
from app.protocol.piece import TokenLogprob
from app.protocol.question import Options
from tests.reference import read_events, require_response
from tests.support import make_release

REQUEST = b"""{"model": "m", "input": "Who?", "instructions": "Be short.", "user": "u",
    "metadata": {"a": "b"}, "text": {"format": {"type": "json_schema", "name": "n", "schema": {}}},
    "tools": [{"type": "function", "name": "look", "parameters": {}, "strict": true}]}"""
ECHO = resolve_request(
    parse_body(REQUEST), Options(), find_response=lambda _: None, find_item=lambda _: None
).echo
CALL = Call("call_1", "look")


def make_evidence(finish: str = "stop") -> Evidence:
    receipt = SimpleNamespace(
        finishes=(finish,),
        finish=finish,
        prompt_tokens=3,
        completion_tokens=4,
        request_digest=bytes(32),
        answer_digest=bytes(32),
    )
    enclave = SimpleNamespace(release=make_release())
    return cast("Evidence", SimpleNamespace(receipt=receipt, enclave=enclave))


def tell(
    *parts: Part, finish: str = "stop", error: AppError | None = None, summarised: bool = False
) -> list[dict[str, Any]]:
    """Give the events of a response, each of them one that the reference has."""
    response = Response("m", ECHO, summarised)
    events = response.begin() + [event for part in parts for event in response.add(part)]
    if error is None:
        events += response.end(make_evidence(finish))
    else:
        events += response.fail(fail(error, Limit("input", 99)))
    return read_events("".join(map(encode_event, events)))


def names(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def test_a_text() -> None:
    """A message's events come in the reference's order, and the last one has all of it."""
    events = tell(Text("Nobody "), Text("but you."))
    assert names(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    created, response = events[0]["response"], events[-1]["response"]
    assert (created["status"], created["output"], created["usage"]) == ("in_progress", [], None)
    assert created["id"] == response["id"]
    assert response["status"] == "completed"
    assert response["output"] == [events[-2]["item"]]
    assert response["output"][0]["content"][0]["text"] == "Nobody but you."
    assert response["usage"]["total_tokens"] == 7
    assert response["receipt"]["answer"] == "00" * 32
    require_response(response)


def test_reasoning_and_calls() -> None:
    """Reasoning, text and calls are items of their own, each ended before the next begins."""
    parts = (Reasoning("Hm."), Text("So: "), CALL, Arguments('{"a":'), Arguments("1}"), CALL)
    events = tell(*parts, Arguments("{}"))
    assert names(events)[2:-1] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
    ]
    reasoning, message, call, other = events[-1]["response"]["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert message["content"][0]["text"] == "So: "
    assert (call["call_id"], call["name"], call["arguments"]) == ("call_1", "look", '{"a":1}')
    assert other["id"] != call["id"]
    assert [event["output_index"] for event in events if "output_index" in event] == sorted(
        [0] * 6 + [1] * 6 + [2] * 5 + [3] * 4
    )


def test_a_summary_that_was_asked_for() -> None:
    """Reasoning is its own summary, too, for the clients that show no other."""
    events = tell(Reasoning("Hm"), Reasoning("."), Text("So."), summarised=True)
    assert names(events)[2:14] == [
        "output_item.added",
        "reasoning_summary_part.added",
        "content_part.added",
        "reasoning_summary_text.delta",
        "reasoning_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "reasoning_text.done",
        "content_part.done",
        "output_item.done",
    ]
    added, reasoning = events[2]["item"], events[-1]["response"]["output"][0]
    assert added["summary"] == added["content"] == []
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Hm."}]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "Hm."}]


def test_log_probabilities() -> None:
    """They come with the next piece of text or an empty one, and again at the end."""
    made = TokenLogprob(b"\xc3", -0.5, (TokenLogprob(b"a", -1.0),))
    other = TokenLogprob(b"b", 0.0)
    events = tell(Text("x"), Tokens((made,)), Text("y"), Tokens((other,)))
    deltas = [event for event in events if event["type"].endswith("delta")]
    assert [event["delta"] for event in deltas] == ["x", "y", ""]
    told = [token for event in deltas for token in event["logprobs"]]
    assert [(token["bytes"], token["logprob"]) for token in told] == [([195], -0.5), ([98], 0.0)]
    assert told[0]["top_logprobs"][0]["token"] == "a"
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == told


def test_what_is_cut_is_incomplete() -> None:
    """An answer that met its limit says so: the response, and the item that it was cut in."""
    for parts in ((Text("a"),), (CALL, Arguments("{")), ()):
        events = tell(*parts, finish="length")
        response = events[-1]["response"]
        assert names(events)[-1] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert (response["status"], response["completed_at"]) == ("incomplete", None)
        assert response["output"][-1]["status"] == "incomplete"


def test_an_empty_answer_is_an_empty_message() -> None:
    """Clients take the first item of an output for granted."""
    [message] = tell()[-1]["response"]["output"]
    assert message["content"][0]["text"] == ""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ReceiptError(), "server_error"),
        (EngineError(), "server_error"),
        (BusyError(), "rate_limit_exceeded"),
    ],
)
def test_a_failure(error: AppError, code: str) -> None:
    """A stream that fails ends with an error and what has come, as incomplete; never whole."""
    events = tell(Reasoning("Hm."), Text("So"), error=error)
    assert names(events)[-2:] == ["error", "failed"]
    assert "output_item.done" not in names(events)[names(events).index("output_text.delta") :]
    told, response = events[-2], events[-1]["response"]
    assert told["code"] == told["error"]["code"] == error.code
    assert (response["status"], response["error"]["code"]) == ("failed", code)
    assert [item["status"] for item in response["output"]] == ["completed", "incomplete"]
    assert response["usage"] is None
    assert "receipt" not in response


PARTS = st.lists(
    st.builds(Text, st.text(max_size=3))
    | st.builds(Reasoning, st.text(max_size=3))
    | st.builds(Call, st.uuids().map(str), st.just("name"))
    | st.builds(Arguments, st.text(max_size=3))
    | st.builds(Tokens, st.just((TokenLogprob(b"a", -1.0),))),
    max_size=6,
)


@settings(max_examples=50)
@given(parts=PARTS, finish=st.sampled_from(["stop", "length"]), summarised=st.booleans())
def test_any_answer_is_told_as_openais_client_reads_it(
    parts: list[Part], finish: str, *, summarised: bool
) -> None:
    """Whatever comes in whatever order, each event is of the reference, and they agree."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=omit, text_format=omit)
    kind: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
    growing = 0
    for event in tell(*parts, finish=finish, summarised=summarised):
        state.handle_event(kind.validate_python(event))
        growing += event["type"] == "response.output_item.added"
        growing -= event["type"] == "response.output_item.done"
        assert growing in {0, 1}
    assert growing == 0
