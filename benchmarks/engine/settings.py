"""
The engine's settings, each beside what it was weighed against: speed, quality and memory.

`python -m benchmarks.engine.settings` loads, for a line of the table, the same model in every way
that the line weighs, each in a process of its own; they take turns, a step of each kind, until the
line's share of the time is over. What counts is the fastest step of each kind, since other work
only ever slows one. Prints the table, puts it into docs/engine.md and writes results/settings.json.

`bin/setup dev` and `.venv/bin/python -m benchmarks.engine.set_up` come before. Ten minutes at most
on cores that have nothing else to do.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import tokenizers

from app.enclave.engine.prompt import plain_transcript
from app.protocol.question import Message
from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.one_setting import KINDS
from benchmarks.engine.set_up import require_made
from benchmarks.engine.shapes import CACHE, ROOT, SHAPES, Shape, package_of
from benchmarks.engine.table import put_table
from local.demo_model.corpus import read_corpus

_RESULTS: Final = ROOT / "benchmarks" / "engine" / "results" / "settings.json"
_PAGE: Final = ROOT / "docs" / "engine.md"
_DEMO: Final = ROOT / "local" / "demo_model" / "weights"
_END_ID: Final = 2
_MINUTES: Final = 9.0
_LEAST_ROUNDS: Final = 3
_TEXT_TOKENS: Final = 192
_COUNTED: Final = 48
_GROUP: Final = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
_PAGES: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


@dataclass(frozen=True, slots=True)
class Way:
    """
    One way to run a model.

    Attributes:
        weights: The package's, as `package_of` names it.

        more: The library's settings that differ from those served.

        environment: What the process is started with besides.
    """

    name: str
    weights: str = "int8"
    more: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Line:
    """A setting, and its ways; the first is the one that is served."""

    setting: str
    ways: Sequence[Way]
    shapes: Sequence[str] = tuple(SHAPES)


def _groups(weights: str, sizes: Sequence[int]) -> list[Way]:
    return [Way(f"{size or 'off'}", weights, {_GROUP: str(size)}) for size in sizes]


LINES: Final = (
    Line("activations that share a scale, int8", _groups("int8", (256, 32, 64, 128, 512, 1024, 0))),
    Line("activations that share a scale, int4", _groups("int4", (64, 32, 128, 256))),
    Line(
        "products and sums in",
        (Way("32 bits"), Way("bf16", more={"INFERENCE_PRECISION_HINT": "bf16"})),
    ),
    Line(
        "keys and values in",
        (
            Way("8 bits"),
            Way("16 bits", more={"KV_CACHE_PRECISION": "f16"}),
            Way("32 bits", more={"KV_CACHE_PRECISION": "f32"}),
        ),
    ),
    Line(
        "threads",
        (
            Way("pinned"),
            Way("not pinned", more={"ENABLE_CPU_PINNING": "NO"}),
        ),
    ),
    Line("int8 weights", (Way("with zero points"), Way("symmetric", "int8-symmetric"))),
    Line(
        "int4 weights that share a scale",
        (
            Way("64", "int4"),
            Way("32", "int4-groups-32"),
            Way("128", "int4-groups-128"),
            Way("64, symmetric", "int4-symmetric"),
        ),
    ),
    Line(
        "pages of memory",
        (Way("4 KiB"), Way("2 MiB where the kernel has some", environment=_PAGES)),
        ("bloom-560m",),
    ),
    Line(
        "shapes of a step that are remembered",
        (
            Way("64"),
            Way("the library's own number", more={"CPU_RUNTIME_CACHE_CAPACITY": ""}),
            Way("none", more={"CPU_RUNTIME_CACHE_CAPACITY": "0"}),
        ),
        ("bloom-560m",),
    ),
)


class Run:
    """A way's process, loaded."""

    def __init__(
        self, way: Way, package: Path, threads: int, log: IO[bytes], *, exact: bool
    ) -> None:
        settings = [f"--set={name}={value}" for name, value in way.more.items()]
        command = (sys.executable, "-m", "benchmarks.engine.one_setting", str(package))
        self._process = subprocess.Popen(
            (*command, f"--threads={threads}", *settings, *(("--exact",) if exact else ())),
            cwd=ROOT,
            env={**os.environ, **way.environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
        )
        self._read()
        self.times: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self.quality: dict[str, float] = {}

    def tell(self, **told: object) -> dict[str, Any]:
        """Have it do one thing, and give what it says of it."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(told).encode() + b"\n")
        self._process.stdin.flush()
        return self._read()

    def end(self) -> None:
        """End it by the end of its input."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.close()
        self._process.wait()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit("a way of running the model ended; its log says why")
        read: dict[str, Any] = json.loads(line)
        return read


@contextmanager
def start(way: Way, package: Path, *, threads: int, exact: bool = False) -> Iterator[Run]:
    """Load *package* in one *way*; end it afterwards."""
    logs = CACHE / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "settings.log").open("ab") as log:
        run = Run(way, package, threads, log, exact=exact)
        try:
            yield run
        finally:
            run.end()


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.settings", description=__doc__
    )
    add = parser.add_argument
    add("--model", nargs="+", choices=SHAPES, default=list(SHAPES))
    add("--lines", nargs="+", type=int, choices=range(len(LINES)), default=range(len(LINES)),
        help="by number, from 0; default: all; the others stay as they are")  # fmt: skip
    add("--minutes", type=float, default=_MINUTES, help="for all; default: %(default)s")
    add("--threads", type=int, default=describe_machine()["cores"])
    add("--quick", action="store_true", help="nothing is kept")
    options = parser.parse_args()
    for name in options.model:
        require_made(SHAPES[name])
    with tempfile.TemporaryDirectory() as folder:
        report = _measure(options, Path(folder))
    if len(options.lines) < len(LINES) and _RESULTS.exists():
        _put_in(json.loads(_RESULTS.read_text()), report)
    lines = list(write_table(report))
    print("\n".join(lines))
    if not options.quick:
        write_report(_RESULTS, report)
        put_table(_PAGE, "settings", lines)


def _put_in(kept: Mapping[str, Any], report: dict[str, Any]) -> None:
    """Take into *report* the lines that were *kept*, but for those that it has anew."""
    new = {(line["setting"], line["shape"]): line for line in report["lines"]}
    anew = {*kept.get("anew", ()), *(setting for setting, _ in new)}
    report["anew"] = [line.setting for line in LINES if line.setting in anew]
    report["before"] = {"taken": kept["machine"]["taken"], "seconds": kept["seconds"]}
    if "before" in kept:  # the run of all is what others are of
        report["before"] = kept["before"]
        report["seconds"] += kept["seconds"]
    report["lines"] = [new.get((line["setting"], line["shape"]), line) for line in kept["lines"]]


def _measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    begun, other = time.monotonic(), OtherWork()
    machine = describe_machine()
    judges = {name: _Judge(SHAPES[name], folder, options.threads) for name in options.model}
    demo = _DemoJudge(folder)
    todo = [
        (LINES[at], shape)
        for at in options.lines
        for shape in LINES[at].shapes
        if shape in options.model
    ]
    found = []
    for at, (line, shape) in enumerate(todo):
        left = 60 * options.minutes - (time.monotonic() - begun)
        _note(f"{line.setting}, {shape}; {left:.0f} s are left")
        end = time.monotonic() + left / (len(todo) - at)
        runs = _run_line(line, SHAPES[shape], judges[shape], end, options.threads)
        found.append({"setting": line.setting, "shape": shape, "ways": runs})
    quality = demo.judge_all(options.threads)
    return {
        "machine": machine,
        "threads": options.threads,
        "most_other_cores": other.cores(),
        "seconds": time.monotonic() - begun,
        "lines": found,
        "demo": quality,
    }


class _Judge:
    """How far a model of one shape is from itself in 32 bits, on a text by chance."""

    def __init__(self, shape: Shape, folder: Path, threads: int) -> None:
        self._texts = folder / f"{shape.name}.json"
        self._logits = folder / f"{shape.name}.npy"
        chance = np.random.default_rng(2)
        tokens = chance.integers(300, shape.vocabulary, _TEXT_TOKENS).tolist()
        self._texts.write_text(json.dumps([[tokens, _COUNTED]]))
        with start(Way(""), package_of(shape, "fp32"), threads=threads, exact=True) as exact:
            self._best = self._ask(exact)["best"]

    def judge(self, run: Run) -> dict[str, float]:
        """Give the median distance of logits, and the share of places with the same best token."""
        told = self._ask(run)
        same = sum(a == b for a, b in zip(told["best"], self._best, strict=True))
        return {"apart": statistics.median(told["apart"]), "same": same / len(self._best)}

    def _ask(self, run: Run) -> dict[str, Any]:
        return run.tell(judge=str(self._texts), logits=str(self._logits))


class _DemoJudge:
    """What settings cost a model that was trained: the demo model, on questions it never saw."""

    def __init__(self, folder: Path) -> None:
        self._texts = folder / "demo.json"
        tokenizer = tokenizers.Tokenizer.from_file(str(_DEMO / "tokenizer.json"))
        texts = []
        for entry in read_corpus():
            answer = [*tokenizer.encode(f" {entry.answer}").ids, _END_ID]
            for text in entry.held_out:
                prompt = tokenizer.encode(plain_transcript([Message("user", text)])).ids
                texts.append([[*prompt, *answer], len(answer)])
        self._texts.write_text(json.dumps(texts))

    def judge_all(self, threads: int) -> list[dict[str, object]]:
        """Give perplexity, and agreement with the model's own tokens in 32 bits, for each way."""
        ways = (
            Way("computed in 32 bits", more={_GROUP: "0", "KV_CACHE_PRECISION": "f32"}),
            Way("as served: groups of 64, its widths' largest", more={}),
            *(Way(f"groups of {size}", more={_GROUP: str(size)}) for size in (32, 128)),
            Way("bf16", more={"INFERENCE_PRECISION_HINT": "bf16"}),
            Way("keys and values in 16 bits", more={"KV_CACHE_PRECISION": "f16"}),
        )
        found: list[dict[str, object]] = []
        exact: list[int] = []
        for way in ways:
            with start(way, _DEMO, threads=threads) as run:
                told = run.tell(judge=str(self._texts))
            exact = exact or told["best"]
            same = sum(a == b for a, b in zip(told["best"], exact, strict=True)) / len(exact)
            perplexity = math.exp(told["surprise"])
            found.append({"way": way.name, "perplexity": perplexity, "same": same})
        return found


def _run_line(
    line: Line, shape: Shape, judge: _Judge, end: float, threads: int
) -> list[dict[str, object]]:
    with ExitStack() as stack:
        runs = [
            stack.enter_context(start(way, package_of(shape, way.weights), threads=threads))
            for way in line.ways
        ]
        for run in runs:
            run.quality = judge.judge(run)
            for kind in KINDS:  # the first of a kind is dearer
                run.tell(time=kind)
        number = 0
        while number < _LEAST_ROUNDS or time.monotonic() < end:
            number += 1
            for kind in KINDS:
                for run in runs if number % 2 else reversed(runs):
                    run.times[kind].append(run.tell(time=kind)["seconds"])
        return [
            {
                **asdict(way),
                "rounds": number,
                "least": {kind: min(times) for kind, times in run.times.items()},
                "median": {kind: statistics.median(times) for kind, times in run.times.items()},
                **run.quality,
                **run.tell(memory=True),
            }
            for way, run in zip(line.ways, runs, strict=True)
        ]


def write_table(report: Mapping[str, Any]) -> Iterator[str]:
    """Give the lines of Markdown for one report."""
    machine = report["machine"]
    yield f"{machine['cores']} cores of {machine['processor']},"
    yield f"{', '.join(machine['instructions'])}, {machine['system']}, {machine['taken']};"
    yield f"{report['most_other_cores']:.1f} cores were busy with other work."
    if before := report.get("before"):
        yield f"{report['seconds']:.0f} s for the demo model and these lines, measured anew:"
        yield f"{', '.join(repr(setting) for setting in report['anew'])}."
        yield f"The others are of {before['taken']}, when all took {before['seconds']:.0f} s."
    else:
        yield f"{report['seconds']:.0f} s in all."
    yield ""
    heads = ("setting", "way", *(f"{kind}, ms" for kind in KINDS), "logits apart", "same", "MiB")
    yield f"| {' | '.join(heads)} |"
    yield "|---" * len(heads) + "|"
    for line in report["lines"]:
        base = line["ways"][0]
        for way in line["ways"]:
            first = way is base
            times = [
                _time(way["least"][kind], None if first else base["least"][kind]) for kind in KINDS
            ]
            cells = (
                f"{line['setting']}, {line['shape']}" if first else "",
                f"**{way['name']}**" if first else way["name"],
                *times,
                f"{way['apart']:.2%}",
                f"{way['same']:.0%}",
                f"{way['peak'] / 2**20:.0f}",
            )
            yield f"| {' | '.join(cells)} |"
    yield ""
    yield "| demo model, int8 | perplexity | tokens as in 32 bits |"
    yield "|---|---|---|"
    for row in report["demo"]:
        yield f"| {row['way']} | {row['perplexity']:.5f} | {row['same']:.2%} |"


def _time(seconds: float, base: float | None) -> str:
    beside = f" ({seconds / base:.2f} x)" if base else ""
    return f"{1000 * seconds:.1f}{beside}"


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
