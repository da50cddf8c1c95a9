"""
An engine: what turns a question into an answer, piece by piece.

The server knows only this interface; `load` fills it. One engine serves all
conversations, and nothing of one is visible in another.
"""

from dataclasses import dataclass
from typing import Protocol

from app.enclave.engine.cache import PrefixName
from app.protocol.question import FinishReason, Question


@dataclass(frozen=True, slots=True)
class Finish:
    """How a completion ended, and what it cost in tokens of this model."""

    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int


class Generation(Protocol):
    """One answer under way."""

    @property
    def finish(self) -> Finish | None:
        """How it ended; None until it has, and while text is left to take."""

    @property
    def place(self) -> int:
        """Its place among those that wait, the next one 1; 0 once it has begun or ended."""

    def take(self, timeout_seconds: float) -> str:
        """
        Give all text that came since the last call, whole characters only.

        Waits up to *timeout_seconds* for some (0 does not wait), and gives "" when none came
        or the generation has ended. Never raises: an engine that fails ends with finish
        reason `error`.
        """

    def cancel(self) -> None:
        """Stop generating and free its slot at once; may be called at any time, also twice."""


class Engine(Protocol):
    """A loaded model that answers questions, several at once."""

    def start(
        self, question: Question, *, deadline: float, prefix: PrefixName | None = None
    ) -> Generation:
        """
        Begin to answer *question*; returns at once.

        Args:
            deadline: `time.monotonic()` after which the generation ends with reason `error`.

            prefix: Where the conversation may leave keys and values for its next turn, and
                finds those of its last; None computes the whole prompt and leaves nothing.

        Raises:
            TooLongError: Its prompt does not fit this model's context; numbers are
                (prompt tokens, context length).

            UnsupportedError: The model's chat template refuses these roles in this order.

            EngineError: Template or tokenizer fail on this question, or give no token.

            BusyError: `MAX_ACTIVE_ANSWERS` are under way and `MAX_WAITING_ANSWERS` wait.
        """

    def is_alive(self) -> bool:
        """Tell whether it can still answer; if not, only a new process can."""

    def close(self) -> None:
        """End every generation; nothing can be asked any more."""
