"""
Runs: what contenders have done so far, kept on disk so that a later start goes on from there.
"""

import itertools
import json
import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.engine.contender import Answers
from benchmarks.engine.machine import describe_machine, write_report
from benchmarks.engine.rivals import Rival

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Run:
    """One round of one contender with one number of askers."""

    contender: str
    askers: int
    round: int
    other_cores: float
    answers: Answers

    @property
    def key(self) -> Key:
        """What it counts for."""
        return self.contender, self.askers


class Runs:
    """
    All runs of one shape.

    Attributes:
        machine: Where the first of them was measured.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        kept = json.loads(path.read_bytes()) if path.exists() else {}
        self.machine: dict[str, object] = kept.get("machine") or describe_machine()
        self._bandwidths: list[float] = kept.get("bandwidths", [])
        self._runs = [
            Run(**{**run, "answers": Answers(**run["answers"])}) for run in kept.get("runs", [])
        ]

    def has(self, contender: str, askers: int, number: int) -> bool:
        """Tell whether that run has been."""
        return any(run.key == (contender, askers) and run.round == number for run in self._runs)

    def forget(self, contenders: Collection[str]) -> None:
        """Forget the runs of *contenders*, and where they were measured if that is all of them."""
        self._runs = [run for run in self._runs if run.contender not in contenders]
        if not self._runs:
            self.machine, self._bandwidths = describe_machine(), []

    def add(self, run: Run) -> None:
        """Keep *run*."""
        self._runs.append(run)
        self._write()

    def add_bandwidth(self, found: float | None) -> None:
        """Keep how fast memory was read in the minute of the runs that follow."""
        self._bandwidths += [] if found is None else [found]
        self._write()

    def by_key(self) -> dict[Key, list[Answers]]:
        """Give the answers of all runs, by contender and askers."""
        keys = dict.fromkeys(run.key for run in self._runs)
        return {key: [run.answers for run in self._runs if run.key == key] for key in keys}

    def most_other_cores(self, key: Key) -> float:
        """Give how many cores were busy with other work in the run where it was most."""
        return max(run.other_cores for run in self._runs if run.key == key)

    def bandwidth(self) -> float | None:
        """Give the median of what was read a second; None where nothing could be measured."""
        return statistics.median(self._bandwidths) if self._bandwidths else None

    def _write(self) -> None:
        report = {
            "machine": self.machine,
            "bandwidths": self._bandwidths,
            "runs": [asdict(run) for run in self._runs],
        }
        write_report(self._path, report)


def plan_turns(
    rivals: Sequence[Rival], askers: Sequence[int], rounds: int
) -> Iterator[tuple[int, int, Rival]]:
    """
    Give rounds, askers and contenders in the order of what should not be missing.

    All rounds of one asker come first, which take least; then many before few.
    """
    many = sorted((n for n in askers if n > 1), reverse=True)
    for counts in ([n for n in askers if n == 1], many):
        for number, count in itertools.product(range(1, rounds + 1), counts):
            for rival in rivals:
                most = rounds if count == 1 else rival.most_rounds
                if count <= rival.most_askers and number <= most:
                    yield number, count, rival
