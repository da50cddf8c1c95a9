"""
Parts of an answer: what a model wrote, apart from what it thought and from the tools it called.

All endpoints tell their clients of these, each in its own shapes.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Text:
    """Some of what the model wrote."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Some of what the model thought before it wrote."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """The model calls a tool; arguments that follow, up to the next call, are this one's."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Arguments:
    """Some of the arguments of the call that was begun last, JSON text."""

    text: str = field(repr=False)


Part = Text | Reasoning | Call | Arguments
