"""
What a model says in an answer: text, the reasoning before it, calls of tools.
"""

from dataclasses import dataclass, field

from app.protocol.piece import TokenLogprob
from app.protocol.question import ToolCall


@dataclass(frozen=True, slots=True)
class Content:
    """
    Text that is meant for whoever asked.

    Attributes:
        index: Here and below: which of the question's answers says so.
    """

    text: str = field(repr=False)
    index: int = 0


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text that the model wrote for itself first."""

    text: str = field(repr=False)
    index: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """A tool that whoever asked shall call; it is told once it is whole."""

    call: ToolCall
    index: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of content, where their log-probabilities were asked for."""

    made: tuple[TokenLogprob, ...] = field(repr=False)
    index: int = 0


Said = Content | Reasoning | Call | Tokens
