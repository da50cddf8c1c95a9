"""
The schedule: which answers are under way, which wait, and what the model sees next.

Answers join and leave between steps. A prompt is shown to the model in pieces beside the tokens of
the others, so that a long one stalls nobody. Who waits is taken in turn by conversation, when the
cache of keys and values has room for prompt and answer.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from app.enclave.engine.cache import KvCache, blocks_for
from app.enclave.engine.generation import BatchedAnswers, BatchedGeneration
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import BusyError

PREFILL_TOKENS: Final = 256  # of prompts in one step, all together


class Part(NamedTuple):
    """One answer's part of a step: how many of its next tokens the model sees."""

    generation: BatchedGeneration
    tokens: int


class Schedule:
    """
    All answers of an engine that have not ended.

    Any thread may call it, but for `next_step` and `take_left`, which are the runner's: what they
    touch of *cache* is its alone.
    """

    def __init__(self, cache: KvCache) -> None:
        self._cache = cache
        self._changed = threading.Condition()
        self._preparing = 0
        self._active: list[BatchedGeneration] = []
        self._waiting: list[BatchedGeneration] = []
        self._left: list[BatchedGeneration] = []  # their blocks are the runner's to free
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
        """Give the place of *generation* among those that wait; 0 when it does not."""
        with self._changed:
            waits = generation in self._waiting
            return self._waiting.index(generation) + 1 if waits else 0

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

    def take_left(self) -> list[BatchedGeneration]:
        """Give those that have left since it was last asked."""
        with self._changed:
            left, self._left = self._left, []
        return left

    def next_step(self) -> list[Part]:
        """
        Wait for work, end what is past its deadline, let in who may come, and plan a step.

        Gives nothing when a kept prefix is over, or somebody has left, before there is work.
        """
        with self._changed:
            end = self._cache.next_end
            self._changed.wait_for(
                lambda: self.closed or self._active or self._waiting or self._left,
                None if end is None else max(0, end - time.monotonic()),
            )
            self._end_late()
            self._admit()
            return plan(self._active)

    def _order(self) -> None:
        """Put those that wait in turn: first of the conversation with the fewest before it."""
        before = Counter(g.sequence.conversation for g in self._active)
        left, self._waiting = self._waiting, []
        while left:
            generation = min(left, key=lambda g: before[g.sequence.conversation])
            left.remove(generation)
            before[generation.sequence.conversation] += 1
            self._waiting.append(generation)

    def _end_late(self) -> None:
        now = time.monotonic()
        for generation in [g for g in self._active + self._waiting if now > g.deadline]:
            generation.end("error")
            self.leave(generation)

    def _admit(self) -> None:
        """Let in who waits, in turn, while slots and blocks last."""
        while self._waiting and len(self._active) < MAX_ACTIVE_ANSWERS:
            generation = self._waiting[0]
            sequence = generation.sequence
            tokens = len(sequence.prompt) + sequence.most_tokens
            if blocks_for(tokens) > self._cache.available:
                return  # whoever comes later does not pass: it could wait for ever
            sequence.cached = self._cache.lend(sequence.prompt, tokens, sequence.prefix)
            sequence.ahead = sequence.prompt[len(sequence.cached.tokens) :]
            self._active.append(self._waiting.pop(0))


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
