"""
The runner: one thread that shows the model step after step, and adds to each answer.
"""

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice, zip_longest
from pathlib import Path
from typing import Final

from app.enclave.engine.cache import KvCache
from app.enclave.engine.constraint import Constraints, wait_for
from app.enclave.engine.generation import BatchedGeneration
from app.enclave.engine.model import Model
from app.enclave.engine.sampling import Choice, Logits
from app.enclave.engine.schedule import Part, Schedule
from app.enclave.engine.step import Rows

CLOSE_SECONDS: Final = 30.0  # one step takes far less
STEP_SECONDS: Final = 60.0  # a step that takes longer hangs, and only a new process can answer
_GRACE_SECONDS: Final = 0.002  # that others may wait for a mask
_IDLE_SECONDS: Final = 0.01  # where nobody else is there
_TASKS: Final = Path("/proc/self/task")  # the kernel's list of this process's threads
_GONE_SECONDS: Final = 0.001  # between two looks at it

logger = logging.getLogger(__name__)


class Runner:
    """
    The thread of an engine; it alone uses *model* and *cache*, and ends when *schedule* is closed.

    Args:
        end_ids: Tokens that end an answer.

        constraints: For answers that have to be of a grammar; there are none without.
    """

    def __init__(
        self,
        model: Model,
        cache: KvCache,
        schedule: Schedule,
        *,
        end_ids: frozenset[int],
        constraints: Constraints | None = None,
    ) -> None:
        self._constraints = constraints
        self._holding: list[BatchedGeneration] = []  # whose next token has yet to be chosen
        self._model = model
        self._cache = cache
        self._schedule = schedule
        self._end_ids = end_ids
        self._step_began: float | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Tell whether the thread runs, and no step hangs."""
        began = self._step_began
        hangs = began is not None and time.monotonic() - began > STEP_SECONDS
        return self._thread.is_alive() and not hangs

    def wait_until_gone(self) -> None:
        """
        Wait until the thread is gone.

        Joining is not enough: it returns before what libraries have left in the thread has
        run, which may use the model. Afterwards the model can be let go of.
        """
        end = time.monotonic() + CLOSE_SECONDS
        self._thread.join(CLOSE_SECONDS)
        while (_TASKS / str(self._thread.native_id)).exists() and time.monotonic() < end:
            time.sleep(_GONE_SECONDS)

    def _run(self) -> None:
        """Step after step, until the schedule is closed."""
        try:
            while not self._schedule.closed:
                self._end_late()
                step = self._schedule.next_step()
                self._take_step(step)
                self._choose_held(_GRACE_SECONDS if step else _IDLE_SECONDS)
        finally:
            self._schedule.close()  # whatever ended this thread, nobody waits for it

    def _wipe(self) -> None:
        """Wipe blocks that nobody holds any more, before others may be lent them."""
        if self._cache.freed:
            self._model.wipe(self._cache.freed)
            self._cache.freed.clear()

    def _end_late(self) -> None:
        """End what is past its deadline where it is; in error if it has made nothing."""
        for generation in self._schedule.late():
            with _contained([generation]):
                if generation.sequence.completion.tokens:
                    _cut(generation)
            generation.end("error")
            self._schedule.leave(generation)

    def _take_step(self, step: list[Part]) -> None:
        """Let the model see its tokens, and add to each answer whose prompt it has seen."""
        self._wipe()
        if not step:
            return
        everyone = [part.generation for part in step]
        self._step_began = time.monotonic()
        with _contained(everyone):
            batch = [_rows(part) for part in step]
            for rows in batch:
                self._cache.note_written(rows.written_blocks)
            logits = iter(self._model.forward(batch))
            for part, rows in zip(step, batch, strict=True):
                with _contained([part.generation]):
                    self._advance(part, list(islice(logits, rows.wanted)))
        self._step_began = None
        for generation in everyone:
            if generation.ended:
                self._schedule.leave(generation)

    def _advance(self, part: Part, logits: Sequence[Logits]) -> None:
        """
        Note that the model has seen the tokens of *part*, and choose those that come next.

        At each place a token is chosen as ever; while it is the one that was guessed, the model has
        seen it already, and has said what comes after it.
        """
        generation, sequence = part.generation, part.generation.sequence
        assert sequence.cached is not None  # noqa: S101 - it was let in
        sequence.cached.tokens += sequence.ahead[: part.tokens]
        del sequence.ahead[: part.tokens]
        if sequence.grammar is not None:
            self._hold(generation, sequence.grammar, logits)
            return
        right = 0
        for row, guessed in zip_longest(logits, part.guess):
            if generation.ended:
                break
            self._add(generation, sequence.sampler.choose(row))
            if sequence.ahead != [guessed]:
                break
            sequence.cached.tokens.append(sequence.ahead.pop())
            right += 1
        if sequence.lookup is not None and part.guess:
            sequence.lookup.note(len(part.guess), right)

    def _hold(self, generation: BatchedGeneration, grammar: str, logits: Sequence[Logits]) -> None:
        """Keep *logits*, if there are any, until it is known which tokens may come."""
        sequence = generation.sequence
        if sequence.constraint is None:
            assert self._constraints is not None  # noqa: S101 - else it was refused
            sequence.constraint = self._constraints.open(grammar)
            if generation.ended:  # meanwhile, when there was no process to end
                sequence.constraint.end()
        if logits:
            if sequence.held is None:
                self._holding.append(generation)
            sequence.held = logits[-1].copy()

    def _choose_held(self, seconds: float) -> None:
        """
        Choose the tokens of those whose masks have come, or come within *seconds*.

        The others are in no step until theirs come: nobody else waits for them.
        """
        end = time.monotonic() + seconds
        while self._holding:
            constraints = [generation.sequence.constraint for generation in self._holding]
            wait_for(filter(None, constraints), max(0, end - time.monotonic()))
            before, self._holding = self._holding, []
            for generation in before:
                with _contained([generation]):
                    self._choose(generation)
                if generation.ended:
                    self._schedule.leave(generation)
            if len(self._holding) == len(before):
                return

    def _choose(self, generation: BatchedGeneration) -> None:
        """Choose the token of *generation* if its mask has come, else go on holding its logits."""
        sequence = generation.sequence
        constraint, logits = sequence.constraint, sequence.held
        if generation.ended or constraint is None or logits is None:
            return
        allowed = constraint.take()
        if allowed is None:
            self._holding.append(generation)
        elif constraint.complete:
            generation.put(sequence.completion.end())
            generation.end("stop")
        elif sequence.is_full():
            _cut(generation)
        else:
            sequence.held = None
            self._add(generation, sequence.sampler.choose(logits, allowed))

    def _add(self, generation: BatchedGeneration, choice: Choice) -> None:
        """Add what was chosen to the answer and see whether it ends there."""
        sequence, token = generation.sequence, choice.token
        completion = sequence.completion
        if token in self._end_ids:
            generation.put(completion.end())
            generation.end("stop")
            return
        generation.put(completion.push(token, choice.logprob))
        sequence.ahead.append(token)  # behind all others, if it gave way meanwhile
        if sequence.constraint is not None:
            sequence.constraint.push(token)  # and see later whether it is whole, or cut
        elif completion.has_stopped():
            generation.end("stop")
        elif sequence.is_full():
            _cut(generation)


def _cut(generation: BatchedGeneration) -> None:
    """End *generation*, whose model would go on."""
    completion = generation.sequence.completion
    generation.put(completion.end(cut=True))
    generation.end("stop" if completion.has_stopped() else "length")


@contextmanager
def _contained(generations: Sequence[BatchedGeneration]) -> Iterator[None]:
    """Let a failure end *generations* alone."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - a panic of Rust is no Exception; others go on
        logger.error("generation failed: %s", type(error).__name__)  # noqa: TRY400 - no content
        for generation in generations:
            generation.end("error")


def _rows(part: Part) -> Rows:
    sequence = part.generation.sequence
    assert sequence.cached is not None  # noqa: S101 - it was let in
    makes = part.tokens == len(sequence.ahead)
    return Rows(
        tokens=[*sequence.ahead[: part.tokens], *part.guess],
        past=len(sequence.cached.tokens),
        blocks=sequence.cached.blocks,
        wanted=1 + len(part.guess) if makes else 0,
        question=part.generation.question,
    )
