"""
The engine and the whole private path beside other engines, in one run on one machine.

Models of two shapes with random weights answer 128 tokens to 128, alone and for many askers at
the same time. Every contender is loaded at once and they take turns, a round after the other. Then
a copying task shows what prompt lookup gains. Medians are printed, put into README.md, and written,
with machine and versions, as JSON. What a run had no time for, the next one adds.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

from benchmarks.engine.bandwidth import measure_bandwidth
from benchmarks.engine.figures import (
    LEAST_ROOFLINE,
    ROOFLINE_BY,
    Figure,
    judge,
    make_figure,
    roofline_share,
)
from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.prompts import make_prompts
from benchmarks.engine.rivals import DEFAULTS, NAMES, RIVALS, Contender, Rival, start_rivals
from benchmarks.engine.runs import Run, Runs, plan_turns
from benchmarks.engine.set_up import require_made
from benchmarks.engine.shapes import (
    CACHE,
    MOST_ASKERS,
    NEW_TOKENS,
    PROMPT_TOKENS,
    ROOT,
    SHAPES,
    Shape,
)
from benchmarks.engine.table import put_table, write_table

_FOLDER: Final = ROOT / "benchmarks" / "engine"
_RESULTS: Final = _FOLDER / "results"
_README: Final = _FOLDER / "README.md"
_ASKERS: Final = (1, 4, 8, 16)
_BANDWIDTH_MIB: Final = 4096  # far more than caches hold
_WARM_TOKENS: Final = 8
_MINUTES: Final = 20.0
_COPYING_SECONDS: Final = 150
_QUICK: Final = {"rounds": 1, "askers": (1, 2), "minutes": 5.0, "new_tokens": 8}
_EPILOG: Final = f"""\
contenders: {", ".join(NAMES)}
without --only: {", ".join(DEFAULTS)}

before the first run: .venv/bin/python -m benchmarks.engine.set_up

examples:
  .venv/bin/python -m benchmarks.engine           20 minutes; once more adds what is missing
  .venv/bin/python -m benchmarks.engine --anew    forget what earlier runs have measured
  .venv/bin/python -m benchmarks.engine --quick   does all of it work? Nothing is kept
  .venv/bin/python -m benchmarks.engine --only original ours-private --askers 1 16
"""


def main() -> int:
    """Measure, print and write."""
    options = _parse()
    shapes = [SHAPES[name] for name in options.model]
    for shape in shapes:
        require_made(shape, rivals=True)
    begun = time.monotonic()
    for at, shape in enumerate(shapes):
        left = 60 * options.minutes - _COPYING_SECONDS - (time.monotonic() - begun)
        report = _measure(shape, options, left / (len(shapes) - at))
        _publish(report, shape, options)
    if not options.quick:
        _measure_copying()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    counts = range(1, MOST_ASKERS + 1)
    add("--only", nargs="+", choices=NAMES, metavar="CONTENDER", default=DEFAULTS)
    add("--askers", nargs="+", type=int, choices=counts, metavar="N", default=_ASKERS,
        help="who ask at the same time; default: 1 4 8 16")  # fmt: skip
    add("--model", nargs="+", choices=SHAPES, default=list(SHAPES), help="default: all")
    add("--rounds", type=int, default=3, help="default: 3")
    add("--minutes", type=float, default=_MINUTES, help="for all; default: %(default)s")
    add("--quick", action="store_true", help="one round of few tokens; nothing is kept")
    add("--anew", action="store_true", help="forget earlier runs of the contenders that take part")
    add("--threads", type=int, default=describe_machine()["cores"],
        help="of each engine; default: all cores")  # fmt: skip
    parser.set_defaults(new_tokens=NEW_TOKENS)
    options = parser.parse_args()
    for name, value in _QUICK.items() if options.quick else ():
        setattr(options, name, value)
    return options


def _measure(shape: Shape, options: argparse.Namespace, seconds: float) -> dict[str, object]:
    """Run what is missing of all rounds, as far as *seconds* reach, and give the report."""
    end = time.monotonic() + seconds
    place = CACHE / "runs" / f"{shape.name}{'-quick' if options.quick else ''}.json"
    if options.quick:
        place.unlink(missing_ok=True)
    runs = Runs(place)
    if options.anew:
        runs.forget(options.only)
    names = [name for name in NAMES if name in options.only]
    with start_rivals(shape, names, threads=options.threads, note=_note) as contenders:
        _run_rounds(shape, contenders, runs, options, end)
        loaded = [_describe(contender, shape) for contender in contenders]
    figures = {key: make_figure(answers) for key, answers in runs.by_key().items()}
    bandwidth = runs.bandwidth()
    return {
        "shape": shape.name,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": options.new_tokens,
        "threads": options.threads,
        "askers": list(options.askers),
        "machine": runs.machine,
        "bytes_per_second": bandwidth,
        "contenders": loaded,
        "figures": [_encode(key, figure, runs) for key, figure in figures.items()],
        "goals": _judge(shape, figures, bandwidth),
    }


def _run_rounds(
    shape: Shape,
    contenders: Sequence[Contender],
    runs: Runs,
    options: argparse.Namespace,
    end: float,
) -> None:
    """Let all contenders take turns, and keep what comes of it."""
    prompts = make_prompts(shape, MOST_ASKERS, PROMPT_TOKENS)
    for contender in contenders:
        contender.ask(prompts[:1], _WARM_TOKENS)
    by_name = {contender.name: contender for contender in contenders}
    rivals = [_rival(name) for name in by_name]
    measured = 0
    for number, count, rival in plan_turns(rivals, options.askers, options.rounds):
        if runs.has(rival.name, count, number) or time.monotonic() > end:
            continue
        if count == 1 and measured != number:
            measured = number
            runs.add_bandwidth(measure_bandwidth(options.threads, mib=_BANDWIDTH_MIB))
        other = OtherWork()
        answers = by_name[rival.name].ask(prompts[:count], options.new_tokens)
        run = Run(rival.name, count, number, other.cores(), answers)
        runs.add(run)
        speed = sum(answers.tokens) / answers.seconds
        beside = f"{run.other_cores:.2f} cores busy with other work"
        _note(f"round {number}  {rival.name:20} {count:2}  {speed:6.1f} tok/s  {beside}")


def _measure_copying() -> None:
    """Have a process of its own measure what prompt lookup gains, print it and write it."""
    _note("the copying task")
    command = (sys.executable, "-m", "benchmarks.engine.lookup", f"--seconds={_COPYING_SECONDS}")
    subprocess.run(command, cwd=ROOT, check=True)


def _describe(contender: Contender, shape: Shape) -> dict[str, object]:
    rival = _rival(contender.name)
    return {
        "name": rival.name,
        "what": rival.what,
        "weights_bytes": _weights_bytes(rival, shape),
        "load_seconds": contender.load_seconds,
        "peak_bytes": contender.peak_bytes(),
        "versions": contender.versions,
    }


def _rival(name: str) -> Rival:
    return next(rival for rival in RIVALS if rival.name == name)


def _weights_bytes(rival: Rival, shape: Shape) -> float:
    """Give the bytes of weights that every token reads; input and output share one table."""
    return rival.weights_of(shape).stat().st_size * rival.share


def _encode(key: tuple[str, int], figure: Figure, runs: Runs) -> dict[str, object]:
    return {"contender": key[0], **asdict(figure), "most_other_cores": runs.most_other_cores(key)}


def _judge(
    shape: Shape, figures: dict[tuple[str, int], Figure], bandwidth: float | None
) -> list[dict[str, Any]]:
    """Give every goal with what was measured."""
    goals: list[dict[str, Any]] = [
        {
            "what": f"{goal.ours}, {goal.askers} askers, to {goal.theirs}, {goal.their_askers}"
            f"{', generated tokens alone' if goal.decode else ''}",
            "least": goal.least, "ratio": outcome.ratio, "reached": outcome.reached,
        }
        for outcome in judge(figures)
        for goal in (outcome.goal,)
    ]  # fmt: skip
    for name in ROOFLINE_BY if bandwidth else ():
        if alone := figures.get((name, 1)):
            read = _weights_bytes(_rival(name), shape)
            share = roofline_share(alone, weights_bytes=read, bytes_per_second=bandwidth or 1)
            goals.append(
                {
                    "what": f"{name}, 1 asker, to the roofline, its prompt included",
                    "least": LEAST_ROOFLINE, "ratio": share, "reached": share >= LEAST_ROOFLINE,
                }
            )  # fmt: skip
    return goals


def _publish(report: dict[str, Any], shape: Shape, options: argparse.Namespace) -> None:
    lines = list(write_table(report))
    print("\n".join(lines), flush=True)
    if not options.quick:
        write_report(_RESULTS / f"{shape.name}.json", report)
        put_table(_README, shape.name, lines)
        _note(f"written: {_README}")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
