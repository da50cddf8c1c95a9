"""The library, as a program uses it, on the running twin."""

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from app.chatbot.library import opening
from app.protocol.asker.answer import AnswerOpener
from app.protocol.messages import Kind
from app.protocol.piece import Piece
from enclave_llm import (
    AsyncAnswer,
    AsyncSession,
    AttestationError,
    ConfigError,
    FormError,
    Options,
    Session,
    Tools,
    TruncatedError,
    connect,
    prove_answer,
    read_file,
)
from local.twin.twin import Twin
from tests.endless import ENDLESS_TOKENS, count
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.scripted_twin import ScriptedTwin, control

QUESTION = "How do I book leave?"
FAST = Options(padding="off")


@pytest.fixture(autouse=True)
def twins_trust(twin: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin's trust in place of the list that a person would have."""
    monkeypatch.setattr(opening, "production_trust", lambda _: twin.trust)


@pytest.fixture
def connected(twin: Twin) -> Iterator[Session]:
    """A session as the library gives it."""
    with connect(twin.config, aws=twin.asker) as session:
        yield session


def test_asking(twin: Twin) -> None:
    """The few lines of the documentation work, with the configuration from its file."""
    with connect(twin.folder / "chat.json", aws=twin.asker) as session:
        answer = session.ask(QUESTION)
        pieces = list(answer)
    assert "".join(pieces) == answer.text != ""
    assert answer.evidence is not None
    assert answer.evidence.receipt.completion_tokens > 0
    assert answer.state == "whole"


def test_what_the_parent_saw(twin: Twin, connected: Session) -> None:
    """An answer shows the very bytes that crossed the parent, and when."""
    answer = connected.ask(QUESTION, FAST)
    assert answer.state == "sealing"
    assert answer.seen.request == b""
    "".join(answer)
    saw = max(twin.parent_saw.glob("*.request"))
    assert answer.seen.request == saw.read_bytes()
    crossed = saw.with_suffix(".answer").read_bytes()
    assert all(message.body in crossed for message in answer.seen.messages)
    assert answer.evidence is not None
    assert answer.evidence.answer_bytes == answer.seen.answer_bytes < len(crossed)
    times = [answer.seen.sent_seconds, *(message.seconds for message in answer.seen.messages)]
    assert times == sorted(times)
    assert times[-1] <= answer.seconds


def test_stopping_from_another_thread(endless: Twin, monkeypatch: pytest.MonkeyPatch) -> None:
    """`stop` ends an answer long before its end, wherever it is; the session goes on."""
    monkeypatch.setattr(opening, "production_trust", lambda _: endless.trust)
    with connect(endless.config, aws=endless.asker) as session:
        stop_and_go_on(session)


def stop_and_go_on(connected: Session) -> None:
    short = Options(padding="off", max_tokens=8)
    answer = connected.ask(QUESTION, Options(max_tokens=ENDLESS_TOKENS))
    began = threading.Event()
    failures: list[TruncatedError] = []

    def read() -> None:
        try:
            for _ in answer:
                began.set()
        except TruncatedError as error:
            failures.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert began.wait(PATIENCE_SECONDS)
    answer.stop()
    thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()
    assert answer.stopped
    assert failures[0].incomplete
    assert answer.evidence is None
    assert connected.history == ()
    assert "".join(connected.ask(QUESTION, short))
    answer.stop()  # one that is over stops nothing else
    assert "".join(connected.ask(QUESTION, short))


def test_stopping_before_it_begins(twin: Twin, connected: Session) -> None:
    """An answer stopped before its first piece was asked for sends nothing."""
    seen = len(list(twin.parent_saw.iterdir()))
    answer = connected.ask(QUESTION)
    answer.stop()
    with pytest.raises(TruncatedError, match="stopped"):
        next(answer)
    assert len(list(twin.parent_saw.iterdir())) == seen


def test_place_in_the_queue(connected: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where frames tell the answer's place among those that wait, the answer shows it."""
    straight = AnswerOpener.open

    def tell(opener: AnswerOpener, kind: Kind, body: bytes) -> list[Piece]:
        pieces = straight(opener, kind, body)
        opener.place = 3  # type: ignore[attr-defined,unused-ignore]
        return pieces

    answer = connected.ask(QUESTION, FAST)
    places = [answer.place]
    monkeypatch.setattr(AnswerOpener, "open", tell)
    next(answer)
    places.append(answer.place)
    assert places == [None, 3]
    answer.close()


def test_proof_has_the_raw_values(twin: Twin, connected: Session) -> None:
    """Each step of verification is told in words, with the values that were compared."""
    steps = {step.name: step for step in connected.prove()}
    assert list(steps) == [
        "chain", "signature", "freshness", "not debug", "image", "manifest", "key",
    ]  # fmt: skip
    assert all(step.says.endswith(".") and step.values for step in steps.values())
    assert len(steps["chain"].values) >= 2
    assert twin.trust.root_name in steps["chain"].says
    root = steps["chain"].values["certificate 0"]
    assert twin.trust.root.subject.rfc4514_string() in root
    image = steps["image"].values
    assert image["PCR1 attested"] == image["PCR1 approved"]
    assert image["PCR0 attested"] == twin.release.measurements.pcr0.hex()
    assert steps["key"].values["HPKE key"] == connected.enclave.public_key.hex()
    answer = connected.ask(QUESTION, FAST)
    "".join(answer)
    assert answer.evidence is not None
    receipt = prove_answer(answer.evidence)
    assert receipt.values["request"] == answer.evidence.receipt.request_digest.hex()
    assert receipt.values["manifest"] == steps["manifest"].values["manifest sha256"]


def test_nothing_is_given_before_it_is_verified(
    twin: Twin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An enclave that is not approved, or a list that is not there, gives no session."""
    nobody = type(twin.trust)(twin.trust.root, "the twin's root", ())
    monkeypatch.setattr(opening, "production_trust", lambda _: nobody)
    with pytest.raises(AttestationError):
        connect(twin.config, aws=twin.asker)
    monkeypatch.undo()
    with pytest.raises(ConfigError, match=r"process"):
        connect(twin.config, releases=twin.folder / "releases.json", aws=twin.asker)


def test_a_form_is_filled(connected: Session) -> None:
    """An answer of a type's schema is given as that; it is part of the conversation."""
    places = connected.fill(list[Annotated[int, Field(ge=1, le=9)]], QUESTION, FAST)
    assert all(1 <= place <= 9 for place in places)
    assert len(connected.history) == 2
    with pytest.raises(FormError, match="max_tokens"):
        connected.fill(list[int], QUESTION, Options(padding="off", max_tokens=1))


def test_a_document_is_asked_about(scripted: ScriptedTwin, tmp_path: Path) -> None:
    """What a file says stands before the question, in a frame; forms and asyncio have it, too."""
    scripted.script({"when": "Two days off", "says": ["[2]"]})
    (tmp_path / "letter.txt").write_text("Two days off, please.")
    documents = [read_file(tmp_path / "letter.txt")]

    async def fill() -> list[int]:
        async with AsyncSession(scripted.twin.open()) as session:
            return await session.fill(list[int], "How many days?", FAST, documents=documents)

    with scripted.twin.open() as session:
        assert "".join(session.ask("How many?", FAST, documents=documents)) == "[2]"
        assert session.fill(list[int], "How many days?", FAST, documents=documents) == [2]
    assert asyncio.run(fill()) == [2]
    asked = [question["messages"][-1]["text"] for question in scripted.asked()]
    assert all("letter.txt" in text and text.endswith(("many?", "days?")) for text in asked)


def find_weather(city: str) -> str:
    """Give the weather of a city."""
    return f"18 °C in {city}"


WEATHER = (
    {
        "when": "^user: ",
        "tools": True,
        "says": [
            control("<tool_call>"),
            '{"name": "find_weather", "arguments": {"city": "Bonn"}}',
            control("</tool_call>"),
        ],
    },
    {"when": "^tool: 18 °C in Bonn", "says": ["Mild."]},
)


def test_tools_are_called_and_told_of(scripted: ScriptedTwin) -> None:
    """A loop of tools: calls, results, and the answer to them, in one conversation."""
    scripted.script(*WEATHER)
    tools = Tools(find_weather)
    with scripted.twin.open() as session:
        answer = session.ask("Weather in Bonn?", Options(padding="off", seed=5), tools=tools)
        assert "".join(answer) == ""
        (call,) = answer.calls
        assert call.name == "find_weather"
        answer = session.give({call: tools.run(call)})
        assert "".join(answer) == "Mild."
        assert answer.calls == ()
        assert [message.role for message in session.history] == [
            *("user", "assistant", "tool", "assistant"),
        ]
    first, second = scripted.asked()
    assert first["options"]["seed"] == second["options"]["seed"] == 5
    assert json.loads(second["options"]["tools"])[0]["function"]["name"] == "find_weather"


def test_asyncio(scripted: ScriptedTwin) -> None:
    """The same for asyncio: text, tools, forms, and two sessions at once in one loop."""
    scripted.script(*WEATHER)
    tools = Tools(find_weather)

    async def loop(session: AsyncSession) -> str:
        answer = session.ask("Weather in Bonn?", FAST, tools=tools)
        assert [piece async for piece in answer] == []
        told = session.give({call: tools.run(call) for call in answer.calls})
        text = "".join([piece async for piece in told])
        assert told.evidence is not None
        assert told.text == text
        return text

    async def both() -> list[str]:
        async with (
            AsyncSession(scripted.twin.open()) as one,
            AsyncSession(scripted.twin.open()) as two,
        ):
            assert one.enclave.release == scripted.twin.release
            said = [*await asyncio.gather(loop(one), loop(two))]
            scripted.script({"says": ["[1", ", 2]"]})
            assert await one.fill(list[int], "a list", FAST) == [1, 2]
            return said

    assert asyncio.run(both()) == ["Mild.", "Mild."]


async def read(answer: AsyncAnswer) -> str:
    return "".join([piece async for piece in answer])


def test_cancelling_stops_the_answer(endless: Twin) -> None:
    """Whoever is cancelled has stopped the enclave's work, and the session goes on."""

    async def cancel() -> None:
        async with AsyncSession(endless.open()) as session:
            answer = session.ask(QUESTION, Options(max_tokens=ENDLESS_TOKENS, padding="off"))
            assert await anext(answer)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(read(answer), 0.2)
            assert answer.evidence is None
            assert session.history == ()
            await asyncio.to_thread(wait_until, lambda: count(endless, "active") == 0)
            short = session.ask(QUESTION, Options(padding="off", max_tokens=8))
            assert await read(short)

    asyncio.run(cancel())


def test_leaving_early_ends_the_answer(endless: Twin) -> None:
    """`aclose` ends an answer whose iteration was left; `stop` has the iteration raise."""

    async def leave() -> None:
        async with AsyncSession(endless.open()) as session:
            long = Options(max_tokens=ENDLESS_TOKENS, padding="off")
            answer = session.ask(QUESTION, long)
            async for _ in answer:
                break
            await answer.aclose()
            await asyncio.to_thread(wait_until, lambda: count(endless, "active") == 0)
            other = session.ask(QUESTION, long)
            assert await anext(other)
            other.stop()
            with pytest.raises(TruncatedError):
                await read(other)

    asyncio.run(leave())
