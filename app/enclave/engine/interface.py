"""
An engine: what turns a question into its answers, piece by piece.

The server knows only this interface; `load` fills it. One engine serves all
conversations, and nothing of one is visible in another.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from app.enclave.engine.cache import PrefixName
from app.protocol.piece import Piece
from app.protocol.question import FinishReason, Question


@dataclass(frozen=True, slots=True)
class Finish:
    """
    How the answers to a question ended, and what they cost in tokens of this model.

    Attributes:
        reasons: Of each answer.

        completion_tokens: Of all of them.
    """

    reasons: tuple[FinishReason, ...]
    prompt_tokens: int
    completion_tokens: int

    @property
    def reason(self) -> FinishReason:
        """How the first one ended, or `error` if any did so."""
        return "error" if "error" in self.reasons else self.reasons[0]


class Generation(Protocol):
    """The answers to one question under way, as many as its `n`."""

    @property
    def finish(self) -> Finish | None:
        """How they ended; None until all have, and while pieces are left to take."""

    @property
    def place(self) -> int:
        """How many answers have yet to begin, up to its first; 0 once that has begun or ended."""

    def take(self, timeout_seconds: float) -> list[Piece]:
        """
        Give all pieces that came since the last call, each answer's in order.

        Waits up to *timeout_seconds* for some (0 does not wait), and gives none when none came
        or all answers have ended. Text is whole characters, and no part of a stop string. A
        control token is a piece of its own, but for the one that ends an answer, which is
        none. Never raises: an engine that fails ends with finish reason `error`.
        """

    def wait_until_over(self, timeout_seconds: float) -> None:
        """Wait until all answers have ended, up to *timeout_seconds*, whatever is made."""

    def cancel(self) -> None:
        """Stop generating and free its slots at once; may be called at any time, also twice."""


class Engine(Protocol):
    """A loaded model that answers questions, several at once."""

    def start(
        self,
        question: Question,
        *,
        deadline: float,
        prefix: PrefixName | None = None,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> Generation:
        """
        Begin to answer *question*; returns when its prompt is encoded.

        Args:
            deadline: `time.monotonic()` after which the generation ends with reason `error`.

            prefix: Where the conversation may leave keys and values for its next turn, and
                finds those of its last; None computes the whole prompt and leaves nothing.

            require_wanted: Called now and then while the prompt waits to be encoded; what it raises
                ends that, and is raised.

        Raises:
            TooLongError: Its prompt does not fit this model's context; numbers are
                (prompt tokens, context length).

            UnsupportedError: This model cannot honour what is asked for; numbers say what.

            EngineError: Template or tokenizer fail on this question, or give no token.

            BusyError: `MAX_ACTIVE_ANSWERS` are under way and `MAX_WAITING_ANSWERS` wait, or would
                with these; or too many long prompts wait to be encoded.

            DeadlineError: Its turn to be encoded did not come before *deadline*.
        """

    def is_alive(self) -> bool:
        """Tell whether it can still answer; if not, only a new process can."""

    def close(self) -> None:
        """End every generation; nothing can be asked any more."""
