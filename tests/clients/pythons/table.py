"""
The tables of docs/clients.md that say where the wheel was run, and where it could be installed.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.clients.pythons.installation import TOOLS, WAYS
from tests.clients.pythons.interpreter import VERSIONS
from tests.clients.pythons.wheels import FAILS, PLATFORMS

WORKS, NOT_RUN = "works", "not run"
_BEGIN: Final = "<!-- bin/test-client-pythons writes these tables -->\n"
_END: Final = "<!-- end of the tables -->\n"
RUN_HEAD: Final = (
    "Python",
    "where it is from",
    "pip",
    *(f"{name} {version}" for name, version in TOOLS.items()),
)
WHEELS_HEAD: Final = ("wheels for", *VERSIONS)


@dataclass(frozen=True, slots=True)
class Trial:
    """
    What became of the wheel in one Python.

    Attributes:
        version: Whole, or the minor one where there was none.

        faults: By each of `WAYS` that was tried; "" where nothing was wrong.
    """

    version: str
    origin: str
    faults: Mapping[str, str]


def make_tables(trials: Iterable[Trial], wheels: Mapping[str, Mapping[str, str]]) -> str:
    """Give both tables: of *trials*, and of the *wheels* of each version by platform."""
    run = [RUN_HEAD, *(_row(trial) for trial in trials)]
    there = [(name, *(wheels[version][name] for version in VERSIONS)) for name in PLATFORMS]
    return f"{_format(run)}\n{_format([WHEELS_HEAD, *there])}"


def _row(trial: Trial) -> tuple[str, ...]:
    cells = (_cell(trial.faults.get(way)) for way in WAYS)
    return (trial.version, trial.origin, *cells)


def _cell(fault: str | None) -> str:
    if fault is None:
        return NOT_RUN
    return FAILS if fault else WORKS


def _format(rows: Sequence[Sequence[str]]) -> str:
    ruled = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(row)} |\n" for row in ruled)


def read_tables(page: str) -> list[list[tuple[str, ...]]]:
    """Give the rows of both tables of *page*, heads first."""
    return [
        [_read_row(line) for line in table.splitlines() if not line.startswith("| ---")]
        for table in _find(page)[1].strip().split("\n\n")
    ]


def _read_row(line: str) -> tuple[str, ...]:
    return tuple(cell.strip() for cell in line.strip("|").split("|"))


def put_tables(page: str, tables: str) -> str:
    """Give *page* with *tables* in place of those that it has."""
    found = _find(page)
    return page[: found.start(1)] + tables + page[found.end(1) :]


def _find(page: str) -> re.Match[str]:
    (found,) = re.finditer(f"{re.escape(_BEGIN)}(.*?){re.escape(_END)}", page, re.DOTALL)
    return found
