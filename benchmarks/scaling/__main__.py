"""
What a fleet that scales costs, and whom it lets wait: `python -m benchmarks.scaling [FILE]`.

Prints the table of README.md; with FILE, writes there the picture of one day.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Final

from benchmarks.scaling.day import Day, simulate
from benchmarks.scaling.picture import draw
from infra.rolling import ANSWERS_AN_ENCLAVE

BUSIEST: Final = 2400  # questions in the busiest hour
_SEEDS: Final = range(5)
_FLEETS: Final = (
    *((2, 8, target) for target in (4, 6, 8, 12)),
    *((1, 8, target) for target in (4, 8, 12)),
    *((size, size, ANSWERS_AN_ENCLAVE) for size in (1, 2, 3, 4)),
)


def pictured() -> Day:
    """Give the day that docs/operations.md shows."""
    return simulate(BUSIEST, 2, 8, ANSWERS_AN_ENCLAVE)


def main(arguments: Sequence[str]) -> None:
    """Print the table, and draw the day where *arguments* name a file."""
    print("| hosts | answers at once | host-hours | 95 % waited | 99 % waited | longest wait |")
    print("|---|---|---|---|---|---|")
    for least, most, target in _FLEETS:
        days = [simulate(BUSIEST, least, most, target, seed=seed) for seed in _SEEDS]
        waits = [[day.waited(share) for day in days] for share in (0.95, 0.99, 1)]
        hosts, goal = (f"{least} to {most}", str(target)) if most > least else (str(most), "")
        cells = [f"{median(seconds):,.0f} s" for seconds in waits]
        hours = f"{median(day.host_hours for day in days):.0f}"
        print(f"| {' | '.join((hosts, goal, hours, *cells))} |")
    for name in arguments[:1]:
        Path(name).write_text(draw(pictured()))


if __name__ == "__main__":
    main(sys.argv[1:])
