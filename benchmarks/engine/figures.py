"""
Figures: what is made of timings. Medians, ratios between contenders, and goals.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.engine.contender import Answers


@dataclass(frozen=True, slots=True)
class Figure:
    """
    Medians over the runs of one contender with one number of askers.

    Attributes:
        total_tokens_per_second: New tokens of all answers by the time until the last one ended.

        decode_tokens_per_second: New tokens after the first of each answer, by the time after the
            first of the last one: no prompt's time is in it.

        first_seconds: Until an asker's first token or text, the median over askers.

        last_first_seconds: The same of the asker who waited longest.

        runs: How many; `spread` is slowest and fastest of the totals.
    """

    askers: int
    total_tokens_per_second: float
    decode_tokens_per_second: float
    first_seconds: float
    last_first_seconds: float
    seconds: float
    runs: int
    spread: tuple[float, float]


def make_figure(runs: Sequence[Answers]) -> Figure:
    """
    Give the medians over *runs*, which all had as many askers.

    Raises:
        ValueError: There is no run, or they differ in askers.
    """
    askers = {len(run.tokens) for run in runs}
    if len(askers) != 1:
        raise ValueError(f"runs had {sorted(askers)} askers, expected one number")
    totals = [sum(run.tokens) / run.seconds for run in runs]
    return Figure(
        askers=askers.pop(),
        total_tokens_per_second=statistics.median(totals),
        decode_tokens_per_second=statistics.median(map(_decode_speed, runs)),
        first_seconds=statistics.median(statistics.median(run.first_seconds) for run in runs),
        last_first_seconds=statistics.median(max(run.first_seconds) for run in runs),
        seconds=statistics.median(run.seconds for run in runs),
        runs=len(runs),
        spread=(min(totals), max(totals)),
    )


def _decode_speed(run: Answers) -> float:
    return (sum(run.tokens) - len(run.tokens)) / (run.seconds - max(run.first_seconds))


def roofline_share(figure: Figure, *, weights_bytes: float, bytes_per_second: float) -> float:
    """
    Give how much of what memory allows one asker got, the prompt's time included.

    Every token reads all weights once, so no engine can make more than 1 of it.
    """
    return figure.total_tokens_per_second * weights_bytes / bytes_per_second


@dataclass(frozen=True, slots=True)
class Goal:
    """
    What is aimed at: *ours* makes at least *least* times the tokens per second of *theirs*.

    Attributes:
        their_askers: How many ask *theirs*.

        decode: Whether prompts are left out.
    """

    ours: str
    askers: int
    theirs: str
    their_askers: int
    least: float
    decode: bool = False

    def speed(self, figure: Figure) -> float:
        """Give the tokens a second of *figure* that count."""
        return figure.decode_tokens_per_second if self.decode else figure.total_tokens_per_second


GOALS = (
    Goal("ours-private", 8, "ours-private", 1, 5.0),
    Goal("ours-private", 16, "ours-private", 1, 6.5),
    Goal("ours-bare", 8, "ours-bare", 1, 5.5, decode=True),
    Goal("ours-bare", 16, "ours-bare", 1, 8.0, decode=True),
    Goal("ours-private", 8, "llama-Q8_0", 8, 3.0),
    Goal("ours-private", 16, "llama-Q8_0", 16, 3.0),
    Goal("ours-int4-private", 1, "llama-Q4_K_M", 1, 1.0),
    Goal("ours-private", 16, "ours-bare", 16, 0.95),  # the private path costs 5 % at most
)
LEAST_ROOFLINE = 0.9  # one asker's share
ROOFLINE_BY = ("ours-private", "ours-int4-private")


@dataclass(frozen=True, slots=True)
class Outcome:
    """A goal and the ratio that was measured."""

    goal: Goal
    ratio: float

    @property
    def reached(self) -> bool:
        """Whether it is at least what was aimed at."""
        return self.ratio >= self.goal.least


Figures = Mapping[tuple[str, int], Figure]


def judge(figures: Figures) -> list[Outcome]:
    """Give the outcome of every goal whose two sides were measured."""
    outcomes = []
    for goal in GOALS:
        ours = figures.get((goal.ours, goal.askers))
        theirs = figures.get((goal.theirs, goal.their_askers))
        if ours and theirs:
            outcomes.append(Outcome(goal, goal.speed(ours) / goal.speed(theirs)))
    return outcomes
