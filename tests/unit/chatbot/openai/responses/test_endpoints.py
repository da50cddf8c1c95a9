import asyncio
import json
import time
from collections.abc import Coroutine, Generator
from typing import Any, cast

import httpx2
import pytest

from app.chatbot.openai.conversations import Conversations
from app.chatbot.openai.responses import endpoints
from app.chatbot.openai.responses.held import HeldResponses
from app.chatbot.openai.server import make_application
from app.chatbot.reading.parts import Arguments, Call, Part, Reasoning, Text
from app.chatbot.session.exchange import Answer, Exchange
from app.chatbot.session.session import Session
from app.protocol.errors import AppError, BusyError, EngineError, TooLongError
from app.protocol.question import Message, Question
from tests.patience import PATIENCE_SECONDS
from tests.reference import read_events, require_response
from tests.unit.chatbot.evidence.test_words import verified
from tests.unit.chatbot.openai.responses.test_response import make_evidence

TOKEN = "t" * 32
MODEL = verified().manifest.model


class ScriptedSession:
    """A session that says what the test wants, or fails."""

    def __init__(self) -> None:
        self.history: tuple[Message, ...] = ()
        self.tools: str | None = None
        self.parts: list[Part] = [Text("Nobody "), Text("but you.")]
        self.failure: AppError | None = None
        self.questions: list[Question] = []
        self.begun = 0
        self.enclave = verified()

    def new_conversation(self, history: tuple[Message, ...] = ()) -> None:
        self.history = history
        self.begun += 1

    def doubt(self) -> None: ...

    def close(self) -> None: ...

    def ask_question(self, question: Question) -> Answer:
        self.questions.append(question)
        exchange = Exchange(time.monotonic(), enclave=self.enclave)

        def answer() -> Generator[Part]:
            for part in self.parts:
                exchange.parts.append(part)
                yield part
            if self.failure:
                raise self.failure
            exchange.evidence = make_evidence()
            self.history = (*question.messages, exchange.message())

        return Answer(answer(), exchange)


class Api:
    """The API on a scripted session, without a socket."""

    def __init__(self) -> None:
        self.session = ScriptedSession()
        conversations = Conversations(cast("Session", self.session), self._open, limit=1)
        self.application = make_application(conversations, token=TOKEN)

    def _open(self) -> Session:
        raise AssertionError("one session is enough")

    def call(self, *calls: tuple[str, str, object]) -> list[httpx2.Response]:
        """Make requests one after the other: method, path, body."""

        async def run() -> list[httpx2.Response]:
            transport = httpx2.ASGITransport(self.application)
            async with httpx2.AsyncClient(
                transport=transport,
                base_url="http://x",
                headers={"authorization": f"Bearer {TOKEN}"},
            ) as client:
                return [await client.request(how, path, json=body) for how, path, body in calls]

        return asyncio.run(run())

    def post(self, given: object = "Who?", **more: object) -> httpx2.Response:
        [response] = self.call(("POST", "/v1/responses", {"model": MODEL, "input": given, **more}))
        return response


@pytest.fixture
def api() -> Api:
    return Api()


def error_of(response: httpx2.Response) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    return error


def test_a_response(api: Api) -> None:
    """It is whole, with all that the reference requires, and the receipt."""
    response = api.post(instructions="Be short.", metadata={"a": "b"})
    assert response.status_code == 200
    body = response.json()
    require_response(body)
    assert body["output"][0]["content"][0]["text"] == "Nobody but you."
    assert body["receipt"]["release"] == "test"
    assert (body["status"], body["metadata"], body["store"]) == ("completed", {"a": "b"}, True)
    [question] = api.session.questions
    assert question.messages == (Message("system", "Be short."), Message("user", "Who?"))


def test_a_stream(api: Api) -> None:
    """It has the events of the same response, and no end that the reference does not know."""
    response = api.post(stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-store"
    events = read_events(response.text)
    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert [event["delta"] for event in events if event["type"].endswith("delta")] == [
        "Nobody ",
        "but you.",
    ]


def test_going_on_by_id(api: Api) -> None:
    """A response that is held is gone on from: by its id, or by its items'."""
    first = api.post().json()
    second = api.post("Why?", previous_response_id=first["id"]).json()
    said = (Message("user", "Who?"), Message("assistant", "Nobody but you."))
    assert api.session.questions[1].messages == (*said, Message("user", "Why?"))
    assert second["previous_response_id"] == first["id"]
    items = [{"id": first["output"][0]["id"]}, {"role": "user", "content": "How?"}]
    api.post([{"role": "user", "content": "Who?"}, *items])
    assert api.session.questions[2].messages == (*said, Message("user", "How?"))
    api.post("Then?", previous_response_id=second["id"], stream=True)
    assert len(api.session.questions[3].messages) == 5


TOOL = {"type": "function", "name": "look", "parameters": {}}


@pytest.mark.parametrize("by_id", [False, True])
def test_a_tool_is_called_and_its_output_given_back(api: Api, *, by_id: bool) -> None:
    """A call goes out, its output comes back: in the same conversation, by id or by value."""
    api.session.parts = [Reasoning("Hm."), Call("abcdefghi", "look"), Arguments('{"a": 1}')]
    first = api.post(tools=[TOOL], stream=True)
    response = read_events(first.text)[-1]["response"]
    call = response["output"][-1]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "seen"}
    asked = {"role": "user", "content": "Who?"}
    before = [] if by_id else [asked, *response["output"]]
    api.session.parts = [Text("So.")]
    more = {"previous_response_id": response["id"]} if by_id else {}
    api.post([*before, output], tools=[TOOL], **more)
    _, answer, result = api.session.questions[1].messages
    assert (answer.reasoning, answer.text, len(answer.calls)) == ("Hm.", "", 1)
    assert result == Message("tool", "seen", "look", call_id="abcdefghi")
    assert api.session.begun == 1


def test_nothing_is_held_of_what_is_not_to_be_stored(api: Api) -> None:
    """`store: false` holds nothing, streamed or not; nor does an answer that fails."""
    names = [api.post(store=False).json()["id"]]
    names.append(read_events(api.post(store=False, stream=True).text)[0]["response"]["id"])
    api.session.failure = EngineError()
    names.append(read_events(api.post(stream=True).text)[0]["response"]["id"])
    for name in names:
        error = error_of(api.post("Why?", previous_response_id=name))
        assert error["code"] == "previous_response_not_found"
        assert error["param"] == "previous_response_id"
        [shown] = api.call(("GET", f"/v1/responses/{name}", None))
        assert (shown.status_code, error_of(shown)["code"]) == (404, "response_not_found")


def test_what_is_held_is_shown_and_deleted(api: Api) -> None:
    """A held response is given as it was, with its input; once it is deleted it is gone."""
    first = api.post().json()
    path = f"/v1/responses/{first['id']}"
    shown, items, deleted, again = api.call(
        ("GET", path, None),
        ("GET", f"{path}/input_items", None),
        ("DELETE", path, None),
        ("DELETE", path, None),
    )
    assert shown.json() == first
    assert [item["content"][0]["text"] for item in items.json()["data"]] == ["Who?"]
    assert deleted.json() == {"id": first["id"], "object": "response", "deleted": True}
    assert again.status_code == 404


def test_input_items_come_in_pages(api: Api) -> None:
    """The newest first, unless asked for otherwise; a page goes on after an item."""
    given = [{"role": "user", "content": str(n)} for n in range(5)]
    path = f"/v1/responses/{api.post(given).json()['id']}/input_items"
    [page] = api.call(("GET", f"{path}?limit=2", None))
    assert [item["content"][0]["text"] for item in page.json()["data"]] == ["4", "3"]
    assert page.json()["has_more"]
    after = page.json()["last_id"]
    rest, ascending, no_item, no_limit = api.call(
        ("GET", f"{path}?after={after}", None),
        ("GET", f"{path}?order=asc", None),
        ("GET", f"{path}?after=msg_x", None),
        ("GET", f"{path}?limit=101", None),
    )
    assert [item["content"][0]["text"] for item in rest.json()["data"]] == ["2", "1", "0"]
    assert not rest.json()["has_more"]
    assert ascending.json()["data"][0]["content"][0]["text"] == "0"
    assert error_of(no_item)["param"] == "after"
    assert error_of(no_limit)["param"] == "limit"


def test_what_is_not_served_of_a_held_response(api: Api) -> None:
    """It is neither streamed again nor cancelled; one sentence says so."""
    path = f"/v1/responses/{api.post().json()['id']}"
    streamed, cancelled = api.call(
        ("GET", f"{path}?stream=true", None), ("POST", f"{path}/cancel", {})
    )
    assert error_of(streamed)["param"] == "stream"
    assert "background" in error_of(cancelled)["message"]


def test_what_is_not_served_at_all(api: Api) -> None:
    """Other methods and paths are answered in a sentence that says what is served."""
    for how, path, status in (
        ("GET", "/v1/responses", 405),
        ("POST", "/v1/responses/compact", 405),
        ("POST", "/v1/responses/input_tokens", 405),
        ("POST", "/v1/conversations", 404),
    ):
        [answer] = api.call((how, path, {}))
        assert answer.status_code == status
        assert "/v1/responses" in error_of(answer)["message"]


def test_failures_before_anything_came(api: Api) -> None:
    """They have a status, as for a chat; what is too long names the input."""
    api.session.parts = []
    for stream in (False, True):
        api.session.failure = TooLongError("too long", numbers=(9, 8))
        error = error_of(api.post(stream=stream))
        assert (error["param"], error["code"]) == ("input", "context_length_exceeded")
        api.session.failure = BusyError()
        assert api.post(stream=stream).status_code == 429


def test_failures_in_between(api: Api) -> None:
    """A stream ends with an error, then as failed; a whole response is none."""
    api.session.failure = EngineError()
    events = read_events(api.post(stream=True).text)
    assert [event["type"] for event in events[-2:]] == ["error", "response.failed"]
    assert events[-1]["response"]["output"][0]["status"] == "incomplete"
    assert api.post().status_code == 502


def test_another_model(api: Api) -> None:
    """Another model than the one served is not found, in few words however long its name."""
    response = api.post(model="x" * 5000)
    assert (response.status_code, error_of(response)["code"]) == (404, "model_not_found")
    assert len(response.content) < 400


def test_the_token_guards_all_of_it(api: Api) -> None:
    """Without the token nothing that is held is shown."""
    held = api.post().json()["id"]
    headers = {"authorization": "Bearer x"}

    async def run() -> list[int]:
        transport = httpx2.ASGITransport(api.application)
        async with httpx2.AsyncClient(transport=transport, base_url="http://x") as client:
            paths = ("", f"/{held}", f"/{held}/input_items")
            return [
                (await client.get(f"/v1/responses{path}", headers=headers)).status_code
                for path in paths
            ]

    assert asyncio.run(run()) == [401] * 3


def test_what_is_held_goes_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its time has come a response is dropped from memory, asked for or not."""
    held = HeldResponses(seconds=0.05)
    monkeypatch.setattr(endpoints, "HeldResponses", lambda: held)
    api = Api()

    async def run() -> None:
        transport = httpx2.ASGITransport(api.application)
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://x", headers=headers
        ) as client:
            for _ in range(2):
                response = await client.post(
                    "/v1/responses", json={"model": MODEL, "input": "Who?"}
                )
                name = response.json()["id"]
                assert name in held._held
                for _ in range(100 * int(PATIENCE_SECONDS)):
                    if held._held:
                        await asyncio.sleep(0.01)
                assert held._held == {}

    asyncio.run(run())


def test_a_reader_that_stops_reading_holds_no_session(api: Api) -> None:
    """An answer whose client takes nothing of it is finished all the same, for others to ask."""
    body = json.dumps({"model": MODEL, "input": "Who?", "stream": True}).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/responses",
        "query_string": b"",
        "headers": [(b"authorization", f"Bearer {TOKEN}".encode())],
    }

    async def run() -> None:
        asked, stuck = False, asyncio.Event()

        async def receive() -> dict[str, object]:
            nonlocal asked
            if asked:
                await asyncio.Event().wait()
            asked = True
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            if message.get("body"):
                stuck.set()
                await asyncio.Event().wait()

        serving = cast("Coroutine[None, None, None]", api.application(scope, receive, send))
        reading = asyncio.create_task(serving)
        await asyncio.wait_for(stuck.wait(), PATIENCE_SECONDS)
        transport = httpx2.ASGITransport(api.application)
        headers = {"authorization": f"Bearer {TOKEN}"}
        async with httpx2.AsyncClient(
            transport=transport, base_url="http://x", headers=headers
        ) as client:
            other = {"model": MODEL, "input": "Why?"}
            for _ in range(100 * int(PATIENCE_SECONDS)):
                answer = await client.post("/v1/responses", json=other)
                if answer.status_code != 429:
                    break
                await asyncio.sleep(0.01)
        assert answer.status_code == 200
        assert not reading.done()
        reading.cancel()

    asyncio.run(run())
