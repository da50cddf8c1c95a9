"""
Parts of an answer: what a model wrote, apart from what it thought and from the tools it called.

All ways to talk tell of these, each in its own way. The `index` of a part says which of a
question's answers it belongs to.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from app.protocol.piece import TokenLogprob
from app.protocol.question import ToolCall


@dataclass(frozen=True, slots=True)
class Text:
    """Some of what the model wrote."""

    text: str = field(repr=False)
    index: int = 0


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Some of what the model thought before it wrote."""

    text: str = field(repr=False)
    index: int = 0


@dataclass(frozen=True, slots=True)
class Call:
    """The model calls a tool; arguments that follow, up to the next call, are this one's."""

    id: str
    name: str
    index: int = 0


@dataclass(frozen=True, slots=True)
class Arguments:
    """Some of the arguments of the call that was begun last, JSON text."""

    text: str = field(repr=False)
    index: int = 0


@dataclass(frozen=True, slots=True)
class Tokens:
    """Tokens of text, with their log-probabilities; where those were asked for."""

    tokens: tuple[TokenLogprob, ...] = field(repr=False)
    index: int = 0


Part = Text | Reasoning | Call | Arguments | Tokens


def collect_calls(parts: Iterable[Part]) -> tuple[ToolCall, ...]:
    """Give the calls that *parts*, all of one answer, tell of."""
    calls: list[tuple[Call, list[str]]] = []
    for part in parts:
        match part:
            case Call():
                calls.append((part, []))
            case Arguments(text):
                calls[-1][1].append(text)
    return tuple(ToolCall(call.id, call.name, "".join(texts)) for call, texts in calls)
