"""
A piece: something of an answer, as its model made it. SPEC.md section 6.2.

The engine makes pieces, frames carry them, and whoever has asked gets them again.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """
    A token that was made, or might have been.

    Attributes:
        token: Its bytes, which need not be whole characters; of a control token its spelling.

        logprob: Natural logarithm of its probability, 0 or less.

        alternatives: The likeliest tokens in its place, the likeliest first; it may be one of them.
    """

    token: bytes = field(repr=False)
    logprob: float = field(repr=False)
    alternatives: "tuple[TokenLogprob, ...]" = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """
    Something of an answer: text, a control token, or log-probabilities of tokens.

    Attributes:
        text: Whole characters; "" where it is log-probabilities.

        index: Which of the question's answers it belongs to.

        control: *text* spells a control token, and is no text.

        logprobs: Of tokens whose text, or part of it, has come before; a control token's own, too.
    """

    text: str = field(repr=False)
    index: int = 0
    control: bool = False
    logprobs: tuple[TokenLogprob, ...] = field(default=(), repr=False)
