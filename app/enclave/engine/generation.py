"""
The batching engine's answers under way: the tokens of each, and what they have made together.
"""

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.enclave.engine.cache import BLOCK_TOKENS, CachedTokens, PrefixName
from app.enclave.engine.completion import Completion
from app.enclave.engine.constraint import Constraint
from app.enclave.engine.interface import Finish
from app.enclave.engine.lookup import Lookup
from app.enclave.engine.sampling import Logits, Sampler
from app.protocol.piece import Piece
from app.protocol.question import FinishReason, Options


@dataclass(eq=False, slots=True)
class TokenSequence:
    """
    What the engine's thread alone touches of one answer.

    Attributes:
        ahead: Tokens that the model has not seen, or not in the blocks that are its now.

        begun: Which answer it was to begin, of all; 0 before it has.

        grammar: What it has to be of, None for anything; *constraint* then says what may come next.

        held: What the model thinks of the next token, while what may come is being computed.

        keeps: Whether it is the one that its conversation's next turn goes on from.
    """

    prompt: list[int] = field(repr=False)
    options: Options
    most_tokens: int
    prefix: PrefixName | None
    sampler: Sampler
    completion: Completion = field(repr=False)
    ahead: list[int] = field(default_factory=list, repr=False)
    cached: CachedTokens | None = field(default=None, repr=False)
    lookup: Lookup | None = field(default=None, repr=False)
    grammar: str | None = field(default=None, repr=False)
    constraint: Constraint | None = field(default=None, repr=False)
    held: Logits | None = field(default=None, repr=False)
    begun: int = 0
    keeps: bool = True

    def __post_init__(self) -> None:
        """Have all of the prompt ahead."""
        self.ahead = list(self.prompt)

    @property
    def conversation(self) -> object:
        """What is taken in turn: those of one conversation, or this one alone."""
        return self.prefix.name if self.prefix else self

    @property
    def tokens(self) -> list[int]:
        """Those of the prompt, and all that were made."""
        return [*self.cached.tokens, *self.ahead] if self.cached else self.ahead

    @property
    def length(self) -> int:
        """How many those are."""
        return len(self.cached.tokens if self.cached else ()) + len(self.ahead)

    @property
    def guessable(self) -> bool:
        """Whether guesses at what comes next tell nobody what it copies, if it is alone."""
        return self.options.padding == "constant" and self.grammar is None

    @property
    def whole(self) -> int:
        """How many blocks the prompt fills, its last token aside, which every answer has to see."""
        return (len(self.prompt) - 1) // BLOCK_TOKENS

    def is_full(self) -> bool:
        """Tell whether it has as many tokens as it may."""
        return self.completion.tokens >= self.most_tokens


class Owner(Protocol):
    """The engine, as its generations see it."""

    def place(self, generation: "BatchedGeneration") -> int:
        """Give the place of *generation* among those that wait; 0 when it does not."""

    def leave(self, generation: "BatchedGeneration") -> None:
        """Give the slot of *generation*, which has ended, to the next that waits."""


class BatchedGeneration:
    """
    One answer under way: what the schedule knows, and a row of the model's steps.

    Attributes:
        ended: Whether it makes nothing more.
    """

    def __init__(
        self, engine: Owner, answers: "BatchedAnswers", sequence: TokenSequence, *, deadline: float
    ) -> None:
        self._engine = engine
        self._answers = answers
        self.sequence = sequence
        self.deadline = deadline
        self.reason: FinishReason | None = None

    @property
    def place(self) -> int:
        """Its place among those that wait, the next one 1; 0 once it has begun or ended."""
        return self._engine.place(self)

    @property
    def question(self) -> object:
        """What it has in common with the other answers to its question."""
        return self._answers

    @property
    def ended(self) -> bool:
        """Whether it makes nothing more, though pieces may be left to take."""
        return self.reason is not None

    def put(self, pieces: Iterable[Piece]) -> None:
        """Add *pieces*, unless it has ended."""
        with self._answers.changed:
            if self.reason is None:
                self._answers.pieces += pieces
                self._answers.changed.notify_all()

    def end(self, reason: FinishReason) -> None:
        """End with *reason*, unless it has ended."""
        with self._answers.changed:
            if self.reason is None:
                self.reason = reason
                self._answers.note_end()
        if self.sequence.constraint is not None:
            self.sequence.constraint.end()

    def cancel(self) -> None:
        """Stop generating and free the slot at once."""
        self.end("error")
        self._engine.leave(self)


class BatchedAnswers:
    """
    All answers to one question; see `Generation` for what its methods promise.

    Attributes:
        answers: Each of them.

        changed: Held by whoever touches what they have made, or how they ended.

        pieces: What was made and not taken.
    """

    def __init__(
        self, engine: Owner, sequences: Iterable[TokenSequence], *, deadline: float
    ) -> None:
        self.changed = threading.Condition()
        self.pieces: list[Piece] = []
        self._over = threading.Event()
        self.answers: Sequence[BatchedGeneration] = [
            BatchedGeneration(engine, self, sequence, deadline=deadline) for sequence in sequences
        ]

    @property
    def finish(self) -> Finish | None:
        """How they ended; None until all have, and while pieces are left to take."""
        with self.changed:
            reasons = [answer.reason for answer in self.answers if answer.reason is not None]
            if self.pieces or len(reasons) < len(self.answers):
                return None
        sequences = [answer.sequence for answer in self.answers]
        made = sum(sequence.completion.tokens for sequence in sequences)
        return Finish(tuple(reasons), len(sequences[0].prompt), made)

    @property
    def place(self) -> int:
        """The place of the first; of one conversation's answers none passes another."""
        return self.answers[0].place

    def take(self, timeout_seconds: float) -> list[Piece]:
        """Give all pieces that came since the last call, waiting up to *timeout_seconds*."""
        with self.changed:
            self.changed.wait_for(lambda: self.pieces or self._have_ended(), timeout_seconds)
            pieces, self.pieces = self.pieces, []
            return pieces

    def wait_until_over(self, timeout_seconds: float) -> None:
        """Wait until all have ended, up to *timeout_seconds*, whatever is made meanwhile."""
        self._over.wait(timeout_seconds)

    def note_end(self) -> None:
        """Have whoever waits look at what one's end has changed."""
        self.changed.notify_all()
        if self._have_ended():
            self._over.set()

    def cancel(self) -> None:
        """Stop generating and free the slots at once."""
        for answer in self.answers:
            answer.cancel()
        with self.changed:
            self.pieces = []

    def _have_ended(self) -> bool:
        return all(answer.ended for answer in self.answers)
