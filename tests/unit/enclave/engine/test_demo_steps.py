"""
The demo model's own answers when they give way, share blocks or are guessed at.

It computes in 32 bits here: with 8-bit keys and values what is computed anew may be rounded another
way, and of some thousand draws one may then fall to another token.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.generation import BatchedAnswers, BatchedGeneration, TokenSequence
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.schedule import Part, Schedule
from app.enclave.engine.tokenizer import Tokenizer
from app.enclave.engine.weights import load_weights
from app.protocol.question import Message, Options, Question
from tests.pieces import take_all, text_of

DEMO = Path(__file__).parents[4] / "local" / "demo_model" / "weights"
CONTEXT = 256
FEW = CONTEXT // 32 + 2
ASKED = (
    "How do I reset my password?", "How do I request vacation?", "Where do I park?",
    "How do I enrol in the dental plan?", "What is the guest network called?",
    "Who do I ask about my payslip?", "How do I book a meeting room?", "When is the canteen open?",
)  # fmt: skip


@contextmanager
def run_engine(blocks: int) -> Iterator[BatchingEngine]:
    """Run an engine whose answers end at their length, or a transcript's stop strings."""
    weights = load_weights(DEMO)
    settings = Settings(threads=1, exact=True)
    model = OpenVinoModel(weights, settings, most_blocks=blocks, most_bytes=2**30)
    engine = BatchingEngine(model, Tokenizer(weights), Limits(CONTEXT, frozenset()))
    try:
        yield engine
    finally:
        engine.close()


def ask(engine: BatchingEngine, text: str, **options: object) -> BatchedAnswers:
    question = Question((Message("user", text),), Options(**options))  # type: ignore[arg-type] # as named
    return engine.start(question, deadline=time.monotonic() + 600)


def read(answers: BatchedAnswers) -> list[str]:
    pieces, finish = take_all(answers)
    assert "error" not in finish.reasons
    return [text_of([p for p in pieces if p.index == n]) for n in range(len(answers.answers))]


@pytest.fixture(scope="module")
def alone() -> Iterator[BatchingEngine]:
    """An engine in which nobody gives way."""
    with run_engine(200) as engine:
        yield engine


def test_giving_way(alone: BatchingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    With room for hardly more than one context, eight answers at once are those that come with room
    for all, though most give way.
    """
    gone: set[BatchedGeneration] = set()
    give_way = Schedule._give_way

    def note(schedule: Schedule, generation: BatchedGeneration) -> None:
        gone.add(generation)
        give_way(schedule, generation)

    monkeypatch.setattr(Schedule, "_give_way", note)
    options = {"temperature": 2, "seed": 4, "max_tokens": 120}
    with run_engine(FEW) as engine:
        under_way = [ask(engine, text, **options) for text in ASKED]
        crowded = [read(answers) for answers in under_way]
    assert len(gone) >= len(ASKED) / 4
    assert crowded == [read(ask(alone, text, **options)) for text in ASKED]


def test_sharing(alone: BatchingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Several answers to one question are the same, whether they share their prompt's blocks or not.
    """
    text = " ".join(ASKED)
    options = {"n": 5, "temperature": 0.9, "seed": 2, "max_tokens": 40}
    shared = read(ask(alone, text, **options))
    assert len(set(shared)) > 1
    monkeypatch.setattr(TokenSequence, "whole", 0)
    assert read(ask(alone, text, **options)) == shared


def test_guesses(alone: BatchingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An answer is the same with guesses and without, for questions whose text repeats itself.
    """
    guessed = 0
    guess = Schedule._guess

    def count(schedule: Schedule) -> list[Part]:
        nonlocal guessed
        step = guess(schedule)
        guessed += sum(len(part.guess) for part in step)
        return step

    monkeypatch.setattr(Schedule, "_guess", count)
    for text in ASKED:
        options = {"max_tokens": 60, "temperature": len(text) % 2, "seed": 3}
        plain = read(ask(alone, f"{text} {text} {text}", padding="off", **options))
        assert read(ask(alone, f"{text} {text} {text}", **options)) == plain
    assert guessed > 0
