"""
A report: what each check of a deployment came to, and the evidence file that keeps it.

It holds names, digests, times and AWS's words of refusal; never a question, an answer or a
credential.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from app.chatbot.console import clean

How = Literal["live", "by inspection"]


class Outcome(StrEnum):
    """What a check came to; one that was not run proves nothing."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not run"


class CheckError(Exception):
    """A check failed; the message says what was seen instead."""


class NotRunError(Exception):
    """A check could not be run; the message says why."""


@dataclass(frozen=True, slots=True)
class Result:
    """
    One check.

    Attributes:
        how: `live` when the deployment itself was asked.

        text: One sentence.

        facts: Digests and the like, for the evidence file.
    """

    name: str
    how: How
    outcome: Outcome
    text: str
    seconds: float
    facts: Mapping[str, object] = field(default_factory=dict)

    def describe(self) -> str:
        """Give the line that a person reads; hosts' own words in it do nothing to a terminal."""
        return clean(f"{self.outcome:8} {self.name} ({self.how}): {self.text}")

    def to_dict(self) -> dict[str, object]:
        """Give the JSON object of the evidence file."""
        return {
            "check": self.name,
            "how": self.how,
            "outcome": str(self.outcome),
            "text": self.text,
            "seconds": round(self.seconds, 3),
            "facts": dict(self.facts),
        }


@dataclass(slots=True)
class Report:
    """
    All checks of one run.

    Attributes:
        addresses: Of the deployment: URL and ARNs.
    """

    started: datetime
    addresses: Mapping[str, str]
    results: list[Result] = field(default_factory=list)

    @property
    def outcome(self) -> Outcome:
        """The worst of all: failed, then not run, then passed; with no result, not run."""
        outcomes = {result.outcome for result in self.results}
        if Outcome.FAILED in outcomes:
            return Outcome.FAILED
        return Outcome.PASSED if outcomes == {Outcome.PASSED} else Outcome.NOT_RUN

    def to_dict(self) -> dict[str, object]:
        """Give what the evidence file holds."""
        return {
            "started": self.started.isoformat(),
            "outcome": str(self.outcome),
            "deployment": dict(self.addresses),
            "checks": [result.to_dict() for result in self.results],
        }

    def write(self, folder: Path) -> Path:
        """Write the evidence file into *folder*; give its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.started:%Y%m%dT%H%M%S}Z.json"
        path.write_text(json.dumps(self.to_dict(), indent=2) + "\n")
        return path
