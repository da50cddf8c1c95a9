"""
Blocks on demand: answers that give way go on as if they had not, and nobody waits for ever.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.enclave.engine.cache import BLOCK_TOKENS, CachedTokens, KvCache, PrefixName, blocks_for
from app.enclave.engine.completion import Completion
from app.enclave.engine.generation import BatchedAnswers, BatchedGeneration, TokenSequence
from app.enclave.engine.lookup import MOST_GUESSED
from app.enclave.engine.sampling import Sampler
from app.enclave.engine.schedule import PREFILL_TOKENS, Schedule
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.question import Options, Padding
from tests.hashed_model import FOREVER, HashedModel, alone, prompt_of, read, run_engine, start
from tests.patience import wait_until

CONTEXT = 256


@pytest.fixture
def gave_way(monkeypatch: pytest.MonkeyPatch) -> list[BatchedGeneration]:
    """Everyone who gives way, each time."""
    gone: list[BatchedGeneration] = []
    give_way = Schedule._give_way

    def note(schedule: Schedule, generation: BatchedGeneration) -> None:
        gone.append(generation)
        give_way(schedule, generation)

    monkeypatch.setattr(Schedule, "_give_way", note)
    return gone


@pytest.mark.parametrize("padding", ["constant", "off"])
@pytest.mark.parametrize("names", ["mine", "yours", ""], ids=["one", "several", "no conversation"])
def test_answers_are_unchanged(
    padding: Padding, names: str, gave_way: list[BatchedGeneration]
) -> None:
    """
    However often answers give way, each is token for token the one that is made alone: greedy or
    sampled, padded or not, whoever's they are. Afterwards nothing lies in any block but prefixes.
    """
    model = HashedModel(blocks_for(CONTEXT))
    asked = []
    for number in range(8):
        options = Options(
            presence_penalty=number % 3,
            repetition_penalty=1 + number % 2 / 5,
            temperature=number % 2,
            seed=number,
            padding=padding,
            max_tokens=2**20,
        )
        asked.append((prompt_of(number, 5 + 20 * number), options))
    with run_engine(model, CONTEXT) as engine:
        under_way = [
            start(engine, prompt, options, names and names + str(number) * (names == "yours"))
            for number, (prompt, options) in enumerate(asked)
        ]
        for (prompt, options), generation in zip(asked, under_way, strict=True):
            assert read(generation) == [alone(model, prompt, options, CONTEXT)]
        if not names:
            wait_until(lambda: not model.held)
    assert len(gave_way) > 1


def test_answers_share_the_blocks_of_their_prompt(gave_way: list[BatchedGeneration]) -> None:
    """
    The answers to one question are those that are made alone, though they hold the blocks that
    their prompt fills together; those are computed once, and wiped once, when the last has ended.
    """
    model = HashedModel(40)
    prompt, options = prompt_of(1, 100), Options(temperature=1, seed=5, n=6, max_tokens=30)
    with run_engine(model, CONTEXT) as engine:
        answers = read(start(engine, prompt, options))
        assert answers == [alone(model, prompt, options, CONTEXT, index) for index in range(6)]
        assert len({tuple(answer) for answer in answers}) == 6
        wait_until(lambda: not model.held)
    assert gave_way == []
    assert model.shown == 100 + 5 * (100 - 96) + 6 * 29
    assert len(model.wiped) == 3 + 6 * 2
    assert [model.wiped.count(block) for block in model.steps[0][0].blocks[:3]] == [1, 1, 1]


def test_the_next_turn_goes_on_from_the_first() -> None:
    """
    Of several answers the first is what the conversation's next turn finds computed.
    """
    model = HashedModel(40)
    prompt, options = prompt_of(1, 100), Options(temperature=1, seed=5, n=3, max_tokens=30)
    with run_engine(model, CONTEXT) as engine:
        first = read(start(engine, prompt, options, "mine"))[0]
        before = model.shown
        read(start(engine, [*prompt, *first, 1, 2], Options(max_tokens=1), "mine"))
        assert model.shown - before == len([first[-1], 1, 2])


@pytest.mark.parametrize("temperature", [0, 1])
def test_sharing_answers_give_way(temperature: int, gave_way: list[BatchedGeneration]) -> None:
    """
    Answers to one question give way, too, and share again when they go on: each is the one that is
    made alone, beside those to another question.
    """
    model = HashedModel(blocks_for(CONTEXT) + 2)
    options = Options(temperature=temperature, seed=5, n=5, max_tokens=120)
    prompts = [prompt_of(1, 70), prompt_of(2, 33)]
    with run_engine(model, CONTEXT) as engine:
        under_way = [start(engine, prompt, options, f"{prompt}") for prompt in prompts]
        for prompt, answers in zip(prompts, under_way, strict=True):
            assert read(answers) == [
                alone(model, prompt, options, CONTEXT, index) for index in range(5)
            ]
    assert len({generation.question for generation in gave_way}) == 2


class Walk:
    """
    A schedule, and what stands for its runner: what a part shows is seen, and a token made of it.

    Attributes:
        gave_way: Who gave way, each time.
    """

    def __init__(self, blocks: int) -> None:
        self.cache = KvCache(blocks)
        self.schedule = Schedule(self.cache)
        self.gave_way: list[BatchedGeneration] = []
        self.steps = 0

    def join(self, name: bytes, prompt: int, most: int, n: int = 1) -> list[BatchedGeneration]:
        sequences = [self.make(name, prompt, most) for _ in range(n)]
        answers = BatchedAnswers(self.schedule, sequences, deadline=FOREVER)
        return list(self.schedule.join(n, lambda: answers).answers)

    def make(self, name: bytes, prompt: int, most: int) -> TokenSequence:
        random = np.random.default_rng(1)
        return TokenSequence(
            prompt=[1] * prompt,
            options=Options(),
            most_tokens=most,
            prefix=PrefixName(name, FOREVER) if name else None,
            sampler=Sampler(Options(), prompt=[], random=random, spell=lambda _: b""),
            completion=Completion(lambda _: "", stops=(), strip_start=False),
        )

    def step(self) -> list[BatchedGeneration]:
        """Take a step, and give who was in it."""
        before = list(self.schedule._active)
        step = self.schedule.next_step()
        self.gave_way += [g for g in before if g in self.schedule._waiting]
        self.require_own_blocks()
        for generation, tokens, _ in step:
            sequence = generation.sequence
            assert sequence.cached is not None
            assert sequence.ahead
            self.see(sequence, tokens)
            if sequence.completion.tokens == sequence.most_tokens:
                generation.end("length")
                self.schedule.leave(generation)
        self.steps += 1
        return [part.generation for part in step]

    def see(self, sequence: TokenSequence, tokens: int) -> None:
        cached = sequence.cached
        assert cached is not None
        assert len(cached.tokens) + tokens <= len(cached.blocks) * BLOCK_TOKENS
        cached.tokens += sequence.ahead[:tokens]
        del sequence.ahead[:tokens]
        if not sequence.ahead:
            sequence.ahead = [1]
            sequence.completion.push(1)

    def require_own_blocks(self) -> None:
        """Require that no block is two answers', and that all hold little more than they use."""
        lent = [g.sequence for g in self.schedule._active if g.sequence.cached is not None]
        filled, open_ = [], []
        for sequence in lent:
            cached = sequence.cached or CachedTokens()
            full = len(cached.tokens) // BLOCK_TOKENS
            filled += cached.blocks[:full]
            open_ += cached.blocks[full:]
        assert len(open_) == len(set(open_))
        assert not set(open_) & set(filled)
        assert all(sequence.cached is None for sequence in waiting(self.schedule))
        for sequence in lent:
            most = blocks_for(sequence.length + MOST_GUESSED)
            assert sequence.cached is not None
            assert len(sequence.cached.blocks) <= most


def waiting(schedule: Schedule) -> list[TokenSequence]:
    return [generation.sequence for generation in schedule._waiting]


def test_who_gives_way() -> None:
    """
    The last in turn gives way: of the conversation with the most answers, not who came last. It has
    begun, so it has no place among those that wait, and goes on before they begin.
    """
    walk = Walk(10)
    [first] = walk.join(b"many", 30, 100)
    [second] = walk.join(b"many", 30, 100)
    [other] = walk.join(b"other", 30, 100)
    while not walk.gave_way:
        walk.step()
    assert walk.gave_way == [second]
    [late] = walk.join(b"many", 30, 100)
    assert (second.place, late.place) == (0, 1)
    while not first.ended:
        assert {first, other} <= set(walk.step())
    assert late.place == 1
    while not late.sequence.begun:
        walk.step()
    assert second.sequence.completion.tokens > 0


def test_no_answer_begins_at_the_cost_of_others() -> None:
    """
    Who waits begins only when all could then grow by a block: nobody gives way for the next steps.
    """
    walk = Walk(10)
    for number in range(5):
        walk.join(b"%d" % number, 40, 200)
    begun: list[int] = []
    while walk.schedule._active or walk.schedule._waiting:
        before = len(walk.schedule._active)
        walk.step()
        if len(walk.schedule._active) > before:
            begun.append(walk.steps)
        if walk.gave_way:
            assert walk.steps - begun[-1] > BLOCK_TOKENS // 2
            walk.gave_way.clear()


def test_what_is_left_of_an_answer_that_gave_way() -> None:
    """
    An answer that gave way computes only those of its tokens anew whose blocks others needed.
    """
    walk = Walk(8)
    walk.join(b"first", 90, 100)
    [second] = walk.join(b"second", 90, 40)
    while not walk.gave_way:
        walk.step()
    walk.schedule.leave(walk.schedule._active[0])
    walk.step()
    assert second.sequence.cached is not None
    assert len(second.sequence.cached.tokens) > 90


Asked = st.tuples(
    st.sampled_from([b"", b"a", b"b"]), st.integers(1, 150), st.integers(1, 90), st.integers(1, 3)
)


@given(st.lists(Asked, min_size=1, max_size=12), st.integers(0, 30), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_nobody_waits_for_ever(
    questions: list[tuple[bytes, int, int, int]], more_blocks: int, every: int
) -> None:
    """
    Of those that have begun the first to do so is in every step, or another answer to its question
    that computes their prompt; whatever the room, and whoever comes later. So all come to an end,
    after no more steps than each needs by itself.
    """
    walk = Walk(blocks_for(240) + more_blocks)
    to_come, come = list(questions), []
    while to_come or walk.schedule._active or walk.schedule._waiting:
        nobody = not (walk.schedule._active or walk.schedule._waiting)
        if to_come and (nobody or walk.steps % every == 0):
            come += walk.join(*to_come.pop(0))
        begun = [g for g in come if g.sequence.begun and not g.ended]
        oldest = min(begun, key=lambda g: g.sequence.begun, default=None)
        taken = walk.step()
        assert walk.steps < 20000, (questions, more_blocks, every)
        assert oldest is None or oldest.question in {g.question for g in taken}
    least = PREFILL_TOKENS // MAX_ACTIVE_ANSWERS
    needed = sum(
        n * (math.ceil((prompt + most) / least) + most) for _, prompt, most, n in questions
    )
    assert walk.steps <= needed + every * len(questions)
    assert all(g.ended for g in come)
    walk.schedule._free()
    assert walk.cache.available == walk.cache.blocks
    walk.cache.expire(FOREVER)
    assert not +walk.cache._holders
    assert len(walk.cache._free) == walk.cache.blocks
