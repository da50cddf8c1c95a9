"""
The batching engine: many answers under way in one model, a token each in every step.

A question is encoded in its asker's thread, joins the schedule, and the runner's thread answers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from app.enclave.engine.cache import KvCache, PrefixName
from app.enclave.engine.completion import Completion
from app.enclave.engine.constraint import Constraints
from app.enclave.engine.encoding import PromptEncoder, Tokenizer
from app.enclave.engine.generation import BatchedAnswers, TokenSequence
from app.enclave.engine.grammar import Grammar
from app.enclave.engine.model import Model
from app.enclave.engine.runner import Runner
from app.enclave.engine.sampling import Sampler
from app.enclave.engine.schedule import Schedule
from app.enclave.engine.turns import Turns
from app.protocol.errors import UnsupportedError
from app.protocol.question import FIELDS, Question

_QUICK_REST: Final = 1  # grammars are tried in half of one processor's time at most
_SLOW_REST: Final = 3  # and those that take long in a quarter
_MOST_SLOW: Final = 8  # that may wait for that
_CONTEXT_TOKENS: Final = 8  # by which a decoder tells how a text goes on
_OPENING_TOKENS: Final = 4  # the mark of a thought, and blanks
_THOUGHTS: Final = frozenset({"<think>", "[THINK]"})
_LOGIT_BIAS: Final = FIELDS.index("logit_bias")


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


class BatchingEngine:
    """A loaded model; see `Engine` for what its methods promise."""

    def __init__(
        self,
        model: Model,
        tokenizer: Tokenizer,
        limits: Limits,
        constraints: Constraints | None = None,
    ) -> None:
        self._constraints = constraints
        self._quick_turns = Turns(rest=_QUICK_REST)
        self._slow_turns = Turns(rest=_SLOW_REST, most_places=_MOST_SLOW)
        self._tokenizer = tokenizer
        self._context_tokens = limits.context_tokens
        self._encoder = PromptEncoder(tokenizer, context_tokens=limits.context_tokens)
        cache = KvCache(model.blocks)
        self._schedule = Schedule(cache)
        self._runner = Runner(
            model, cache, self._schedule, end_ids=limits.end_ids, constraints=constraints
        )

    def start(
        self,
        question: Question,
        *,
        deadline: float,
        prefix: PrefixName | None = None,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> BatchedAnswers:
        """
        Begin to answer *question*; returns when its prompt is encoded.

        Raises:
            TooLongError: Its prompt does not fit; numbers are (prompt tokens, or the fewest that
                they can be, and context length).

            UnsupportedError: The model's chat template refuses these roles in this order, or a bias
                is of a token that there is not.

            EngineError: Template or tokenizer fail on this question, or give no token.

            BusyError: With these, more answers than may would be under way and wait, too many long
                prompts wait to be encoded, or the engine is closed.

            DeadlineError: Its turn to be encoded did not come before *deadline*.
        """
        if max(question.options.logit_bias[::2], default=-1) >= self._tokenizer.vocabulary:
            raise UnsupportedError("a bias is of no token", numbers=(_LOGIT_BIAS,))

        def prepare() -> BatchedAnswers:
            conversation = prefix.name if prefix else object()
            grammar = self._tokenizer.grammar(question)
            prompt = self._encoder.encode(
                question, conversation, deadline=deadline, require_wanted=require_wanted
            )
            if grammar is not None:  # dearest last: a prompt that does not fit is refused before
                self._require_grammar(
                    grammar, conversation, deadline=deadline, require_wanted=require_wanted
                )
            sequences = [
                self._make_sequence(question, prompt, prefix, index, grammar)
                for index in range(question.options.n)
            ]
            return BatchedAnswers(self._schedule, sequences, deadline=deadline)

        return self._schedule.join(question.options.n, prepare)

    def is_alive(self) -> bool:
        """Tell whether its thread runs, and no step hangs."""
        return self._runner.is_alive()

    def close(self) -> None:
        """End every generation, and wait for the thread; then the model can be let go of."""
        self._schedule.close()
        self._runner.wait_until_gone()
        if self._constraints is not None:
            self._constraints.close()

    def _require_grammar(
        self,
        grammar: Grammar,
        conversation: object,
        *,
        deadline: float,
        require_wanted: Callable[[], None],
    ) -> None:
        """
        Require that an answer can be of *grammar*, when it is the turn of *conversation*.

        Whoever asks for one that takes long to compile waits for others of that kind, and holds up
        nobody else for longer than it takes to see that.
        """
        if self._constraints is None:
            raise UnsupportedError(numbers=(grammar.option,))
        for turns, slow in ((self._quick_turns, False), (self._slow_turns, True)):
            with turns.turn(
                conversation, len(grammar.text), deadline=deadline, require_wanted=require_wanted
            ):
                if self._constraints.compiles(grammar, slow=slow):
                    return
        raise UnsupportedError("the schema takes too long", numbers=(grammar.option,))

    def _make_sequence(
        self,
        question: Question,
        prompt: list[int],
        prefix: PrefixName | None,
        index: int,
        grammar: Grammar | None,
    ) -> TokenSequence:
        options, continued = question.options, question.messages[-1].role == "assistant"
        seed = None if options.seed is None else (options.seed, index)
        return TokenSequence(
            prompt=prompt,
            options=options,
            most_tokens=min(options.max_tokens, self._context_tokens - len(prompt)),
            prefix=prefix,
            grammar=grammar.text if grammar else None,
            keeps=index == 0,
            sampler=Sampler(
                options,
                prompt=prompt,
                random=np.random.default_rng(seed),  # without one, the system's randomness
                spell=self._tokenizer.spell,
            ),
            completion=Completion(
                self._tokenizer.decode,
                # What has to be of a grammar ends where that does.
                stops=() if grammar else (*options.stop, *self._tokenizer.stops),
                strip_start=self._tokenizer.strip_start and not continued,
                before=prompt[-_CONTEXT_TOKENS:] if continued else (),
                controls=self._tokenizer.controls,
                index=index,
                opened="" if continued else _find_opened(prompt, self._tokenizer.controls),
            ),
        )


def _find_opened(prompt: list[int], controls: Mapping[int, str]) -> str:
    """Give the thought that *prompt* ends by opening, as some templates do for the model."""
    last = [controls[token] for token in prompt[-_OPENING_TOKENS:] if token in controls]
    return last[-1] if last and last[-1] in _THOUGHTS else ""
