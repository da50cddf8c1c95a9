"""
OpenAI's own types, strictly: what an API answers has all that they require, and nothing else.

Only the members of our own are allowed beside theirs.
"""

import json
from collections.abc import Mapping
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_OWN = {"receipt"}  # which enclave answered
# What the reference shows, or clients read, and these types lack: an error's older shape, the name
# at the end of a call, whether a response is stored, and the bytes of tokens in events.
_BESIDE = {
    "Logprob.bytes",
    "LogprobTopLogprob.bytes",
    "Response.store",
    "ResponseErrorEvent.error",
    "ResponseFunctionCallArgumentsDoneEvent.name",
}


def read_events(stream: str) -> list[dict[str, Any]]:
    """Give the data of server-sent events, each of which has to be one that OpenAI's types know."""
    events = []
    for block in stream.split("\n\n")[:-1]:
        name, data = block.split("\n")
        value = json.loads(data.removeprefix("data: "))
        assert name == f"event: {value['type']}"
        require(_EVENT.validate_json(json.dumps(value), strict=True), value)
        events.append(value)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def require_response(value: Mapping[str, Any]) -> None:
    """Require that *value* is a response, with each member that the type has no default for."""
    require(Response.model_validate_json(json.dumps(value), strict=True), value)


def require(model: object, value: object) -> None:
    """Require that *model*, made of *value*, knows all that it has."""
    if isinstance(model, list):
        assert isinstance(value, list)
        for item, given in zip(model, value, strict=True):
            require(item, given)
    if not isinstance(model, BaseModel):
        return
    assert isinstance(value, dict)
    names = {field.alias or name: name for name, field in type(model).model_fields.items()}
    unknown = {f"{type(model).__name__}.{name}" for name in value.keys() - names.keys() - _OWN}
    assert unknown <= _BESIDE, unknown
    for name in value.keys() & names.keys():
        require(getattr(model, names[name]), value[name])
