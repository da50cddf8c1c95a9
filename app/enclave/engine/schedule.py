"""
The schedule: which answers are under way, which wait, and what the model sees next.

Answers join and leave between steps. A prompt is shown to the model in pieces beside the tokens of
the others, so that a long one stalls nobody. Who waits is taken in turn by conversation.

An answer holds the blocks of keys and values that it uses, and gets more as it grows. It begins
when there are blocks for its prompt, and for every answer to grow a little. Where they run out
nevertheless, the last in turn gives way: it waits, and goes on later from the same tokens. The
first in turn never does, so somebody always comes to an end, and who waits comes to be the first.
"""

import itertools
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from app.enclave.engine.cache import BLOCK_TOKENS, KvCache, blocks_for
from app.enclave.engine.generation import BatchedAnswers, BatchedGeneration, TokenSequence
from app.enclave.engine.lookup import Lookup
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import BusyError

PREFILL_TOKENS: Final = 256  # of prompts in one step, all together


class Part(NamedTuple):
    """
    One answer's part of a step.

    Attributes:
        tokens: How many of its next tokens the model sees.

        guess: What it is shown behind them, which may come.
    """

    generation: BatchedGeneration
    tokens: int
    guess: Sequence[int] = ()

    @property
    def shown(self) -> int:
        """How many tokens the model sees of it in all."""
        return self.tokens + len(self.guess)


class Schedule:
    """
    All answers of an engine that have not ended.

    Any thread may call it, but for `next_step`, which is the runner's: what it touches of *cache*
    is that thread's alone.
    """

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._changed = threading.Condition()
        self._preparing = 0
        self._active: list[BatchedGeneration] = []  # as they have begun
        self._waiting: list[BatchedGeneration] = []  # in turn; some have begun, and given way
        self._left: list[BatchedGeneration] = []  # whose blocks are not free yet
        self._begun = itertools.count(1)
        self.closed = False

    def join(self, count: int, prepare: Callable[[], BatchedAnswers]) -> BatchedAnswers:
        """
        Keep *count* places, and let the answers that *prepare* gives, as many, wait in them.

        Raises:
            BusyError: With them, more than may would be under way, wait or be prepared; or it is
                closed.
        """
        with self._changed:
            taken = len(self._active) + len(self._waiting) + self._preparing
            if self.closed or taken + count > MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS:
                raise BusyError(f"{taken} answers are under way or wait")
            self._preparing += count
        prepared = None
        try:
            prepared = prepare()
        finally:
            self._end_preparing(count, prepared)
        return prepared

    def _end_preparing(self, count: int, prepared: BatchedAnswers | None) -> None:
        with self._changed:
            self._preparing -= count
            if prepared is None:
                return
            if self.closed:
                raise BusyError("the engine is closed")
            self._waiting += prepared.answers
            self._order()
            self._changed.notify_all()

    def place(self, generation: BatchedGeneration) -> int:
        """Give the place of *generation* among those that have yet to begin; 0 if it has."""
        with self._changed:
            to_begin = [other for other in self._waiting if not other.sequence.begun]
            return to_begin.index(generation) + 1 if generation in to_begin else 0

    def leave(self, generation: BatchedGeneration) -> None:
        """Give the slot of *generation*, which has ended, to the next that waits."""
        with self._changed:
            if generation in self._waiting:
                self._waiting.remove(generation)
            if generation in self._active:
                self._active.remove(generation)
                self._left.append(generation)
            self._order()
            self._changed.notify_all()

    def close(self) -> None:
        """End all, and let nobody in any more."""
        with self._changed:
            self.closed = True
            ended = self._active + self._waiting
            self._changed.notify_all()
        for generation in ended:
            generation.cancel()

    def late(self) -> list[BatchedGeneration]:
        """Give those that are past their deadline and have to leave."""
        now = time.monotonic()
        with self._changed:
            return [g for g in self._active + self._waiting if now > g.deadline]

    def next_step(self) -> list[Part]:
        """
        Wait for work, free what nobody holds any more, let in who may come, and plan a step.

        Gives nothing when a kept prefix is over, or somebody has left, before there is work.
        """
        with self._changed:
            end = self._cache.next_end
            self._changed.wait_for(
                lambda: self.closed or self._active or self._waiting or self._left,
                None if end is None else max(0, end - time.monotonic()),
            )
            self._free()
            self._admit()
            self._lend()
            ready = [g for g in self._active if g.sequence.cached is not None]
            return self._make_room(self._guess() or plan(ready))

    def _order(self) -> None:
        """Put those that wait in turn, of equals first who has begun first."""
        self._waiting.sort(key=lambda g: g.sequence.begun or math.inf)
        self._waiting = in_turn(self._waiting, self._active)

    def _free(self) -> None:
        """Take back the blocks of who has left, and of conversations that are over."""
        left, self._left = self._left, []
        for generation in left:
            self._take_back(generation.sequence)
        self._cache.expire(time.monotonic())

    def _take_back(self, sequence: TokenSequence) -> None:
        """Take back the blocks of *sequence*, which has all of its tokens ahead of it again."""
        if sequence.cached is not None:
            sequence.ahead = sequence.tokens
            self._cache.give_back(sequence.cached, sequence.prefix if sequence.keeps else None)
            sequence.cached = None

    def _admit(self) -> None:
        """Let in who waits, in turn; whoever comes later does not pass: it could wait for ever."""
        while self._waiting and self._has_place(generation := self._waiting[0]):
            sequence = generation.sequence
            sequence.begun = sequence.begun or next(self._begun)
            self._waiting.remove(generation)
            self._active.append(generation)
            self._active.sort(key=lambda g: g.sequence.begun)

    def _has_place(self, generation: BatchedGeneration) -> bool:
        """
        Tell whether there is a slot for *generation*, and blocks for all to grow a little with it.

        If it has begun, those that come after it in turn give way to it.
        """
        while len(self._active) >= MAX_ACTIVE_ANSWERS or not self._cache.has(
            _lacking([*self._active, generation])
        ):
            begun = sorted([*self._active, generation], key=lambda g: g.sequence.begun)
            if not generation.sequence.begun or (last := in_turn(begun)[-1]) is generation:
                return False
            self._give_way(last)
        return True

    def _lend(self) -> None:
        """
        Give whoever has none the blocks that hold tokens of theirs.

        What answers to one question can share the first computes, while the others wait for it.
        """
        for generation in self._active:
            sequence = generation.sequence
            if sequence.cached is not None:
                continue
            others = (g.sequence.cached for g in self._active if g.question is generation.question)
            shared = [other for other in others if other is not None] if sequence.whole else []
            full = [other for other in shared if len(other.tokens) >= sequence.whole * BLOCK_TOKENS]
            if shared and not full:
                continue
            sequence.cached = (
                self._cache.share(full[0], sequence.prompt)
                if full
                else self._cache.lend(sequence.ahead, sequence.prefix)
            )
            del sequence.ahead[: len(sequence.cached.tokens)]

    def _guess(self) -> list[Part]:
        """
        Plan a step with a guess in it, if one answer is alone and padded, and there is a guess.

        The time of its steps would tell others how much it copies, and without padding the network.
        """
        if len(self._active) != 1 or self._waiting or self._preparing:
            return []
        sequence = self._active[0].sequence
        if len(sequence.ahead) != 1 or not sequence.guessable:
            return []
        if sequence.lookup is None:
            sequence.lookup = Lookup()
        sequence.lookup.extend(sequence.tokens[len(sequence.lookup) :])
        guess = sequence.lookup.guess(sequence.most_tokens - sequence.completion.tokens - 1)
        return [Part(self._active[0], 1, guess)]

    def _make_room(self, step: list[Part]) -> list[Part]:
        """Give those of *step* the blocks it needs, in turn; the last in turn give way to them."""
        parts = {part.generation: part for part in step}
        order = in_turn(self._active)
        kept = []
        while order:
            part = parts.get(generation := order.pop(0))
            if part is None:
                continue
            while order and not self._cache.has(_missing(part)):
                self._give_way(order.pop())
            if not self._cache.has(_missing(part)):
                self._give_way(generation)
                break
            sequence = generation.sequence
            assert sequence.cached is not None  # noqa: S101 - it has a part
            self._cache.grow(sequence.cached, len(sequence.cached.tokens) + part.shown)
            kept.append(part)
        return kept

    def _give_way(self, generation: BatchedGeneration) -> None:
        """Have *generation*, which is under way, wait until there are blocks for it again."""
        self._take_back(generation.sequence)
        self._active.remove(generation)
        self._waiting.append(generation)
        self._order()


def in_turn(
    generations: Iterable[BatchedGeneration], before: Iterable[BatchedGeneration] = ()
) -> list[BatchedGeneration]:
    """Put *generations* in turn: first of the conversation with the fewest before it."""
    counts = Counter(g.sequence.conversation for g in before)
    left, ordered = list(generations), []
    while left:
        first = min(left, key=lambda g: counts[g.sequence.conversation])
        left.remove(first)
        counts[first.sequence.conversation] += 1
        ordered.append(first)
    return ordered


def _lacking(generations: Iterable[BatchedGeneration]) -> int:
    """Give how many blocks *generations* lack to see their tokens and make a block's more each."""
    lacking = 0
    questions = set()
    for generation in sorted(generations, key=lambda g: g.sequence.cached is None):
        sequence = generation.sequence
        has = sequence.whole if generation.question in questions else 0
        if sequence.cached is not None:
            has = len(sequence.cached.blocks)
        most = len(sequence.prompt) + sequence.most_tokens
        lacking += max(0, blocks_for(min(sequence.length + BLOCK_TOKENS, most)) - has)
        questions.add(generation.question)
    return lacking


def _missing(part: Part) -> int:
    """Give how many blocks *part* needs that its answer does not have."""
    cached = part.generation.sequence.cached
    assert cached is not None  # noqa: S101 - it has a part
    return blocks_for(len(cached.tokens) + part.shown) - len(cached.blocks)


def plan(active: Sequence[BatchedGeneration]) -> list[Part]:
    """Give every answer its next token, and the prompts even shares of a step's room."""
    step = [Part(g, 1) for g in active if len(g.sequence.ahead) == 1]
    prompts = [g for g in active if len(g.sequence.ahead) > 1]
    room = PREFILL_TOKENS
    # The shortest first: what one leaves of its share is the others'.
    for left, generation in zip(
        range(len(prompts), 0, -1),
        sorted(prompts, key=lambda g: len(g.sequence.ahead)),
        strict=True,
    ):
        tokens = min(len(generation.sequence.ahead), room // left)
        room -= tokens
        step.append(Part(generation, tokens))
    return step
