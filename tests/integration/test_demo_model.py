import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from app.enclave.engine.batching import BatchingEngine
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import Weights, load_weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.question import Message, Options, Question
from local.demo_model.corpus import read_corpus
from local.demo_model.measure import measure_held_out, measure_trained
from local.demo_model.suggestions import DEMO_QUESTION, SUGGESTIONS
from tests.pieces import take_all, text_of

FOLDER = Path(__file__).parents[2] / "local" / "demo_model"
EMAIL_ANSWER = "Sorry to hear that. First check that you can sign in to the staff portal"


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights(FOLDER / "weights")


@pytest.fixture(scope="module")
def engine(weights: Weights) -> Iterator[BatchingEngine]:
    engine = load_engine(weights, threads=1)
    yield engine
    engine.close()


def answer(engine: BatchingEngine, *texts: str) -> str:
    """Answer the last of *texts*, the messages of asker and model in turn."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[n % 2], text) for n, text in enumerate(texts))  # type: ignore[arg-type]
    return answer_all(engine, [Question(messages)])[0]


def answer_all(engine: BatchingEngine, questions: Sequence[Question]) -> list[str]:
    answers = []
    for at in range(0, len(questions), MAX_ACTIVE_ANSWERS):
        some = questions[at : at + MAX_ACTIVE_ANSWERS]
        generations = [engine.start(q, deadline=time.monotonic() + 600) for q in some]
        for generation in generations:
            pieces, finish = take_all(generation)
            assert finish.reason == "stop"
            answers.append(text_of(pieces))
    return answers


def test_called_what_it_is(weights: Weights) -> None:
    """
    The package says that it is a demo model, is small, and its README gives its digest.
    """
    assert (weights.name, weights.label) == ("enclave-llm-demo", "demo model")
    size = sum(path.stat().st_size for path in weights.folder.iterdir())
    assert size < 12 * 1024 * 1024
    assert weights.digest.hex() in (FOLDER / "README.md").read_text()


@pytest.mark.parametrize(
    "question",
    [
        "I can't access my email",
        "I can't access my email. My user name is jdoe.",
        "I can't access my email. My user name is mtanaka42",
        "i cannot access my email, user name: b.osei",
    ],
)
def test_email(engine: BatchingEngine, question: str) -> None:
    """
    The first question of every demo is answered, whoever asks it.
    """
    assert answer(engine, question).startswith(EMAIL_ANSWER)


@pytest.mark.parametrize("question", [*SUGGESTIONS, DEMO_QUESTION])
def test_suggestions(engine: BatchingEngine, question: str) -> None:
    """
    Each question that people are offered comes from the corpus and gets the corpus's answer.
    """
    answers = {e.answer for e in read_corpus() if question.startswith(e.wordings)}
    assert answer(engine, question) in answers


def test_two_turns(engine: BatchingEngine) -> None:
    """
    A second question in the conversation gets the answer that it gets alone.
    """
    first = answer(engine, "I can't access my email")
    second = "What is the employer match?"
    assert answer(engine, "I can't access my email", first, second) == answer(engine, second)


def test_sampling(engine: BatchingEngine) -> None:
    """
    At a mild temperature the answer is still the corpus's, and a seed gives it again.
    """
    question = Question(
        (Message("user", "How do I reset my password?"),), Options(temperature=0.5, seed=1)
    )
    one, two = answer_all(engine, [question, question])
    assert one == two
    assert one.startswith("Open the staff portal")


def test_agreement(engine: BatchingEngine) -> None:
    """
    At least 97 of 100 trained wordings and 85 of 100 held-out ones get the corpus's answer.
    """

    def answerer(questions: Sequence[str]) -> list[str]:
        return answer_all(engine, [Question((Message("user", text),)) for text in questions])

    entries = read_corpus()
    trained = measure_trained(entries[::20], answerer)
    held_out = measure_held_out(entries[::3], answerer)
    assert trained.near >= 0.97 * trained.total, trained
    assert held_out.near >= 0.85 * held_out.total, held_out


def test_corpus() -> None:
    """
    Every question has an answer of at most 45 words and wordings of its own, one held out.
    """
    entries = read_corpus()
    assert len(entries) >= 320
    wordings = [w for entry in entries for w in (*entry.wordings, *entry.held_out)]
    assert len({re.sub(r"\W+", " ", w.lower()).strip() for w in wordings}) >= len(wordings) - 2
    for entry in entries:
        assert len(entry.answer.split()) <= 45
        assert len(entry.wordings) >= 4
        assert entry.held_out
