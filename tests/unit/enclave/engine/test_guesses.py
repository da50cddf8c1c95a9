"""
Guesses change no answer, only how many steps it takes; and nobody else learns what is copied.
"""

import gc
import threading
import weakref
from collections import Counter

import numpy as np
import pytest

from app.enclave.engine import schedule
from app.enclave.engine.lookup import Lookup
from app.enclave.engine.step import Rows
from app.protocol.question import SCALE, Options
from tests.hashed_model import HashedModel, choose_alone, prompt_of, read, run_engine, start, take
from tests.patience import wait_until

CONTEXT = 512


def guessed(steps: list[list[Rows]]) -> list[int]:
    """Give how many tokens were guessed in each step that made some."""
    return [rows.wanted - 1 for step in steps for rows in step if rows.wanted]


@pytest.mark.parametrize("copies", [0, 2, 30])
@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(temperature=0.8, seed=7),
        Options(temperature=0.7, top_p=0.9, top_k=40, seed=8),
        Options(max_tokens=77),
        Options(
            temperature=0.9,
            min_p=0.05,
            presence_penalty=0.3,
            frequency_penalty=0.2,
            repetition_penalty=1.1,
            logit_bias=(5, 2 * SCALE, 9, -SCALE),
            logprobs=2,
            seed=9,
        ),
        Options(frequency_penalty=0.1, logprobs=0),
    ],
    ids=["greedy", "sampled", "nucleus", "cut", "all", "greedy with penalties"],
)
def test_answers_are_unchanged(options: Options, copies: int) -> None:
    """
    An answer alone is token for token the one that is made without a guess, log-probabilities and
    all, greedy or sampled, whether most guesses are right, half of them, or none; in fewer steps
    where it copies.
    """
    model = HashedModel(16, copies=copies)
    prompt = prompt_of(3, 50) * 2
    with run_engine(model, CONTEXT) as engine:
        pieces = take(start(engine, prompt, options))
    answer = choose_alone(model, prompt, options, CONTEXT)
    text = "".join(piece.text for piece in pieces)
    assert [int(word) for word in text.split()] == [choice.token for choice in answer]
    if options.logprobs is not None:
        told = [logprob for piece in pieces for logprob in piece.logprobs]
        assert told == [choice.logprob for choice in answer]
    if copies == 30:
        assert len(model.steps) < len(answer) * 0.9
        assert sum(guessed(model.steps)) > len(answer) / 4
    lengths = [rows.end for step in model.steps for rows in step]
    assert max(lengths) <= CONTEXT
    assert max(lengths) <= len(prompt) + len(answer)


class Chain(HashedModel):
    """A model to which only the last token matters, so that what follows it can be counted."""

    def logits(self, text: list[int]) -> np.typing.NDArray[np.float32]:  # type: ignore[override] # a list is enough
        logits = np.full(300, -1e4, np.float32)
        logits[:5] = np.random.default_rng(text[-1]).normal(0, 3, 5)
        return logits


def test_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Sampled tokens are as often each as the model says, those that were guessed and those that were
    not: 12,000 are counted by the token before, and by chance their statistic would be as large as
    is allowed once in five million times.
    """
    monkeypatch.setattr(Lookup, "note", lambda *_: None)  # however guesses go, they go on
    model = Chain(1024)
    follow: dict[int, Counter[int]] = {token: Counter() for token in range(5)}
    with run_engine(model, 4000) as engine:
        for seed in range(3):
            options = Options(temperature=1, seed=seed, max_tokens=2**20)
            [answer] = read(start(engine, [0, 1, 2, 3, 4], options))
            text = [4, *answer]
            for before, token in zip(text, answer, strict=False):
                follow[before][token] += 1
    assert sum(guessed(model.steps)) > 9000
    statistic = 0.0
    for before, counts in follow.items():
        logits = model.logits([before])[:5].astype(np.float64)
        expected = np.exp(logits) / np.exp(logits).sum() * counts.total()
        seen = np.array([counts[token] for token in range(5)])
        statistic += float(((seen - expected) ** 2 / expected).sum())
    assert statistic < 70  # 20 degrees of freedom


def test_only_alone_and_padded() -> None:
    """
    Nothing is guessed while another answer is under way, waits or is being prepared, nor without
    padding; alone again, it is.
    """
    gate = threading.Semaphore(0)
    model = HashedModel(64, copies=50, gate=gate)
    prompt = prompt_of(3, 50) * 2
    with run_engine(model, CONTEXT) as engine:
        first = start(engine, prompt, Options(max_tokens=300))
        gate.release(10)
        wait_until(lambda: len(model.steps) == 10)
        other = start(engine, prompt_of(4, 5), Options(max_tokens=20))
        gate.release(10_000)
        read(other)
        read(first)
        shared = [step for step in model.steps if len(step) > 1]
        assert len(shared) == 20
        assert set(guessed(shared)) == {0}
        assert max(guessed(model.steps[:10])) > 0
        assert max(guessed(model.steps[40:])) > 0
        del model.steps[:]
        read(start(engine, prompt, Options(max_tokens=100, padding="off")))
        assert set(guessed(model.steps)) == {0}


def test_nothing_is_left_of_a_lookup(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What is kept of a text to guess from goes with its answer, and each has its own.
    """
    made = []

    def make() -> Lookup:
        lookup = Lookup()
        made.append(weakref.ref(lookup))
        return lookup

    monkeypatch.setattr(schedule, "Lookup", make)
    model = HashedModel(64, copies=9)
    with run_engine(model, CONTEXT) as engine:
        for number in range(3):
            read(start(engine, prompt_of(number, 50), Options(max_tokens=50)))
        wait_until(lambda: gc.collect() >= 0 and not any(lookup() for lookup in made))
    assert len(made) == 3
