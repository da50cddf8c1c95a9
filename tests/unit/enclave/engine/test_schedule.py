import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.cache import KvCache, PrefixName
from app.enclave.engine.completion import Completion
from app.enclave.engine.generation import BatchedAnswers, TokenSequence
from app.enclave.engine.sampling import Sampler
from app.enclave.engine.schedule import PREFILL_TOKENS, Schedule, plan
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import BusyError, TooLongError
from app.protocol.question import Options

FOREVER = time.monotonic() + 3600
PLACES = MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS


def make(schedule: Schedule, name: bytes = b"", ahead: int = 1) -> BatchedAnswers:
    sequence = TokenSequence(
        prompt=[1] * ahead,
        options=Options(),
        most_tokens=1,
        prefix=PrefixName(name, FOREVER) if name else None,
        sampler=Sampler(Options(), prompt=[], random=np.random.default_rng(1), spell=lambda _: b""),
        completion=Completion(lambda _: "", stops=(), strip_start=False),
    )
    sequence.ahead = list(sequence.prompt)
    return BatchedAnswers(schedule, [sequence], deadline=FOREVER)


@pytest.fixture
def schedule() -> Schedule:
    return Schedule(KvCache(PLACES))


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=MAX_ACTIVE_ANSWERS))
def test_plan(lengths: list[int]) -> None:
    """
    A step has one token of each answer, and of prompts what fits, each its even share at least.
    """
    generations = [make(Schedule(KvCache(1)), ahead=length).answers[0] for length in lengths]
    step = plan(generations)
    assert {part.generation for part in step} == set(generations)
    prompts = [part for part in step if len(part.generation.sequence.ahead) > 1]
    assert all(part.tokens == 1 for part in step if part not in prompts)
    shown = sum(part.tokens for part in prompts)
    assert shown <= PREFILL_TOKENS
    assert shown == min(PREFILL_TOKENS, sum(length for length in lengths if length > 1))
    for part in prompts:
        length = len(part.generation.sequence.ahead)
        assert part.tokens >= min(length, PREFILL_TOKENS // len(prompts))


def test_preparing_takes_a_place(schedule: Schedule) -> None:
    """
    Who is still being prepared counts among those that wait, and one more is refused.
    """
    gate = threading.Event()

    def prepare() -> BatchedAnswers:
        gate.wait()
        return make(schedule)

    threads = [threading.Thread(target=schedule.join, args=(1, prepare)) for _ in range(PLACES)]
    for thread in threads:
        thread.start()
    while schedule._preparing < PLACES:
        time.sleep(0.001)
    with pytest.raises(BusyError):
        schedule.join(1, lambda: make(schedule))
    gate.set()
    for thread in threads:
        thread.join()
    with pytest.raises(BusyError):
        schedule.join(1, lambda: make(schedule))
    assert len(schedule.next_step()) == MAX_ACTIVE_ANSWERS


def test_what_is_refused_leaves_its_place(schedule: Schedule) -> None:
    """
    A question that cannot be prepared takes no place for longer than that took.
    """

    def refuse() -> BatchedAnswers:
        raise TooLongError

    for _ in range(PLACES + 1):
        with pytest.raises(TooLongError):
            schedule.join(1, refuse)
    assert schedule.join(1, lambda: make(schedule)).place == 1


def test_closed_while_preparing(schedule: Schedule) -> None:
    """
    Who is prepared when the schedule closes does not come in.
    """

    def prepare() -> BatchedAnswers:
        schedule.close()
        return make(schedule)

    with pytest.raises(BusyError):
        schedule.join(1, prepare)
    with pytest.raises(BusyError):
        schedule.join(1, lambda: make(schedule))


def test_places(schedule: Schedule) -> None:
    """
    Places are told in turn by conversation, and close up when one leaves.
    """
    first, second, other = (
        schedule.join(1, lambda name=name: make(schedule, name))  # type: ignore[misc]
        for name in (b"one", b"one", b"other")
    )
    assert (first.place, other.place, second.place) == (1, 2, 3)
    other.cancel()
    assert (first.place, other.place, second.place) == (1, 0, 2)
