"""
The batching engine: many answers under way in one model, a token each in every step.

Answers join and leave the running batch between steps. A prompt is shown to the model in pieces
beside the tokens of the others, so that a long one stalls nobody. Who waits is taken in turn by
conversation, when the cache of keys and values has room for prompt and answer.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

import numpy as np

from app.enclave.engine.cache import KvCache, PrefixName, blocks_for
from app.enclave.engine.completion import Completion
from app.enclave.engine.generation import BatchedGeneration, TokenSequence
from app.enclave.engine.model import Model, Rows
from app.enclave.engine.sampling import Logits, choose_token
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import AppError, BusyError, EngineError, TooLongError
from app.protocol.question import Options, Question

PREFILL_TOKENS: Final = 256  # of prompts in one step, all together
CLOSE_SECONDS: Final = 30.0  # one step takes far less
STEP_SECONDS: Final = 60.0  # a step that takes longer hangs, and only a new process can answer

logger = logging.getLogger(__name__)


class Tokenizer(Protocol):
    """Prompts to tokens, and tokens to text."""

    def encode(self, question: Question) -> list[int]:
        """Give the tokens of the prompt."""

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of *ids*, special tokens left out."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end every answer."""

    @property
    def strip_start(self) -> bool:
        """Whether white space before an answer's first word is left out."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    What one model allows.

    Attributes:
        context_tokens: Of prompt and completion together.

        end_ids: Tokens that end an answer.
    """

    context_tokens: int
    end_ids: frozenset[int]


class _Part(NamedTuple):
    """One answer's part of a step: how many of its next tokens the model sees."""

    generation: BatchedGeneration
    tokens: int


class BatchingEngine:
    """A loaded model; see `Engine` for what its methods promise."""

    def __init__(self, model: Model, tokenizer: Tokenizer, limits: Limits) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._limits = limits
        self._cache = KvCache(model.blocks)
        self._changed = threading.Condition()
        self._active: list[BatchedGeneration] = []
        self._waiting: list[BatchedGeneration] = []
        self._leaving: list[BatchedGeneration] = []  # their blocks are the thread's to free
        self._closed = False
        self._step_began: float | None = None
        self._encoding = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def start(
        self, question: Question, *, deadline: float, prefix: PrefixName | None = None
    ) -> BatchedGeneration:
        """
        Begin to answer *question*; returns at once.

        Raises:
            TooLongError: Its prompt does not fit; numbers are (prompt tokens, context length).

            UnsupportedError: The model's chat template refuses these roles in this order.

            EngineError: Template or tokenizer fail on this question, or give no token.

            BusyError: As many answers as may are under way and wait, or the engine is closed.
        """
        self._require_room()  # before the work of encoding, and again after it
        prompt = self._encode(question)
        if not prompt:
            raise EngineError
        most = self._limits.context_tokens
        if len(prompt) >= most:
            raise TooLongError(
                f"prompt is {len(prompt)} tokens, the context holds {most}",
                numbers=(len(prompt), most),
            )
        sequence = self._make_sequence(prompt, question.options, prefix)
        generation = BatchedGeneration(self, sequence, deadline=deadline)
        with self._changed:
            self._require_room()
            self._waiting.append(generation)
            self._order()
            self._changed.notify_all()
        return generation

    def is_alive(self) -> bool:
        """Tell whether its thread runs, and no step hangs."""
        began = self._step_began
        hangs = began is not None and time.monotonic() - began > STEP_SECONDS
        return self._thread.is_alive() and not hangs

    def close(self) -> None:
        """End every generation and wait for the step under way."""
        self._end_all()
        self._thread.join(CLOSE_SECONDS)

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
                self._leaving.append(generation)
            self._order()
            self._changed.notify_all()

    def _order(self) -> None:
        """Put those that wait in turn: first of the conversation with the fewest before it."""
        before = Counter(g.sequence.conversation for g in self._active)
        left, self._waiting = self._waiting, []
        while left:
            generation = min(left, key=lambda g: before[g.sequence.conversation])
            left.remove(generation)
            before[generation.sequence.conversation] += 1
            self._waiting.append(generation)

    def _end_all(self) -> None:
        with self._changed:
            self._closed = True
            ended = self._active + self._waiting
            self._changed.notify_all()
        for generation in ended:
            generation.cancel()

    def _encode(self, question: Question) -> list[int]:
        """Give the prompt's tokens, one prompt at a time: long ones take a core each."""
        with self._encoding:
            try:
                return self._tokenizer.encode(question)
            except AppError:
                raise
            except Exception:  # noqa: BLE001 - whatever a template or a tokenizer raises
                raise EngineError from None

    def _require_room(self) -> None:
        with self._changed:
            taken = len(self._active) + len(self._waiting)
        if self._closed or taken >= MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS:
            raise BusyError(f"{taken} answers are under way or wait")

    def _make_sequence(
        self, prompt: list[int], options: Options, prefix: PrefixName | None
    ) -> TokenSequence:
        return TokenSequence(
            prompt=prompt,
            options=options,
            most_tokens=min(options.max_tokens, self._limits.context_tokens - len(prompt)),
            prefix=prefix,
            random=np.random.default_rng(options.seed),  # without one, the system's randomness
            completion=Completion(
                self._tokenizer.decode,
                stops=(*options.stop, *self._tokenizer.stops),
                strip_start=self._tokenizer.strip_start,
            ),
        )

    def _run(self) -> None:
        """Step after step, until the engine is closed."""
        try:
            while not self._closed:
                self._free_blocks()
                if step := self._next_step():
                    self._take_step(step)
        finally:
            self._end_all()  # whatever ended this thread, nobody waits for it

    def _free_blocks(self) -> None:
        """Take back the blocks of who has left, and wipe what nobody keeps."""
        with self._changed:
            leaving, self._leaving = self._leaving, []
        for generation in leaving:
            sequence = generation.sequence
            if sequence.cached is not None:
                self._cache.give_back(sequence.cached, sequence.prefix)
                sequence.cached = None
        self._cache.expire(time.monotonic())
        self._wipe()

    def _wipe(self) -> None:
        if self._cache.freed:
            self._model.wipe(self._cache.freed)
            self._cache.freed.clear()

    def _next_step(self) -> list[_Part]:
        """Wait for work, end what is past its deadline, let in who may come, and plan."""
        with self._changed:
            end = self._cache.next_end
            self._changed.wait_for(
                lambda: self._closed or self._active or self._waiting or self._leaving,
                None if end is None else max(0, end - time.monotonic()),
            )
            self._end_late()
            self._admit()
            return self._plan()

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

    def _plan(self) -> list[_Part]:
        """Give every answer its next token, and the prompts even shares of a step's room."""
        step = [_Part(g, 1) for g in self._active if len(g.sequence.ahead) == 1]
        prompts = [g for g in self._active if len(g.sequence.ahead) > 1]
        room = PREFILL_TOKENS
        # The shortest first: what one leaves of its share is the others'.
        for left, generation in zip(
            range(len(prompts), 0, -1),
            sorted(prompts, key=lambda g: len(g.sequence.ahead)),
            strict=True,
        ):
            tokens = min(len(generation.sequence.ahead), room // left)
            room -= tokens
            step.append(_Part(generation, tokens))
        return step

    def _take_step(self, step: list[_Part]) -> None:
        """Let the model see its tokens, and add one to each answer whose prompt it has seen."""
        self._wipe()  # blocks that making room has freed
        everyone = [part.generation for part in step]
        self._step_began = time.monotonic()
        with _contained(everyone):
            batch = [_rows(part) for part in step]
            for rows in batch:
                self._cache.note_written(rows.used_blocks)
            logits = self._model.forward(batch)
            for part, row in zip(step, _share(step, logits), strict=True):
                with _contained([part.generation]):
                    self._advance(part, row)
        self._step_began = None
        for generation in everyone:
            if generation.ended:
                self.leave(generation)

    def _advance(self, part: _Part, logits: Logits | None) -> None:
        """Note that the model has seen the tokens of *part*; choose the next from *logits*."""
        sequence = part.generation.sequence
        assert sequence.cached is not None  # noqa: S101 - it was let in
        sequence.cached.tokens += sequence.ahead[: part.tokens]
        del sequence.ahead[: part.tokens]
        if logits is not None and not part.generation.ended:
            self._add(part.generation, choose_token(logits, sequence.options, sequence.random))

    def _add(self, generation: BatchedGeneration, token: int) -> None:
        """Add *token* to the answer and see whether it ends there."""
        sequence = generation.sequence
        completion = sequence.completion
        if token in self._limits.end_ids:
            generation.put(completion.end())
            generation.end("stop")
            return
        generation.put(completion.push(token))
        sequence.ahead = [token]
        if completion.has_stopped():
            generation.end("stop")
        elif completion.tokens >= sequence.most_tokens:
            generation.put(completion.end())
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


def _rows(part: _Part) -> Rows:
    sequence = part.generation.sequence
    assert sequence.cached is not None  # noqa: S101 - it was let in
    return Rows(
        tokens=sequence.ahead[: part.tokens],
        past=len(sequence.cached.tokens),
        blocks=sequence.cached.blocks,
        wanted=int(part.tokens == len(sequence.ahead)),
    )


def _share(step: list[_Part], logits: Iterable[Logits]) -> Iterator[Logits | None]:
    """Give each part its logits; None while its prompt is not all seen."""
    rows = iter(logits)
    for part in step:
        yield next(rows) if part.tokens == len(part.generation.sequence.ahead) else None
