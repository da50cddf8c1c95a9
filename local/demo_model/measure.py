"""
Agreement: the share of questions that a model answers with the corpus's own answer.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from local.demo_model.corpus import Entry

NEAR: Final = 0.9  # of the characters in order; a slip of a word or two is still the answer


class Answerer(Protocol):
    """Answers questions, each on its own."""

    def __call__(self, questions: Sequence[str]) -> list[str]:
        """Give the answer to each question, in order."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """How many of *total* answers were the corpus's to the letter, or nearly so."""

    exact: int
    near: int
    total: int

    def __str__(self) -> str:
        exact, near = (100 * count / self.total for count in (self.exact, self.near))
        return f"{exact:.1f} % exact, {near:.1f} % exact or near, of {self.total}"


def measure_trained(entries: Sequence[Entry], answerer: Answerer) -> Agreement:
    """Measure on the wordings that training showed, as they stand in the corpus."""
    return _measure([(w, entry.answer) for entry in entries for w in entry.wordings], answerer)


def measure_held_out(entries: Sequence[Entry], answerer: Answerer) -> Agreement:
    """Measure on the wordings that training never showed."""
    return _measure([(w, entry.answer) for entry in entries for w in entry.held_out], answerer)


def is_near(given: str, expected: str) -> bool:
    """Tell whether two answers are the same but for a slip of a word or two."""
    matcher = difflib.SequenceMatcher(None, given, expected, autojunk=False)
    return given == expected or matcher.ratio() >= NEAR


def _measure(pairs: Sequence[tuple[str, str]], answerer: Answerer) -> Agreement:
    given = answerer([question for question, _ in pairs])
    both = [(text, expected) for text, (_, expected) in zip(given, pairs, strict=True)]
    return Agreement(
        exact=sum(text == expected for text, expected in both),
        near=sum(is_near(text, expected) for text, expected in both),
        total=len(both),
    )
