import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType

import pytest

from app.enclave.engine.cache import KvCache
from app.enclave.engine.encoding import (
    MOST_LONG,
    SHORT_BYTES,
    SHORT_TURNS,
    PromptEncoder,
    Tokenizer,
)
from app.enclave.engine.generation import BatchedAnswers
from app.enclave.engine.schedule import Schedule
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import (
    BusyError,
    DeadlineError,
    EngineError,
    TooLongError,
    UnsupportedError,
)
from app.protocol.question import Message, Options, Question
from tests.patience import wait_until

FOREVER = time.monotonic() + 3600
CONTEXT = 64


class Bytes:
    """A token a byte, and what was encoded."""

    stops: tuple[str, ...] = ()
    strip_start = False
    most_token_bytes = 10
    vocabulary = 256
    controls = MappingProxyType[int, str]({})

    def __init__(self) -> None:
        self.encoded: list[Question] = []

    def grammar(self, question: Question) -> None:
        """Hold answers to nothing."""

    def encode(self, question: Question) -> list[int]:
        self.encoded.append(question)
        return list(b"".join(message.text.encode() for message in question.messages))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode()

    def spell(self, token: int) -> bytes:
        return bytes([token])


def ask(*texts: str) -> Question:
    return Question(tuple(Message("user", text) for text in texts))


def encode(tokenizer: Tokenizer, question: Question) -> list[int]:
    encoder = PromptEncoder(tokenizer, context_tokens=CONTEXT)
    return encoder.encode(question, "mine", deadline=FOREVER)


def test_tokens() -> None:
    """
    A prompt that leaves room for an answer is what the tokenizer gives.
    """
    assert encode(Bytes(), ask("x" * (CONTEXT - 1))) == list(b"x" * (CONTEXT - 1))


def test_too_long() -> None:
    """
    A prompt that leaves no room is refused with its length and the limit.
    """
    with pytest.raises(TooLongError) as caught:
        encode(Bytes(), ask("x" * CONTEXT))
    assert caught.value.numbers == (CONTEXT, CONTEXT)


@pytest.mark.parametrize(
    ("question", "fewest"),
    [
        (ask("é" * 320), 64),
        (ask("x" * 256 * 1024), 26_215),
        (ask(*"x" * CONTEXT), CONTEXT),
        (ask(*"x" * 4096), 4096),
    ],
    ids=["bytes", "many bytes", "turns", "many turns"],
)
def test_refused_before_any_work(question: Question, fewest: int) -> None:
    """
    What cannot fit, however long each token is, costs no encoding; the number is the fewest
    tokens that it can be.
    """
    tokenizer = Bytes()
    with pytest.raises(TooLongError) as caught:
        encode(tokenizer, question)
    assert caught.value.numbers == (fewest, CONTEXT)
    assert tokenizer.encoded == []


def test_just_short_enough() -> None:
    """
    What may fit is encoded, by its bytes and by its turns.
    """
    tokenizer = Bytes()
    with pytest.raises(TooLongError):
        encode(tokenizer, ask("é" * 315))
    assert len(encode(tokenizer, ask(*"x" * (CONTEXT - 1)))) == CONTEXT - 1
    assert len(tokenizer.encoded) == 2


def test_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A prompt without a token is refused: the model could say nothing of it.
    """
    tokenizer = Bytes()
    monkeypatch.setattr(tokenizer, "encode", lambda _: [])
    with pytest.raises(EngineError):
        encode(tokenizer, ask("hello"))


def test_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whatever a template or a tokenizer raises is one error without a message, but for the
    documented one; and the next question is encoded.
    """
    tokenizer = Bytes()
    for error, expected in (
        (ValueError("x"), EngineError),
        (UnsupportedError("x"), UnsupportedError),
    ):

        def fail(_: Question, error: Exception = error) -> list[int]:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(tokenizer, "encode", fail)
            with pytest.raises(expected):
                encode(tokenizer, ask("hello"))
    assert encode(tokenizer, ask("hello")) == list(b"hello")


def hold_up(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Bytes
) -> tuple[threading.Event, threading.Event]:
    """Have *tokenizer* say when it begins, and wait until it may go on."""
    begun, gate = threading.Event(), threading.Event()

    def encode_slowly(_: Question) -> list[int]:
        begun.set()
        gate.wait()
        return [1]

    monkeypatch.setattr(tokenizer, "encode", encode_slowly)
    return begun, gate


def test_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While one is encoded others wait, until their deadline at most.
    """
    tokenizer = Bytes()
    begun, gate = hold_up(monkeypatch, tokenizer)
    encoder = PromptEncoder(tokenizer, context_tokens=CONTEXT)
    under_way = threading.Thread(target=lambda: encoder.encode(ask("one"), "one", deadline=FOREVER))
    under_way.start()
    begun.wait()
    with pytest.raises(DeadlineError):
        encoder.encode(ask("two"), "two", deadline=time.monotonic() + 0.02)
    gate.set()
    under_way.join()
    assert encoder.encode(ask("two"), "two", deadline=FOREVER) == [1]


def test_long_ones_do_not_take_all_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    However many conversations have long questions that are to be refused once they are encoded,
    they take a third of the engine's places at most, and short ones of others find room. Who has
    hung up makes room for another long one at once.
    """
    tokenizer = Bytes()
    gate = threading.Event()
    gone = threading.Event()

    def encode_slowly(question: Question) -> list[int]:
        if len(question.messages[0].text) > SHORT_BYTES:
            gate.wait()
        return [1] * 10_000

    def require_wanted() -> None:
        if gone.is_set():
            raise BrokenPipeError

    monkeypatch.setattr(tokenizer, "encode", encode_slowly)
    encoder = PromptEncoder(tokenizer, context_tokens=10_000)
    schedule = Schedule(KvCache(1))
    long = ask("x" * (SHORT_BYTES + 1))

    def flood(name: str) -> None:
        def prepare() -> BatchedAnswers:
            encoder.encode(long, name, deadline=FOREVER, require_wanted=require_wanted)
            raise AssertionError

        with suppress(TooLongError, BusyError, BrokenPipeError):
            schedule.join(1, prepare)

    places = MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS
    threads = [threading.Thread(target=flood, args=(str(at),)) for at in range(2 * places)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(thread.is_alive() for thread in threads) == MOST_LONG)
    assert schedule._preparing == MOST_LONG <= places / 3
    with pytest.raises(BusyError):
        encoder.encode(long, "mine", deadline=FOREVER)
    with pytest.raises(TooLongError):
        encoder.encode(ask("short"), "mine", deadline=FOREVER)
    gone.set()
    wait_until(lambda: schedule._preparing == 1)  # the one that is encoded
    gate.set()
    for thread in threads:
        thread.join()


def test_several_answers_wait_as_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A long question takes as many places while it waits as it wants answers.
    """
    tokenizer = Bytes()
    begun, gate = hold_up(monkeypatch, tokenizer)
    encoder = PromptEncoder(tokenizer, context_tokens=10_000)
    several = replace(ask("x" * (SHORT_BYTES + 1)), options=Options(n=MOST_LONG))
    under_way = threading.Thread(target=lambda: encoder.encode(several, "one", deadline=FOREVER))
    under_way.start()
    begun.wait()
    with pytest.raises(BusyError):
        encoder.encode(ask("x" * (SHORT_BYTES + 1)), "two", deadline=FOREVER)
    gate.set()
    under_way.join()


def test_short_ones_wait_for_no_long_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    While a long text, or one of many turns, is encoded, a short one is, too; and long ones wait.
    """
    tokenizer = Bytes()
    begun, gate = threading.Event(), threading.Event()

    def encode_slowly(question: Question) -> list[int]:
        if len(question.messages) + len(question.messages[0].text) > 100:
            begun.set()
            gate.wait()
        return [1]

    monkeypatch.setattr(tokenizer, "encode", encode_slowly)
    encoder = PromptEncoder(tokenizer, context_tokens=10_000)
    long = ask("x" * (SHORT_BYTES + 1))
    under_way = threading.Thread(target=lambda: encoder.encode(long, "one", deadline=FOREVER))
    under_way.start()
    begun.wait()
    assert encoder.encode(ask("short"), "two", deadline=time.monotonic() + 5) == [1]
    for other in (long, ask(*"x" * (SHORT_TURNS + 1))):
        with pytest.raises(DeadlineError):
            encoder.encode(other, "two", deadline=time.monotonic() + 0.02)
    gate.set()
    under_way.join()
