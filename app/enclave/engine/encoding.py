"""
Encoding: questions to the tokens of prompts, so that nobody's question holds up the others.

A question that cannot fit is refused before any work. Of the others one short and one long one at a
time are encoded, each conversation in turn; a tokenizer must let other threads run meanwhile.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from app.enclave.engine.grammar import Grammar
from app.enclave.engine.turns import Turns
from app.protocol.errors import AppError, EngineError, TooLongError
from app.protocol.question import Question

SHORT_BYTES: Final = 16 * 1024  # some milliseconds' work
SHORT_TURNS: Final = 128
_LONG_REST: Final = 3  # long ones take a quarter of one processor's time at most
# Of the engine's places those that long ones take while they are encoded: a third, so that whoever
# sends many, which are then refused, takes none from the short ones.
MOST_LONG: Final = 16


class Tokenizer(Protocol):
    """Prompts to tokens, and tokens to text."""

    def encode(self, question: Question) -> list[int]:
        """Give the tokens of the prompt."""

    def grammar(self, question: Question) -> Grammar | None:
        """Give what the answer to *question* has to be; None where it may be anything."""

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of *ids*, special tokens left out."""

    def spell(self, token: int) -> bytes:
        """Give the bytes of *token*, which need not be whole characters."""

    @property
    def vocabulary(self) -> int:
        """Tokens are below it."""

    @property
    def most_token_bytes(self) -> int:
        """The bytes of the longest token."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end every answer."""

    @property
    def strip_start(self) -> bool:
        """Whether white space before an answer's first word is left out."""

    @property
    def controls(self) -> Mapping[int, str]:
        """The control tokens that an answer may have, and their spellings."""


class PromptEncoder:
    """Encodes the questions of all conversations for one model."""

    def __init__(self, tokenizer: Tokenizer, *, context_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._context_tokens = context_tokens
        self._short_turns = Turns()
        self._long_turns = Turns(rest=_LONG_REST, most_places=MOST_LONG)

    def encode(
        self,
        question: Question,
        conversation: object,
        *,
        deadline: float,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> list[int]:
        """
        Give the prompt of *question*, when it is the turn of *conversation*.

        Args:
            require_wanted: Called now and then while it waits; what it raises ends that.

        Raises:
            TooLongError: It leaves no room for an answer; numbers are (prompt tokens, or the
                fewest that they can be, and context length).

            UnsupportedError: The model's chat template refuses these roles in this order.

            EngineError: Template or tokenizer fail on this question, or give no token.

            BusyError: It is long, and long ones take as many places as they may.

            DeadlineError: Its turn did not come before *deadline*.
        """
        size = sum(len(message.text.encode()) for message in question.messages)
        # Every message has a token at least, and every token is so long at most.
        fewest = math.ceil(size / self._tokenizer.most_token_bytes)
        self._require_room(max(len(question.messages), fewest))
        work = size + _count_other_bytes(question)
        short = work <= SHORT_BYTES and len(question.messages) <= SHORT_TURNS
        turns = self._short_turns if short else self._long_turns
        with turns.turn(
            conversation,
            work,
            deadline=deadline,
            places=question.options.n,
            require_wanted=require_wanted,
        ):
            prompt = self._encode(question)
        if not prompt:
            raise EngineError
        self._require_room(len(prompt))
        return prompt

    def _require_room(self, tokens: int) -> None:
        if tokens >= self._context_tokens:
            raise TooLongError(
                f"prompt is {tokens} tokens or more, the context holds {self._context_tokens}",
                numbers=(tokens, self._context_tokens),
            )

    def _encode(self, question: Question) -> list[int]:
        try:
            return self._tokenizer.encode(question)
        except AppError:
            raise
        except Exception:  # noqa: BLE001 - whatever a template or a tokenizer raises
            raise EngineError from None


def _count_other_bytes(question: Question) -> int:
    """Count what a template may write besides the messages' texts, as it is or in other words."""
    calls = (call for message in question.messages for call in message.calls)
    return (
        len((question.options.tools or "").encode())
        + sum(len(message.reasoning.encode()) for message in question.messages)
        + sum(len(call.arguments.encode()) for call in calls)
    )
