"""The Responses API as OpenAI's own client uses it, on the running twin."""

import asyncio
from typing import cast

import pytest
from openai import AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import ResponseInputItemParam

from local.twin.twin import Twin
from tests.endless import ENDLESS_TOKENS
from tests.integration.test_serve import MODEL, OTHER, QUESTION, TOKEN, Api, api, expected, serve
from tests.patience import wait_until

__all__ = ["api", "expected"]


def test_a_response(api: Api, expected: str, twin: Twin) -> None:
    """It has the text, the usage, and the enclave's receipt."""
    response = api.client.responses.create(model=MODEL, input=QUESTION)
    assert response.output_text == expected
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.output_tokens > 5
    receipt = (response.model_extra or {})["receipt"]
    assert receipt["pcr0"] == twin.release.measurements.pcr0.hex()


def test_a_stream(api: Api, expected: str) -> None:
    """The client's own reader of streams puts the same response together."""
    with api.client.responses.stream(model=MODEL, input=QUESTION) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert "".join(deltas) == final.output_text == expected


def test_several_at_once(api: Api, expected: str) -> None:
    """The asynchronous client gets its responses, streamed and not, several at a time."""

    async def ask() -> list[str]:
        base = f"{api.url}/v1"
        async with AsyncOpenAI(base_url=base, api_key=TOKEN, max_retries=0) as client:

            async def whole() -> str:
                return (await client.responses.create(model=MODEL, input=QUESTION)).output_text

            async def streamed() -> str:
                async with client.responses.stream(model=MODEL, input=QUESTION) as stream:
                    return (await stream.get_final_response()).output_text

            return list(await asyncio.gather(whole(), streamed(), whole(), streamed()))

    assert asyncio.run(ask()) == [expected] * 4


def test_a_conversation(twin: Twin) -> None:
    """By id, by items or by their ids, a conversation goes on under the same keys."""
    with serve(twin.connect, limit=2) as api:
        create = api.client.responses.create
        first = create(model=MODEL, input=QUESTION)
        conversation = api.conversations._idle[-1].conversation
        second = create(model=MODEL, input=OTHER, previous_response_id=first.id)
        said: list[ResponseInputItemParam] = []
        for question, answered in ((QUESTION, first), (OTHER, second)):
            said += [{"role": "user", "content": question}]
            said += [cast("ResponseInputItemParam", answered.output[0].to_dict())]
        said += [{"role": "user", "content": QUESTION}]
        third = create(model=MODEL, input=said)
        said += [{"type": "item_reference", "id": str(third.output[0].id)}]
        create(model=MODEL, input=[*said, {"role": "user", "content": OTHER}])
        last = api.conversations._idle[-1]
        assert (last.conversation, last.turn, len(last.history)) == (conversation, 4, 8)


def test_what_is_held(api: Api) -> None:
    """A response is shown with its input until it is deleted."""
    held = api.client.responses.create(model=MODEL, input=QUESTION)
    assert api.client.responses.retrieve(held.id) == held
    assert len(api.client.responses.input_items.list(held.id).data) == 1
    api.client.responses.delete(held.id)
    with pytest.raises(NotFoundError):
        api.client.responses.retrieve(held.id)
    with pytest.raises(BadRequestError) as raised:
        api.client.responses.create(model=MODEL, input=OTHER, previous_response_id=held.id)
    assert raised.value.code == "previous_response_not_found"


def test_a_limit(api: Api) -> None:
    """A response that meets its limit of tokens is incomplete, and says why."""
    response = api.client.responses.create(model=MODEL, input=QUESTION, max_output_tokens=3)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.output_tokens == 3


def test_what_is_too_long(api: Api) -> None:
    """It is refused in words that clients know, and names the input."""
    with pytest.raises(BadRequestError) as raised:
        api.client.responses.create(model=MODEL, input="x " * 3000)
    assert raised.value.code == "context_length_exceeded"
    assert raised.value.param == "input"


def test_hanging_up_stops_the_answer(endless: Twin) -> None:
    """A client that goes away frees its session, and the enclave stops."""
    with serve(endless.connect, limit=1) as api:
        stream = api.client.responses.create(
            model=MODEL, input=QUESTION, stream=True, max_output_tokens=ENDLESS_TOKENS
        )
        assert any(event.type == "response.output_text.delta" for event in stream)
        stream.close()
        wait_until(lambda: bool(api.conversations._idle))
