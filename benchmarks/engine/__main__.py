"""
The engine and the whole private path beside other engines, in one run on one machine.

Models of two shapes with random weights answer 128 tokens to 128, alone and for many askers at
the same time. Every contender is loaded at once and they take turns, a round after the other;
medians over the rounds are printed and written, with machine and versions, as JSON.
"""

import argparse
import itertools
import math
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from benchmarks.engine.bandwidth import measure_bandwidth
from benchmarks.engine.contender import Answers, Prompt
from benchmarks.engine.figures import Figure, judge, make_figure, roofline_share
from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.prompts import make_prompts
from benchmarks.engine.rivals import BENCH_PYTHON, NAMES, RIVALS, Contender, start_rivals
from benchmarks.engine.shapes import (
    MOST_ASKERS,
    NEW_TOKENS,
    PROMPT_TOKENS,
    ROOT,
    SHAPES,
    Shape,
    package_of,
    source_of,
)
from benchmarks.engine.table import write_table

_RESULTS: Final = ROOT / "benchmarks" / "engine" / "results"
_ASKERS: Final = (1, 4, 8, 16)
_ONE_AT_A_TIME: Final = ("original",)  # more askers only wait longer: one is enough to time
_BANDWIDTH_MIB: Final = 4096  # far more than caches hold
_QUICK_ROUNDS: Final = 1
_WARM_TOKENS: Final = 8
_EPILOG: Final = f"""\
contenders: {", ".join(NAMES)}

before the first run:
  bin/setup dev
  CC=clang CXX=clang++ CMAKE_ARGS=-DGGML_NATIVE=ON VENV=.venv-bench bin/setup bench
      compiles llama.cpp for this machine, 6 to 15 minutes; GCC 12.2's AMX code crashes
the first run makes the models below .cache, 7 GB a shape.

examples:
  .venv/bin/python -m benchmarks.engine                          everything: about an hour
  .venv/bin/python -m benchmarks.engine --quick                  one round: some 12 minutes
  .venv/bin/python -m benchmarks.engine --only original ours-private --askers 1 16
"""

Key = tuple[str, int]


def main() -> int:
    """Measure, print and write."""
    options = _parse()
    shapes = [SHAPES[name] for name in options.model]
    for shape in shapes:
        _prepare(shape, options.only)
        report = _measure(shape, options)
        print("\n".join(write_table(report)))
        path = options.results / f"{shape.name}.json"
        write_report(path, report)
        _note(f"written: {path}")
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine",
        description=__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    cores = describe_machine()["cores"]
    counts = range(1, MOST_ASKERS + 1)
    add("--only", nargs="+", choices=NAMES, metavar="CONTENDER", default=NAMES)
    add("--askers", nargs="+", type=int, choices=counts, metavar="N", default=_ASKERS,
        help="who ask at the same time; default: 1 4 8 16")  # fmt: skip
    add("--model", nargs="+", choices=SHAPES, help="default: all; quick: the first")
    add("--rounds", type=int, help="default: 3; quick: 1")
    add("--minutes", type=float, default=math.inf, help="begin no further round after so many")
    add("--quick", action="store_true", help="one round of one model")
    add("--threads", type=int, default=cores, help="of each engine; default: all cores")
    add("--results", type=Path, default=_RESULTS, help="folder; default: %(default)s")
    options = parser.parse_args()
    options.model = options.model or list(SHAPES)[: 1 if options.quick else None]
    options.rounds = options.rounds or (_QUICK_ROUNDS if options.quick else 3)
    return options


def _prepare(shape: Shape, names: Sequence[str]) -> None:
    """Make what is not there of *shape*'s models."""
    subprocess.run(
        (BENCH_PYTHON, "-m", "benchmarks.engine.make_models", shape.name),
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    for weights in {"int4" if "int4" in name else "int8" for name in names if "ours" in name}:
        package = package_of(shape, weights)
        if not package.exists():
            _note(f"converting {shape.name} to {weights}")
            wanted = (f"--weights={weights}", "--label=random weights", f"--out={package}")
            command = (ROOT / "bin" / "save-model", source_of(shape), *wanted)
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _measure(shape: Shape, options: argparse.Namespace) -> dict[str, object]:
    """Run all rounds and give the report."""
    machine = describe_machine()
    bandwidths = [measure_bandwidth(options.threads, mib=_BANDWIDTH_MIB)]
    prompts = make_prompts(shape, MOST_ASKERS, PROMPT_TOKENS)
    names = [name for name in NAMES if name in options.only]
    with start_rivals(shape, names, threads=options.threads, note=_note) as contenders:
        runs, others = _run_rounds(contenders, prompts, options)
        loaded = [
            {
                **_describe(contender.name, shape),
                "load_seconds": contender.load_seconds,
                "peak_bytes": contender.peak_bytes(),
                "versions": contender.versions,
            }
            for contender in contenders
        ]
    bandwidths.append(measure_bandwidth(options.threads, mib=_BANDWIDTH_MIB))
    bandwidth = max(filter(None, bandwidths), default=None)  # other work only ever takes of it
    figures = {key: make_figure(answers) for key, answers in runs.items()}
    weights = {name: _weights_bytes(name, shape) for name in names}
    return {
        "shape": shape.name,
        "prompt_tokens": PROMPT_TOKENS,
        "new_tokens": NEW_TOKENS,
        "threads": options.threads,
        "rounds": max(figure.runs for figure in figures.values()),
        "askers": list(options.askers),
        "machine": machine,
        "bytes_per_second": bandwidth,
        "contenders": loaded,
        "figures": [
            _encode(key, figure, weights[key[0]], bandwidth, max(others[key]))
            for key, figure in figures.items()
        ],
        "goals": [
            {**asdict(outcome.goal), "ratio": outcome.ratio, "reached": outcome.reached}
            for outcome in judge(figures)
        ],
    }


def _run_rounds(
    contenders: Sequence[Contender], prompts: Sequence[Prompt], options: argparse.Namespace
) -> tuple[dict[Key, list[Answers]], dict[Key, list[float]]]:
    """Let all contenders take turns; give their answers, and how busy the machine was otherwise."""
    runs: dict[Key, list[Answers]] = {}
    others: dict[Key, list[float]] = {}
    for contender in contenders:
        contender.ask(prompts[:1], _WARM_TOKENS)
    end = time.monotonic() + 60 * options.minutes
    for number, count in _turns(options.askers, options.rounds):
        if number > 1 and time.monotonic() > end:
            continue
        for contender in contenders:
            if count > 1 and contender.name in _ONE_AT_A_TIME:
                continue
            other = OtherWork()
            answers = contender.ask(prompts[:count], NEW_TOKENS)
            key = contender.name, count
            runs.setdefault(key, []).append(answers)
            others.setdefault(key, []).append(other.cores())
            speed = sum(answers.tokens) / answers.seconds
            beside = f"{others[key][-1]:.2f} cores busy with other work"
            _note(f"round {number}  {contender.name:20} {count:2}  {speed:6.1f} tok/s  {beside}")
    return runs, others


def _turns(askers: Sequence[int], rounds: int) -> Iterator[tuple[int, int]]:
    """Give rounds and askers: all rounds of one asker first, which take least, then the others."""
    for counts in ([n for n in askers if n == 1], [n for n in askers if n > 1]):
        yield from itertools.product(range(1, rounds + 1), counts)


def _describe(name: str, shape: Shape) -> dict[str, object]:
    what = next(rival.what for rival in RIVALS if rival.name == name)
    return {"name": name, "what": what, "weights_bytes": _weights_bytes(name, shape)}


def _weights_bytes(name: str, shape: Shape) -> float:
    """Give the bytes of weights that every token reads; input and output share one table."""
    rival = next(rival for rival in RIVALS if rival.name == name)
    return rival.weights_of(shape).stat().st_size * rival.share


def _encode(
    key: Key, figure: Figure, weights_bytes: float, bandwidth: float | None, other: float
) -> dict[str, object]:
    share = None
    if bandwidth:
        share = roofline_share(figure, weights_bytes=weights_bytes, bytes_per_second=bandwidth)
    return {
        "contender": key[0], **asdict(figure), "roofline_share": share, "most_other_cores": other,
    }  # fmt: skip


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
