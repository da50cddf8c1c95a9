"""`bin/chat serve` as clients of OpenAI's API use it, on the running twin."""

import asyncio
import gc
import http.client
import json
import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from openai import (
    APIError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    RateLimitError,
)
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from app.chatbot.local_http import listen, serving
from app.chatbot.openai.conversations import Conversations
from app.chatbot.openai.server import make_application
from app.chatbot.session.cut_off import Stop
from app.chatbot.session.session import Session, connect
from app.chatbot.session.transport import Transport
from app.chatbot.unix_socket import listen_unix
from app.protocol.errors import UnknownKeyError
from app.protocol.messages import Kind
from app.protocol.question import Options
from app.protocol.releases import Measurements
from local.signers.nsm import SoftwareNsm
from local.twin.twin import Twin
from tests.endless import ENDLESS_TOKENS, count
from tests.hostile import substitute_document
from tests.patience import PATIENCE_SECONDS, wait_until

QUESTION: Final = "How do I book leave?"
OTHER: Final = "I can't access my email."
LONG: Final = "x " * 3000  # of which the demo model reads a third
FAST: Final = Options(padding="off")
PADDED: Final = Options()  # of which an answer takes a second and a half, however short it is
TOKEN: Final = "a-token-that-was-printed-at-the-start"
MODEL: Final = "enclave-llm-demo"
ASKED: Final[list[ChatCompletionMessageParam]] = [{"role": "user", "content": QUESTION}]
Json = dict[str, Any]


@dataclass(slots=True)
class Api:
    """The API as it is served, and what is behind it."""

    url: str
    conversations: Conversations
    client: OpenAI

    def post(self, body: Json | bytes, path: str = "/v1/chat/completions") -> tuple[int, Json]:
        """Post with no client in between."""
        connection = self.connect()
        try:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            connection.request("POST", path, data, {"Authorization": f"Bearer {TOKEN}"})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def connect(self) -> http.client.HTTPConnection:
        """Open a connection of one's own."""
        return http.client.HTTPConnection(
            self.url.removeprefix("http://"), timeout=PATIENCE_SECONDS
        )


@contextmanager
def serve(
    open_session: Callable[[], Session], *, limit: int = 16, defaults: Options = FAST
) -> Iterator[Api]:
    """Serve the API on sessions that *open_session* gives."""
    with ExitStack() as stack:
        conversations = Conversations(open_session(), open_session, limit=limit)
        stack.callback(conversations.close)
        listener = stack.enter_context(listen())
        application = make_application(conversations, token=TOKEN, defaults=defaults)
        url = stack.enter_context(serving(application, listener))
        client = OpenAI(
            base_url=f"{url}/v1", api_key=TOKEN, max_retries=0, timeout=PATIENCE_SECONDS
        )
        yield Api(url, conversations, stack.enter_context(client))


@pytest.fixture(scope="module")
def api(twin: Twin) -> Iterator[Api]:
    """The API on the shared twin."""
    with serve(twin.connect) as served:
        yield served


@pytest.fixture(scope="module")
def expected(twin: Twin) -> str:
    """The greedy answer to `QUESTION`, as a session gives it."""
    with twin.connect() as session:
        return "".join(session.ask(QUESTION, FAST))


# OpenAI's own client, unchanged.


def test_chat(api: Api, expected: str, twin: Twin) -> None:
    """An answer that is not streamed has text, finish reason, usage, and the enclave's receipt."""
    answer = api.client.chat.completions.create(model=MODEL, messages=ASKED)
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.completion_tokens > 5
    receipt = (answer.model_extra or {})["receipt"]
    assert receipt["pcr0"] == twin.release.measurements.pcr0.hex()
    assert len(receipt["answer"]) == 64


def test_chat_streams(api: Api, expected: str) -> None:
    """A stream gives the same text in pieces, then the reason, then the usage where wanted."""
    chunks = list(
        api.client.chat.completions.create(
            model=MODEL,
            messages=ASKED,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    *parts, end, usage = chunks
    assert "".join(part.choices[0].delta.content or "" for part in parts) == expected
    assert parts[0].choices[0].delta.role == "assistant"
    assert len([part for part in parts if part.choices[0].delta.content]) > 1
    assert end.choices[0].finish_reason == "stop"
    assert all(part.choices[0].finish_reason is None and part.usage is None for part in parts)
    assert usage.choices == []
    assert usage.usage is not None
    assert usage.usage.completion_tokens > 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_stream_without_usage(api: Api) -> None:
    """Usage comes only where it was asked for."""
    stream = api.client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
    assert all(chunk.choices for chunk in stream)


def test_async_client(api: Api, expected: str) -> None:
    """The asynchronous client gets the same, several at once."""

    async def ask() -> tuple[str, ...]:
        base = f"{api.url}/v1"
        async with AsyncOpenAI(base_url=base, api_key=TOKEN, max_retries=0) as client:

            async def whole() -> str:
                answer = await client.chat.completions.create(model=MODEL, messages=ASKED)
                return answer.choices[0].message.content or ""

            async def streamed() -> str:
                stream = await client.chat.completions.create(
                    model=MODEL,
                    messages=ASKED,
                    stream=True,
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            return await asyncio.gather(whole(), streamed(), whole(), streamed())

    assert list(asyncio.run(ask())) == [expected] * 4


def test_completions(api: Api, expected: str) -> None:
    """The older endpoint answers, too: streamed and not."""
    whole = api.client.completions.create(model=MODEL, prompt=QUESTION)
    assert whole.choices[0].text == expected
    assert whole.choices[0].finish_reason == "stop"
    assert whole.usage is not None
    chunks = list(api.client.completions.create(model=MODEL, prompt=QUESTION, stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks) == expected
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_models(api: Api) -> None:
    """The one model is listed and shown; another is not found."""
    assert [model.id for model in api.client.models.list()] == [MODEL]
    assert api.client.models.retrieve(MODEL).owned_by == "enclave-llm"
    with pytest.raises(NotFoundError) as raised:
        api.client.models.retrieve("gpt-5")
    assert raised.value.code == "model_not_found"
    with pytest.raises(NotFoundError):
        api.client.chat.completions.create(model="gpt-5", messages=ASKED)


# Another client: Hugging Face's, which shares no code with OpenAI's.


def test_hugging_faces_client(api: Api, expected: str) -> None:
    """Hugging Face's client gets the answer, streamed and not, with its usage."""
    with InferenceClient(
        base_url=f"{api.url}/v1", api_key=TOKEN, timeout=PATIENCE_SECONDS
    ) as client:
        answer = client.chat_completion(ASKED, model=MODEL)
        assert answer.choices[0].message.content == expected
        assert answer.usage.completion_tokens > 5
        stream = client.chat_completion(ASKED, model=MODEL, stream=True)
        assert "".join(part.choices[0].delta.content or "" for part in stream) == expected


def test_hugging_faces_async_client(api: Api, expected: str) -> None:
    """So does its asynchronous one."""

    async def ask() -> str:
        async with AsyncInferenceClient(base_url=f"{api.url}/v1", api_key=TOKEN) as client:
            stream = await client.chat_completion(ASKED, model=MODEL, stream=True)
            return "".join([part.choices[0].delta.content or "" async for part in stream])

    assert asyncio.run(ask()) == expected


# Parameters: honoured, or refused by name.


def test_max_tokens(api: Api) -> None:
    """`max_tokens`, and its newer name, end the answer, and the reason says so."""
    for name in ("max_tokens", "max_completion_tokens"):
        status, answer = api.post({"model": MODEL, "messages": ASKED, name: 3})
        assert status == 200
        assert answer["choices"][0]["finish_reason"] == "length"
        assert answer["usage"]["completion_tokens"] == 3


def test_stop(api: Api, expected: str) -> None:
    """A stop string ends the answer and is no part of it."""
    word = expected.split()[3]
    for stop in (word, [word, "never"]):
        _, answer = api.post({"model": MODEL, "messages": ASKED, "stop": stop})
        text = answer["choices"][0]["message"]["content"]
        assert text == expected[: expected.index(word)]
        assert answer["choices"][0]["finish_reason"] == "stop"


def test_sampling(api: Api, expected: str) -> None:
    """The same seed repeats an answer at a temperature; a tiny nucleus makes it greedy again."""

    def ask(**options: float) -> str:
        body = {"model": MODEL, "messages": ASKED, "max_tokens": 24, "temperature": 2, **options}
        return str(api.post(body)[1]["choices"][0]["message"]["content"])

    assert ask(seed=5) == ask(seed=5)
    assert len({ask(seed=seed) for seed in range(3)}) > 1
    assert expected.startswith(ask(seed=5, top_p=0.001))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
        ("modalities", ["text", "audio"]),
        ("prediction", {"type": "content", "content": "a"}),
        ("service_tier", "flex"),
        ("web_search_options", {}),
        ("no_such_thing", 1),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(api: Api, name: str, value: object) -> None:
    """A parameter that would change nothing here is an error, not ignored."""
    with pytest.raises(BadRequestError) as raised:
        api.client.chat.completions.create(
            model=MODEL,
            messages=ASKED,
            extra_body={name: value},
        )
    assert raised.value.param == name
    assert raised.value.code == "unsupported_parameter"
    assert raised.value.type == "invalid_request_error"
    assert name in raised.value.message


def test_what_changes_nothing_is_accepted(api: Api, expected: str) -> None:
    """Defaults that some clients write out, and null, are as if left out."""
    neutral: Json = {
        "n": 1,
        "presence_penalty": 0.0,
        "frequency_penalty": 0,
        "logit_bias": {},
        "logprobs": False,
        "response_format": {"type": "text"},
        "tools": None,
        "stop": None,
        "user": "jdoe",
        "metadata": {"a": "b"},
        "store": True,
        "top_p": 1,
        "seed": -1,
        "tool_choice": "auto",
        "functions": [],
    }
    parts = [{"type": "text", "text": QUESTION[:5]}, {"type": "text", "text": QUESTION[5:]}]
    status, answer = api.post(
        {"model": MODEL, "messages": [{"role": "user", "content": parts, "name": None}], **neutral}
    )
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == expected


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"temperature": 3}, "temperature"),
        ({"temperature": "warm"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x"),
        ({"model": None}, "model"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": 8.5}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "assistant", "content": " "}]}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "a", "name": 5}]}, "messages[0].name"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
        ),
    ],
)
def test_values_out_of_range_are_refused_by_name(
    api: Api, change: Json, parameter: str | None
) -> None:
    """What is malformed is named, and not quoted."""
    status, answer = api.post({"model": MODEL, "messages": ASKED, **change})
    assert status == 400
    assert answer["error"]["param"] == parameter
    assert answer["error"]["type"] == "invalid_request_error"
    assert "warm" not in json.dumps(answer)


def test_bodies_that_are_no_requests(api: Api) -> None:
    """No JSON, other JSON and too much of it get errors of the same shape; unknown paths, too."""
    for body, status in (
        (b"{", 400),
        (b"[]", 400),
        (b"", 400),
        (b'"\xff"', 400),
        (b"[" * 9999, 400),
        (b" " * (2 << 20) + b"{}", 413),
    ):
        got, answer = api.post(body)
        assert got == status
        assert {"message", "type", "param", "code"} == set(answer["error"])
    long = [{"role": "user", "content": "x" * 300_000}]
    got, answer = api.post({"model": MODEL, "messages": long})
    assert got == 400
    assert answer["error"]["code"] == "context_length_exceeded"
    assert "262,140" in answer["error"]["message"]
    for path in ("/v1/embeddings", "/v1/audio/speech", "/v1/images/generations"):
        got, answer = api.post({}, path)
        assert got == 404
        assert "POST /v1/chat/completions" in answer["error"]["message"]
    assert api.post(b" " * (2 << 20) + b"{}")[1]["error"]["code"] == "request_too_large"


@pytest.mark.parametrize(
    ("path", "question", "parameter"),
    [
        (
            "/v1/chat/completions",
            {"messages": [{"role": "user", "content": LONG}]},
            "messages",
        ),
        ("/v1/completions", {"prompt": LONG}, "prompt"),
    ],
)
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_longer_than_the_model_reads(
    api: Api, path: str, question: Json, parameter: str, *, stream: bool
) -> None:
    """What exceeds the model's window is refused with both numbers, in the words clients know."""
    status, answer = api.post({"model": MODEL, "stream": stream, **question}, path)
    assert status == 400
    error = answer["error"]
    assert error["code"] == "context_length_exceeded"
    assert error["param"] == parameter
    assert error["message"].startswith("This model's maximum context length is 1024 tokens.")
    assert "the limit is 1,024" in error["message"]


def test_names_are_taken(api: Api, expected: str) -> None:
    """A message may name who speaks; a model whose prompt has no place for it does not see it."""
    named = [{"role": "user", "content": QUESTION, "name": "jdoe"}]
    status, answer = api.post({"model": MODEL, "messages": named})
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == expected


TOOL: Json = {"type": "function", "function": {"name": "book", "parameters": {"type": "object"}}}


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_model_that_knows_no_tools(api: Api, expected: str, *, stream: bool) -> None:
    """Tools that it may call are not shown to it, and a header says so; what must be is refused."""
    asked: Json = {"model": MODEL, "messages": ASKED, "tools": [TOOL], "parallel_tool_calls": False}
    answer = api.client.chat.completions.with_raw_response.create(**asked, stream=stream)
    assert answer.headers["x-not-in-the-prompt"] == "tools"
    if not stream:
        assert json.loads(answer.text)["choices"][0]["message"]["content"] == expected
    status, refused = api.post({**asked, "tool_choice": "required", "stream": stream})
    assert status == 400
    assert refused["error"]["code"] == "unsupported_parameter"
    assert refused["error"]["param"] == "tools"


def test_an_answer_of_a_schema(api: Api) -> None:
    """Whatever the model, an answer that ends is of the schema; one that cannot be is refused."""
    properties: Json = {"topic": {"enum": ["leave", "e-mail"]}, "days": {"enum": [1, 2, 30]}}
    schema: Json = {"type": "object", "properties": properties, "required": list(properties)}
    told = {"type": "json_schema", "json_schema": {"name": "form", "schema": schema}}
    asked: Json = {"model": MODEL, "messages": ASKED, "response_format": told, "max_tokens": 200}
    schema["additionalProperties"] = False
    _, answer = api.post(asked)
    [choice] = answer["choices"]
    assert choice["finish_reason"] == "stop"
    form = json.loads(choice["message"]["content"])
    assert form.keys() == properties.keys()
    assert form["topic"] in {"leave", "e-mail"}
    properties["topic"] = {"not": {}}
    status, refused = api.post(asked)
    assert status == 400
    assert "#/properties/topic/not" in refused["error"]["message"]


def test_several_answers(api: Api, expected: str) -> None:
    """A question may have several answers, streamed or not; usage counts all of them."""
    whole = api.client.chat.completions.create(model=MODEL, messages=ASKED, n=2)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert [choice.message.content for choice in whole.choices] == [expected] * 2
    texts = ["", ""]
    for chunk in api.client.chat.completions.create(model=MODEL, messages=ASKED, n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [expected] * 2


def test_several_prompts(api: Api, expected: str) -> None:
    """Each prompt of a completion has its answers and its receipt; usage is of all of them."""
    asked: Json = {"model": MODEL, "prompt": [QUESTION, OTHER], "n": 2}
    status, whole = api.post(asked, "/v1/completions")
    assert status == 200
    texts = [choice["text"] for choice in whole["choices"]]
    assert texts[0] == texts[1] == expected
    assert texts[2] == texts[3] != expected
    assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    assert len({receipt["answer"] for receipt in whole["receipts"]}) == 2
    stream = api.client.completions.create(model=MODEL, prompt=[QUESTION, OTHER], stream=True)
    streamed = ["", ""]
    for chunk in stream:
        streamed[chunk.choices[0].index] += chunk.choices[0].text
    assert streamed == [expected, texts[2]]


def test_an_answer_that_has_begun_is_continued(api: Api, expected: str) -> None:
    """A conversation may end with the assistant's words; the answer is what comes after them."""
    words = expected.split(" ")
    begun = {"role": "assistant", "content": " ".join(words[:4])}
    status, answer = api.post({"model": MODEL, "messages": [*ASKED, begun]})
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == " " + " ".join(words[4:])


def test_whole_numbers_in_any_spelling(api: Api) -> None:
    """8.0, as JavaScript's and R's clients may write it, is 8."""
    body = {"model": MODEL, "messages": ASKED, "max_tokens": 3.0, "seed": 5.0, "n": 1.0}
    status, answer = api.post(body)
    assert status == 200
    assert answer["usage"]["completion_tokens"] == 3


def test_paths_and_methods(api: Api) -> None:
    """A slash too many is no other path; a method too many is told with those there are."""
    connection = api.connect()
    head = {"Authorization": f"Bearer {TOKEN}"}
    for method, path, status in (
        ("GET", "/v1/models/", 200),
        ("GET", f"/v1/models/{MODEL}/", 200),
        ("GET", "/v1/chat/completions", 405),
        ("PUT", "/v1/models", 405),
        ("GET", "/v1/nothing", 404),
    ):
        connection.request(method, path, headers=head)
        answer = connection.getresponse()
        body = json.loads(answer.read())
        assert answer.status == status, path
        if status == 405:
            assert answer.headers["allow"]
            assert body["error"]["code"] == "method_not_allowed"
    connection.close()
    assert api.post({"model": MODEL, "messages": ASKED}, "/v1/chat/completions/")[0] == 200


def test_on_a_unix_socket(twin: Twin, expected: str, tmp_path: Path) -> None:
    """OpenAI's client asks over a Unix socket, as docs/clients.md shows it."""
    path = tmp_path / "chat"
    tmp_path.chmod(0o700)
    conversations = Conversations(twin.connect(), twin.connect)
    application = make_application(conversations, token=TOKEN, defaults=FAST)
    with (
        listen_unix(path) as listener,
        serving(application, listener) as url,
        OpenAI(
            base_url=f"{url}/v1",
            api_key=TOKEN,
            http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=str(path))),
        ) as client,
    ):
        answer = client.chat.completions.create(model=MODEL, messages=ASKED)
    conversations.close()
    assert answer.choices[0].message.content == expected


# Who may ask.


def test_token(api: Api) -> None:
    """Without the token nothing is answered, not even the model's name."""
    for key in ("wrong", TOKEN[:-1]):
        with (
            OpenAI(base_url=f"{api.url}/v1", api_key=key, max_retries=0) as client,
            pytest.raises(AuthenticationError) as raised,
        ):
            client.models.list()
        assert raised.value.code == "invalid_api_key"
    connection = api.connect()
    connection.request("GET", "/v1/models")
    assert connection.getresponse().status == 401
    connection.close()


def test_other_hosts(api: Api) -> None:
    """The token does not help a page whose name was bent to this address."""
    connection = api.connect()
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "rebound.example"}
    connection.request("GET", "/v1/models", headers=headers)
    assert connection.getresponse().status == 421
    connection.close()


# Conversations.


def conversations_asked(twin: Twin, since: int) -> list[str]:
    """Give the conversations that KMS made question keys for, after its first *since* events."""
    return [
        event.encryption_context["conversation"]
        for event in twin.aws.audit.events[since:]
        if event.event_name == "GenerateDataKey"
        if event.encryption_context and event.encryption_context["purpose"] == "question"
    ]


def test_a_history_that_continues_goes_on(twin: Twin) -> None:
    """A history that extends one that is held goes on in its conversation; any other begins one."""
    with serve(twin.connect) as api:
        before = len(twin.aws.audit.events)
        system = {"role": "system", "content": "Answer in short."}
        turns = [system, {"role": "user", "content": QUESTION}]
        _, first = api.post({"model": MODEL, "messages": turns})
        reply = first["choices"][0]["message"]
        follow = [*turns, reply, {"role": "user", "content": OTHER}]
        assert api.post({"model": MODEL, "messages": follow})[0] == 200
        assert len(conversations_asked(twin, before)) == 1  # its key is kept for both
        changed = [system, turns[1], {**reply, "content": "Ask Bob."}, follow[-1]]
        assert api.post({"model": MODEL, "messages": changed})[0] == 200
        assert len(set(conversations_asked(twin, before))) == 2
        assert api.post({"model": MODEL, "messages": [system, *ASKED]})[0] == 200
        assert len(set(conversations_asked(twin, before))) == 3


def test_the_history_sent_is_what_the_model_reads(api: Api) -> None:
    """Messages before the question are part of the prompt."""
    _, short = api.post({"model": MODEL, "messages": ASKED, "max_tokens": 1})
    system = {"role": "developer", "content": "Answer in one word, whatever is asked."}
    _, long = api.post({"model": MODEL, "messages": [system, *ASKED], "max_tokens": 1})
    assert long["usage"]["prompt_tokens"] > short["usage"]["prompt_tokens"] + 5


def test_sessions_are_bounded_and_used_again(endless: Twin) -> None:
    """One session serves answers one after the other; a second at a time is told to wait."""
    short = {"model": MODEL, "messages": ASKED, "max_tokens": 8}
    with serve(endless.connect, limit=1) as api:
        assert api.post(short)[0] == 200
        stream = api.client.chat.completions.create(
            model=MODEL,
            messages=ASKED,
            stream=True,
            max_tokens=ENDLESS_TOKENS,
        )
        next(stream)
        with pytest.raises(RateLimitError) as raised:
            api.client.chat.completions.create(model=MODEL, messages=ASKED)
        assert raised.value.response.headers["retry-after"] == "2"
        assert raised.value.code == "full"
        assert "The enclave is at its limit" not in raised.value.message
        assert "the enclave was not asked" in raised.value.message
        stream.close()
        wait_until(lambda: api.post(short)[0] == 200)


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_client_that_hangs_up_stops_its_answer(endless: Twin, *, stream: bool) -> None:
    """When the client goes, the answer stops, long before its end."""
    failed = count(endless, "failed")
    with serve(endless.connect, limit=1) as api:
        connection = api.connect()
        asked = {"model": MODEL, "messages": ASKED, "stream": stream, "max_tokens": ENDLESS_TOKENS}
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(asked), {"Authorization": f"Bearer {TOKEN}"}
        )
        wait_until(lambda: api.conversations._busy and count(endless, "active"))
        session = api.conversations._busy[0]
        connection.close()
        wait_until(lambda: not api.conversations._busy)
        wait_until(lambda: not count(endless, "active"))
        assert count(endless, "failed") == failed  # a client that goes is nobody's failure
        assert session.history == ()
        assert session.evidence is None


# A parent that does more than relay.


@dataclass(slots=True)
class BentParent:
    """A parent that can change what it relays, and counts what crosses it."""

    twin: Twin
    posted: list[bytes] = field(default_factory=list)
    attested: int = 0
    forget: int = 0  # how many requests to answer with unknown_key
    frames: int | None = None  # how many messages of an answer to let through
    altered: int | None = None  # which message of an answer to change
    attest: Callable[[bytes, bytes], bytes] = lambda _, body: body

    def connect(self) -> Session:
        parent = self

        class Bent(Transport):
            def get_attestation(self, nonce: bytes) -> bytes:
                parent.attested += 1
                return parent.attest(nonce, super().get_attestation(nonce))

            def post_chat(
                self, sealed: bytes, stop: Stop | None = None
            ) -> Generator[tuple[Kind, bytes]]:
                parent.posted.append(sealed)
                if parent.forget:
                    parent.forget -= 1
                    yield Kind.HINT, UnknownKeyError.code.encode()
                    return
                for number, message in enumerate(super().post_chat(sealed, stop)):
                    if parent.frames is not None and number >= parent.frames:
                        return
                    if number == parent.altered:
                        yield message[0], message[1][:-1] + bytes([message[1][-1] ^ 1])
                    else:
                        yield message

        config = self.twin.config
        transport = Bent(config.url, tls_ca=config.tls_ca)
        return connect(transport, self.twin.access(), key_arn=config.key_arn, trust=self.twin.trust)

    def become_another_image(self) -> None:
        """From now on answer with documents of an enclave that nobody approved."""
        approved = self.twin.release.measurements
        other = Measurements(b"\x01" * 48, approved.pcr1, approved.pcr2)
        self.attest = substitute_document(SoftwareNsm(self.twin.nsm.root, other))


def test_a_new_key_is_verified(twin: Twin, expected: str) -> None:
    """When the enclave changes its key, it is verified again, and the client notices nothing."""
    parent = BentParent(twin)
    with serve(parent.connect) as api:
        assert parent.attested == 1  # at the start, before anyone asked
        parent.forget = 1
        _, answer = api.post({"model": MODEL, "messages": ASKED})
        assert answer["choices"][0]["message"]["content"] == expected
        assert parent.attested == 2
        assert len(parent.posted) == 2


def test_failed_verification_fails_requests(twin: Twin) -> None:
    """Once verification fails, requests fail with what happened, and nothing more is sent."""
    parent = BentParent(twin)
    with serve(parent.connect, limit=1) as api:
        assert api.post({"model": MODEL, "messages": ASKED})[0] == 200
        parent.become_another_image()
        parent.forget = 1
        sent = len(parent.posted) + 1  # the one that is told unknown_key, sealed to the old key
        told = []
        for stream in (False, True, False):
            with pytest.raises(APIStatusError) as raised:
                api.client.chat.completions.create(model=MODEL, messages=ASKED, stream=stream)
            assert raised.value.status_code == 502
            assert raised.value.code == "pcr_mismatch"
            assert raised.value.type == "enclave_not_trusted"
            assert "not on your approved list" in raised.value.message
            assert raised.value.response.headers["x-should-retry"] == "false"
            assert len(parent.posted) == sent
            told.append("this question was not sent" not in raised.value.message)
            assert ("only a copy sealed" in raised.value.message) == told[-1]
        assert told == [True, False, False]  # the first had left when its enclave changed
        parent.attest = BentParent(twin).attest
        assert api.post({"model": MODEL, "messages": ASKED})[0] == 200


def test_a_new_conversation_fails_the_same_way(twin: Twin) -> None:
    """A session that would have to be opened is not, and the others verify again."""
    parent = BentParent(twin)
    with serve(parent.connect) as api:
        _, first = api.post({"model": MODEL, "messages": ASKED})
        parent.become_another_image()
        sent = len(parent.posted)
        status, answer = api.post({"model": MODEL, "messages": ASKED})
        assert (status, answer["error"]["code"]) == (502, "pcr_mismatch")
        reply = first["choices"][0]["message"]
        follow = [*ASKED, reply, {"role": "user", "content": OTHER}]
        assert api.post({"model": MODEL, "messages": follow})[0] == 502
        assert len(parent.posted) == sent


def test_an_answer_that_is_cut_never_ends_well(twin: Twin) -> None:
    """A truncated answer is an error: with no reason to finish, no [DONE], no usage."""
    parent = BentParent(twin)
    with serve(parent.connect) as api:
        parent.frames = 4
        chunks: list[ChatCompletionChunk] = []
        stream = api.client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        with pytest.raises(APIError, match="incomplete"):
            chunks.extend(stream)
        assert chunks[-1].choices[0].delta.content
        assert all(chunk.choices[0].finish_reason is None for chunk in chunks)
        status, answer = api.post({"model": MODEL, "messages": ASKED})
        assert (status, answer["error"]["code"]) == (502, "truncated")
        assert "choices" not in answer


def test_an_answer_that_is_altered_is_not_passed_on(twin: Twin) -> None:
    """A changed bit in a frame is an error of its own, which no client tries again by itself."""
    parent = BentParent(twin)
    with serve(parent.connect) as api:
        parent.altered = 1
        with pytest.raises(APIStatusError) as raised:
            api.client.chat.completions.create(model=MODEL, messages=ASKED, stream=True)
        assert (raised.value.status_code, raised.value.code) == (502, "sealed")
        assert raised.value.response.headers["x-should-retry"] == "false"
        assert "altered" in raised.value.message


def count_ours() -> Counter[str]:
    """Count the living objects of the product's own classes, by class."""
    gc.collect()
    kinds = (type(item) for item in gc.get_objects())
    return Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).startswith("app."))


def test_requests_leave_nothing_behind(twin: Twin) -> None:
    """However many were answered, refused or hung up on, as many objects live as before."""
    with serve(twin.connect, limit=2) as api:

        def ask(number: int) -> None:
            question = [{"role": "user", "content": f"How do I book leave, {number}?"}]
            body = {"model": MODEL, "messages": question, "max_tokens": 2}
            assert api.post(body)[0] == 200
            assert api.post({**body, "messages": [{"role": "user", "content": LONG}]})[0] == 400
            assert api.post({**body, "n": 2})[0] == 200
            assert api.post({**body, "n": 5})[0] == 400
            connection = api.connect()
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps({**body, "stream": True}),
                {"Authorization": f"Bearer {TOKEN}"},
            )
            connection.close()
            wait_until(lambda: not api.conversations._busy)

        for number in range(4):
            ask(number)
        before = count_ours()
        for number in range(4, 14):
            ask(number)
        # The last one that was hung up on may be on its way out still.
        wait_until(lambda: sum((count_ours() - before).values()) < 10)


def test_many_clients_at_once(api: Api, expected: str) -> None:
    """Each of many gets its own answer."""
    got: list[str] = []

    def ask() -> None:
        _, answer = api.post({"model": MODEL, "messages": ASKED})
        got.append(answer["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert got == [expected] * 6
