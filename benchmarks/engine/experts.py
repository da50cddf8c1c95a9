"""
What a step of a mixture of experts takes beside a model that has only what a token is routed to.

`python -m benchmarks.engine.experts` loads both in 8 and in 4 bits, a process each, and lets them
take turns. If only the experts that are routed to are read, a token alone takes both as long.
Prints the table, puts it into README.md and writes results/experts.json.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.one_setting import KINDS
from benchmarks.engine.set_up import require_made
from benchmarks.engine.settings import Way, start
from benchmarks.engine.shapes import EXPERTS, ROOT, package_of
from benchmarks.engine.table import put_table

_FOLDER: Final = ROOT / "benchmarks" / "engine"
_PAIRS: Final = (("qwen3-moe", "qwen3-moe-active"), ("gpt-oss", "gpt-oss-active"))
_WEIGHTS: Final = ("int8", "int4")
# As served, with AMX where it is, and as without.
_WAYS: Final[Mapping[str, Mapping[str, str]]] = {
    "": {},
    ", without AMX": {"INFERENCE_PRECISION_HINT": "f32"},
}
_LEAST_ROUNDS: Final = 5
_MINUTES: Final = 2.0
_NAME: Final = "experts"


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.experts", description=__doc__
    )
    parser.add_argument("--minutes", type=float, default=_MINUTES, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=describe_machine()["cores"])
    parser.add_argument("--quick", action="store_true", help="a second; nothing is kept")
    options = parser.parse_args()
    for name in EXPERTS:
        require_made(EXPERTS[name])
    other, machine = OtherWork(), describe_machine()
    seconds = (
        1 if options.quick else 60 * options.minutes / len(_PAIRS) / len(_WEIGHTS) / len(_WAYS)
    )
    rows = [
        _compare(pair, weights, way, options.threads, seconds)
        for pair in _PAIRS
        for weights in _WEIGHTS
        for way in _WAYS
    ]
    report = {"machine": machine, "most_other_cores": other.cores(), "rows": rows}
    lines = list(_write_table(report))
    sys.stdout.write("\n".join(lines) + "\n")
    if not options.quick:
        write_report(_FOLDER / "results" / f"{_NAME}.json", report)
        put_table(_FOLDER / "README.md", _NAME, lines)


def _compare(
    pair: Sequence[str], weights: str, way: str, threads: int, seconds: float
) -> dict[str, object]:
    """Let both models of *pair* take turns."""
    packages = [package_of(EXPERTS[name], weights) for name in pair]
    with (
        start(Way(pair[0], weights, _WAYS[way]), packages[0], threads=threads) as whole,
        start(Way(pair[1], weights, _WAYS[way]), packages[1], threads=threads) as active,
    ):
        end, rounds = time.monotonic() + seconds, 0
        while rounds < _LEAST_ROUNDS or time.monotonic() < end:
            for kind in KINDS:
                for run in (whole, active):
                    run.times[kind].append(run.tell(time=kind)["seconds"])
            rounds += 1
        least = [{kind: min(run.times[kind]) for kind in KINDS} for run in (whole, active)]
    return {
        "name": pair[0],
        "weights": f"{weights}{way}",
        "rounds": rounds,
        "bytes": [_bytes(package) for package in packages],
        "whole": least[0],
        "active": least[1],
    }


def _bytes(package: Path) -> int:
    return (package / "openvino_model.bin").stat().st_size


def _write_table(report: Mapping[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    yield f"{machine['cores']} cores of {machine['processor']},"
    yield f"{', '.join(machine['instructions'])},"
    yield f"{machine['system']}, {machine['taken']}; {report['most_other_cores']:.1f} cores were"
    yield "busy with other work. Milliseconds a step, the fastest, and times the smaller model's."
    yield ""
    yield "| layers, weights | bytes, all and active | " + " | ".join(KINDS) + " |"
    yield "|---" * (2 + len(KINDS)) + "|"
    for row in report["rows"]:
        whole, active = (f"{size / 1e6:.0f}" for size in row["bytes"])
        times = (
            f"{1000 * row['whole'][kind]:.1f} ({row['whole'][kind] / row['active'][kind]:.2f} x)"
            for kind in KINDS
        )
        yield f"| {row['name']}, {row['weights']} | {whole}, {active} MB | {' | '.join(times)} |"


if __name__ == "__main__":
    main()
