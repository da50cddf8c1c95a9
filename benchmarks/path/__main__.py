"""
What the private path costs: processor time at both ends, and speed for sixteen askers.

Prints each figure beside the same one of --before, a result of this program or the one kept here,
with the ratio and the goal, and writes it. Takes three to five minutes.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.prompts import make_prompts
from benchmarks.engine.rivals import start_rivals
from benchmarks.engine.shapes import (
    MOST_ASKERS,
    NEW_TOKENS,
    PROMPT_TOKENS,
    ROOT,
    SHAPES,
    package_of,
)
from benchmarks.path.costs import Row, measure_costs

_RESULTS: Final = ROOT / "benchmarks" / "path" / "results"
_SHAPE: Final = SHAPES["bloom-560m"]
_PAIR: Final = ("ours-bare", "ours-private")
_WARM_TOKENS: Final = 8
_GOALS: Final = {
    "new session": "60 ms at most",
    "next turn": "30 ms at most",
    "16 askers": "5 % at most",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure, its unit in its name."""

    name: str
    value: float


def main() -> int:
    """Measure, print and write."""
    options = _parse()
    if not package_of(_SHAPE, "int8").exists() and options.rounds:
        raise SystemExit(
            f"no package at {package_of(_SHAPE, 'int8')}: .venv/bin/python -m benchmarks.engine "
            f"--quick --only ours-bare --model {_SHAPE.name} makes it; --rounds 0 leaves it out"
        )
    report: dict[str, object] = {"machine": describe_machine(), "questions": options.questions}
    report["milliseconds"] = measure_costs(options.questions)
    if options.rounds:
        report["tokens_per_second"] = _measure_speeds(options)
    print("\n".join(_table(_figures(report), _figures(json.loads(options.before.read_text())))))
    write_report(options.result, report)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.path",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add, kept = parser.add_argument, "default: %(default)s"
    add("--questions", type=int, default=20, help=f"of each situation; {kept}")
    add("--rounds", type=int, default=3, help=f"of sixteen askers; 0 needs no model; {kept}")
    add("--threads", type=int, default=describe_machine()["cores"], help=f"of the engine; {kept}")
    add("--before", type=Path, default=_RESULTS / "before.json", help=kept)
    add("--result", type=Path, default=_RESULTS / "now.json", help=kept)
    return parser.parse_args()


def _measure_speeds(options: argparse.Namespace) -> dict[str, float]:
    """Give tokens a second for sixteen askers, bare and through the path, in turns; medians."""
    prompts = make_prompts(_SHAPE, MOST_ASKERS, PROMPT_TOKENS)
    speeds: dict[str, list[float]] = {name: [] for name in _PAIR}
    with start_rivals(_SHAPE, _PAIR, threads=options.threads, note=_note) as contenders:
        for contender in contenders:
            contender.ask(prompts[:1], _WARM_TOKENS)
        for _ in range(options.rounds):
            for contender in contenders:
                other = OtherWork()
                answers = contender.ask(prompts, NEW_TOKENS)
                speeds[contender.name].append(sum(answers.tokens) / answers.seconds)
                _note(
                    f"{contender.name}: {speeds[contender.name][-1]:.1f} tokens a second, beside "
                    f"{other.cores():.2f} cores busy with other work"
                )
    return {name: statistics.median(found) for name, found in speeds.items()}


def _figures(report: Mapping[str, object]) -> list[Figure]:
    rows: list[Row] = report["milliseconds"]  # type: ignore[assignment]  # as written above
    figures = [
        Figure(f"{row['situation']}, padding {row['padding']}, {end}, ms", row[end])
        for row in rows
        for end in ("both_ends", "chatbot", "enclave", "parent")
    ]
    speeds: dict[str, float] | None = report.get("tokens_per_second")  # type: ignore[assignment]
    if speeds:
        bare, private = (speeds[name] for name in _PAIR)
        figures.append(Figure("16 askers, slower than bare, %", 100 * (1 - private / bare)))
    return figures


def _table(figures: list[Figure], before: list[Figure]) -> Iterator[str]:
    old = {figure.name: figure.value for figure in before}
    yield "| figure | before | now | ratio | goal |"
    yield "|---|---|---|---|---|"
    for figure in figures:
        was = old.get(figure.name)
        cells = [f"{was:.1f}" if was else "", f"{figure.value:.1f}"]
        cells.append(f"{figure.value / was:.2f}" if was else "")
        yield f"| {figure.name} | {' | '.join(cells)} | {_goal(figure.name)} |"


def _goal(name: str) -> str:
    if "both_ends" not in name and "askers" not in name:
        return ""
    return next((goal for start, goal in _GOALS.items() if name.startswith(start)), "")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
