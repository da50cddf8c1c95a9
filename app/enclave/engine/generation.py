"""
A generation of the batching engine: one answer under way, and its tokens.
"""

import threading
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from app.enclave.engine.cache import BLOCK_TOKENS, CachedTokens, PrefixName
from app.enclave.engine.completion import Completion
from app.enclave.engine.interface import Finish
from app.enclave.engine.lookup import Lookup
from app.protocol.question import FinishReason, Options


@dataclass(eq=False, slots=True)
class TokenSequence:
    """
    What the engine's thread alone touches of one answer.

    Attributes:
        ahead: Tokens that the model has not seen, or not in the blocks that are its now.

        begun: Which answer it was to begin, of all; 0 before it has.
    """

    prompt: list[int] = field(repr=False)
    options: Options
    most_tokens: int
    prefix: PrefixName | None
    random: np.random.Generator
    completion: Completion = field(repr=False)
    ahead: list[int] = field(default_factory=list, repr=False)
    cached: CachedTokens | None = field(default=None, repr=False)
    lookup: Lookup | None = field(default=None, repr=False)
    begun: int = 0

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
    def whole(self) -> int:
        """How many blocks the prompt fills, its last token aside, which every answer has to see."""
        return (len(self.prompt) - 1) // BLOCK_TOKENS


class Owner(Protocol):
    """The engine, as its generations see it."""

    def place(self, generation: "BatchedGeneration") -> int:
        """Give the place of *generation* among those that wait; 0 when it does not."""

    def leave(self, generation: "BatchedGeneration") -> None:
        """Give the slot of *generation*, which has ended, to the next that waits."""


class BatchedGeneration:
    """One answer under way; see `Generation` for what its methods promise."""

    def __init__(self, engine: Owner, sequence: TokenSequence, *, deadline: float) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._text = ""
        self._finish: Finish | None = None
        self.sequence = sequence
        self.deadline = deadline

    @property
    def finish(self) -> Finish | None:
        """How it ended; None until it has, and while text is left to take."""
        with self._changed:
            return None if self._text else self._finish

    @property
    def place(self) -> int:
        """Its place among those that wait, the next one 1; 0 once it has begun or ended."""
        return self._engine.place(self)

    @property
    def question(self) -> object:
        """What its siblings have in common."""
        return self

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
        self._engine.leave(self)

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
                self._finish = Finish(reason, len(self.sequence.prompt), made)
                self._changed.notify_all()
