"""
A finding: what one check came to, in a sentence, and what to do about it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Final


class Level(StrEnum):
    """How bad it is; only a problem keeps from deploying."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_WIDTH: Final = max(map(len, Level))


@dataclass(frozen=True, slots=True)
class Finding:
    """
    What one check came to.

    Attributes:
        check: Its name, the same in every run.

        text: One sentence, without its full stop.

        remedy: What to do; empty where all is well.

        consent: The option by which somebody agrees to deploy all the same; empty where nobody
            has to.
    """

    check: str
    level: Level
    text: str
    remedy: str = ""
    consent: str = ""

    def lines(self) -> Iterator[str]:
        """Give the finding as a person reads it."""
        yield f"{self.level:{_WIDTH}}  {self.check}: {self.text}"
        if self.remedy:
            yield f"{'':{_WIDTH}}  -> {self.remedy}"

    def to_dict(self) -> dict[str, str]:
        """Give the finding as `--json` prints it."""
        values = {name: str(value) for name, value in asdict(self).items()}
        return values if self.consent else {n: v for n, v in values.items() if n != "consent"}


def counted(number: int, thing: str) -> str:
    """Give *number* of a *thing* in words: 1 problem, 2 problems."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def ok(check: str, text: str) -> Finding:
    """Give a finding that all is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, remedy: str, *, consent: str = "") -> Finding:
    """Give a finding that somebody should know of, and agree to where *consent* names an option."""
    return Finding(check, Level.WARNING, text, remedy, consent)


def problem(check: str, text: str, remedy: str) -> Finding:
    """Give a finding that keeps from deploying."""
    return Finding(check, Level.PROBLEM, text, remedy)


def has_problem(findings: Iterable[Finding]) -> bool:
    """Tell whether one of *findings* keeps from deploying."""
    return any(finding.level is Level.PROBLEM for finding in findings)
