"""
The transformers engine: any causal language model, in 32-bit floats on torch.

It is the reference that faster engines are compared with. One thread gives each answer
under way one token in turn; an answer has its own cache of keys and values, which dies with
it, so nothing of one conversation is visible in another.
"""

import inspect
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol

# Read when the libraries are imported: nothing may be looked up outside.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging as transformers_logging

from app.enclave.completion import Completion
from app.enclave.engine import Finish
from app.enclave.engine_sampling import choose_token
from app.enclave.engine_tokenizer import Tokenizer
from app.enclave.prompt import TRANSCRIPT_STOPS
from app.enclave.weights import Weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_WAITING_ANSWERS
from app.protocol.errors import (
    AppError,
    BusyError,
    EngineError,
    TooLongError,
    WeightsError,
)
from app.protocol.question import FinishReason, Options, Question

PREFILL_TOKENS: Final = 256  # of a prompt in one step, so that a long one stalls nobody
CLOSE_SECONDS: Final = 30.0  # one step takes far less

logger = logging.getLogger(__name__)


class _Output(Protocol):
    """What a model gives for some tokens."""

    logits: Tensor
    past_key_values: object


class _Model(Protocol):
    """A causal language model of transformers."""

    def __call__(
        self, *, input_ids: Tensor, past_key_values: object, use_cache: bool, **keep: int
    ) -> _Output:
        """Give the logits after *input_ids*, which follow what the cache holds."""


@dataclass(eq=False, slots=True)
class _Sequence:
    """What the scheduler's thread alone touches of one answer."""

    ahead: list[int] = field(repr=False)  # tokens that the model has not seen yet
    options: Options
    most_tokens: int
    generator: torch.Generator
    completion: Completion = field(repr=False)
    cache: object = field(default=None, repr=False)


class TransformersGeneration:
    """One answer under way; see `Generation` for what its methods promise."""

    def __init__(
        self, engine: "TransformersEngine", sequence: _Sequence, *, deadline: float
    ) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._text = ""
        self._finish: Finish | None = None
        self._prompt_tokens = len(sequence.ahead)
        self.sequence = sequence
        self.deadline = deadline

    @property
    def finish(self) -> Finish | None:
        """How it ended; None until it has, and while text is left to take."""
        with self._changed:
            return None if self._text else self._finish

    @property
    def ended(self) -> bool:
        """Whether nothing more will come, though text may be left to take."""
        return self._finish is not None

    def take(self, timeout_seconds: float) -> str:
        """Give all text that came since the last call, waiting up to *timeout_seconds*."""
        with self._changed:
            self._changed.wait_for(lambda: self._text or self._finish, timeout_seconds)
            text, self._text = self._text, ""
            return text

    def cancel(self) -> None:
        """Stop generating and free the slot at once."""
        self.end("error")
        with self._changed:
            self._text = ""
        self._engine.release(self)

    def put(self, text: str) -> None:
        """Add *text*, unless the answer has ended."""
        with self._changed:
            if text and self._finish is None:
                self._text += text
                self._changed.notify_all()

    def end(self, reason: FinishReason) -> None:
        """End with *reason*, unless it has ended."""
        with self._changed:
            if self._finish is None:
                made = self.sequence.completion.tokens
                self._finish = Finish(reason, self._prompt_tokens, made)
                self._changed.notify_all()


class TransformersEngine:
    """A loaded model; see `Engine` for what its methods promise."""

    def __init__(self, model: _Model, tokenizer: Tokenizer, *, context_length: int) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._context_length = context_length
        self._end_ids = _end_ids(model, tokenizer)
        self._keep = {"logits_to_keep": 1} if _can_keep(model) else {}
        self._changed = threading.Condition()
        self._active: list[TransformersGeneration] = []
        self._waiting: list[TransformersGeneration] = []
        self._closed = False
        self._encoding = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def start(self, question: Question, *, deadline: float) -> TransformersGeneration:
        """
        Begin to answer *question*; returns at once.

        Raises:
            TooLongError: Its prompt does not fit; numbers are (prompt tokens, context length).

            UnsupportedError: The model's chat template refuses these roles in this order.

            EngineError: Template or tokenizer fail on this question.

            BusyError: As many answers as may are under way and wait, or the engine is closed.
        """
        self._require_room()  # before the work of encoding, and again after it
        prompt = self._encode(question)
        if len(prompt) >= self._context_length:
            raise TooLongError(
                f"prompt is {len(prompt)} tokens, the context holds {self._context_length}",
                numbers=(len(prompt), self._context_length),
            )
        sequence = self._make_sequence(prompt, question.options)
        generation = TransformersGeneration(self, sequence, deadline=deadline)
        with self._changed:
            self._require_room()
            self._waiting.append(generation)
            self._changed.notify_all()
        return generation

    def is_alive(self) -> bool:
        """Tell whether its thread runs."""
        return self._thread.is_alive()

    def close(self) -> None:
        """End every generation and free the model."""
        self._end_all()
        self._thread.join(CLOSE_SECONDS)
        del self._model

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

    def release(self, generation: TransformersGeneration) -> None:
        """Give the slot of *generation*, which has ended, to the next that waits."""
        generation.sequence.cache = None
        with self._changed:
            for group in (self._active, self._waiting):
                if generation in group:
                    group.remove(generation)
            self._changed.notify_all()

    def _require_room(self) -> None:
        with self._changed:
            taken = len(self._active) + len(self._waiting)
        if self._closed or taken >= MAX_ACTIVE_ANSWERS + MAX_WAITING_ANSWERS:
            raise BusyError(f"{taken} answers are under way or wait")

    def _make_sequence(self, prompt: list[int], options: Options) -> _Sequence:
        generator = torch.Generator()
        if options.seed is None:
            generator.seed()  # from the system's randomness
        else:
            generator.manual_seed(options.seed)
        plain = self._tokenizer.plain
        return _Sequence(
            ahead=prompt,
            options=options,
            most_tokens=min(options.max_tokens, self._context_length - len(prompt)),
            generator=generator,
            completion=Completion(
                self._tokenizer.decode,
                stops=(*options.stop, *TRANSCRIPT_STOPS) if plain else options.stop,
                strip_start=plain,
            ),
        )

    def _run(self) -> None:
        """Give every answer under way one step in turn, until the engine is closed."""
        try:
            while not self._closed:
                for generation in self._next_round():
                    with _contained(generation):
                        self._step(generation)
                    if generation.ended:
                        self.release(generation)
        finally:
            self._end_all()  # whatever ended this thread, nobody waits for it

    def _next_round(self) -> list[TransformersGeneration]:
        """Wait for work, end what is past its deadline, and fill free slots in order."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._active or self._waiting)
            late = [g for g in self._waiting if time.monotonic() > g.deadline]
            for generation in late:
                generation.end("error")
                self._waiting.remove(generation)
            free = MAX_ACTIVE_ANSWERS - len(self._active)
            self._active += self._waiting[:free]
            del self._waiting[:free]
            return list(self._active)

    def _step(self, generation: TransformersGeneration) -> None:
        """Let the model see more of the prompt, or make one token."""
        if generation.ended:
            return
        if time.monotonic() > generation.deadline:
            generation.end("error")
            return
        sequence = generation.sequence
        seen, sequence.ahead = sequence.ahead[:PREFILL_TOKENS], sequence.ahead[PREFILL_TOKENS:]
        logits = self._forward(sequence, seen)
        if not sequence.ahead:
            token = choose_token(logits, sequence.options, sequence.generator)
            self._add(generation, token)

    def _add(self, generation: TransformersGeneration, token: int) -> None:
        """Add *token* to the answer and see whether it ends there."""
        sequence = generation.sequence
        completion = sequence.completion
        if token in self._end_ids:
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

    @torch.inference_mode()
    def _forward(self, sequence: _Sequence, tokens: list[int]) -> Tensor:
        """Show *tokens* to the model and give the logits of what follows."""
        output = self._model(
            input_ids=torch.tensor([tokens]),
            past_key_values=sequence.cache,
            use_cache=True,
            **self._keep,
        )
        sequence.cache = output.past_key_values
        return output.logits[0, -1]


def load_engine(weights: Weights, *, threads: int) -> TransformersEngine:
    """
    Load the model of *weights*, whose files are checked, and start its thread.

    Args:
        threads: Torch's, for the whole process: one less than the physical cores is best.

    Raises:
        WeightsError: The files are no causal language model that transformers knows.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    torch.set_num_threads(threads)
    try:
        tokenizer = Tokenizer(weights)
        model = AutoModelForCausalLM.from_pretrained(
            weights.folder,
            dtype=torch.float32,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(f"transformers cannot load the model: {type(error).__name__}") from error
    model.eval()
    return TransformersEngine(model, tokenizer, context_length=weights.context_length)


@contextmanager
def _contained(generation: TransformersGeneration) -> Iterator[None]:
    """Let a failure end this answer alone."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever a model raises, the others go on
        logger.error("generation failed: %s", type(error).__name__)  # noqa: TRY400 - no content
        generation.end("error")


def _end_ids(model: object, tokenizer: Tokenizer) -> frozenset[int]:
    """Give every token that ends an answer, by model and by tokenizer."""
    ids: set[int] = set()
    for holder in ("generation_config", "config"):
        named = getattr(getattr(model, holder, None), "eos_token_id", None)
        ids.update(named if isinstance(named, list) else [named] if named is not None else [])
    return frozenset(ids | ({tokenizer.end_id} if tokenizer.end_id is not None else set()))


def _can_keep(model: object) -> bool:
    """Tell whether the model can leave out all logits but the last."""
    forward = getattr(model, "forward", model)
    return callable(forward) and "logits_to_keep" in inspect.signature(forward).parameters
