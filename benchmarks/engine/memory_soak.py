"""
The engine under an allocator that checks: loaded and closed again and again, then serving for long.

Each part is a process of its own with glibc's checking allocator, which notices what is freed
twice or written beside, and which fills what is freed. First a process writes one byte too many on
purpose, and must be ended for it. Timing plays no part: `nice -n 19` lets others work.
"""

import argparse
import ctypes
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from app.enclave.engine.batching import BatchingEngine
from app.enclave.engine.cache import PrefixName
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import Weights, load_weights
from app.protocol.errors import BusyError, TooLongError
from app.protocol.question import Message, Options, Question
from benchmarks.engine.machine import describe_machine, write_report
from benchmarks.engine.shapes import ROOT
from local.demo_model.corpus import read_corpus

_DEMO: Final = ROOT / "local" / "demo_model" / "weights"
_RESULT: Final = ROOT / "benchmarks" / "engine" / "results" / "memory_soak.json"
_CHECKED: Final = {
    "LD_PRELOAD": "libc_malloc_debug.so.0",
    "MALLOC_CHECK_": "3",
    "MALLOC_PERTURB_": "165",
    "TBB_ENABLE_SANITIZERS": "1",  # else oneTBB's hwloc gives false alarms
}
_PARTS: Final = ("fault", "closing", "serving")
_ASKERS: Final = 20  # more than may be under way
_AT_ONCE: Final = 3  # between a load and a close
_SEED: Final = 5


def main() -> int:
    """Run all parts, print and write; or run one, for a process of this one's."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine.memory_soak", description=__doc__
    )
    parser.add_argument("--seconds", type=float, default=3600, help="of serving; default: 3600")
    parser.add_argument("--loads", type=int, default=100, help="and closes; default: 100")
    parser.add_argument("--weights", type=Path, default=_DEMO, help="default: %(default)s")
    parser.add_argument("--result", type=Path, default=_RESULT, help="default: %(default)s")
    parser.add_argument("--part", choices=_PARTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part == "fault":
        return write_one_byte_too_many()
    if options.part == "closing":
        return load_and_close(load_weights(options.weights), options.loads)
    if options.part == "serving":
        return serve(load_weights(options.weights), options.seconds)
    if _run("fault").returncode == 0:
        raise SystemExit("the allocator does not check: nothing would be seen")
    given = (f"--seconds={options.seconds}", f"--loads={options.loads}")
    parts = {part: _report(part, *given, f"--weights={options.weights}") for part in _PARTS[1:]}
    report = {
        "machine": describe_machine(),
        "model": load_weights(options.weights).name,
        "day": datetime.now(UTC).date().isoformat(),
        **parts,
    }
    write_report(options.result, report)
    return int(any(part["code"] for part in parts.values()))


def _report(part: str, *given: str) -> dict[str, object]:
    started = time.monotonic()
    done = _run(part, *given)
    seconds = round(time.monotonic() - started)
    print(f"{part}: code {done.returncode} after {seconds} s, {done.stdout.strip()}", flush=True)
    last = done.stderr.strip().splitlines()[-1:]
    return {
        "code": done.returncode, "seconds": seconds, "did": done.stdout.strip(), "said": last,
    }  # fmt: skip


def _run(part: str, *given: str) -> subprocess.CompletedProcess[str]:
    command = (sys.executable, "-m", "benchmarks.engine.memory_soak", f"--part={part}", *given)
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | _CHECKED, capture_output=True, text=True, check=False
    )


def write_one_byte_too_many() -> int:
    """Do what a checking allocator ends a program for, and no other notices."""
    take, free = ctypes.pythonapi.PyMem_RawMalloc, ctypes.pythonapi.PyMem_RawFree
    take.restype, free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    memory = take(20)
    ctypes.memset(memory + 20, 0, 1)
    free(memory)
    return 0


def load_and_close(weights: Weights, loads: int) -> int:
    """Load an engine, let it answer, close it in the midst of answers, and let go of it."""
    for number in range(loads):
        engine = load_engine(weights, threads=1)
        desk = _Desk(engine, _SEED + number)
        askers = [threading.Thread(target=desk.ask_once) for _ in range(_AT_ONCE)]
        for asker in askers:
            asker.start()
        askers[0].join()
        engine.close()
        for asker in askers:
            asker.join()
        del engine, desk, askers
    print(f"{loads} loads and closes")
    return 0


def serve(weights: Weights, seconds: float) -> int:
    """Answer whatever askers think of for so long."""
    engine = load_engine(weights, threads=1)
    desk = _Desk(engine, _SEED)
    end = time.monotonic() + seconds
    askers = [threading.Thread(target=desk.ask_until, args=(end,)) for _ in range(_ASKERS)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    engine.close()
    ends = ", ".join(f"{count} {reason}" for reason, count in sorted(desk.ends.items()))
    print(f"{desk.tokens} tokens in {desk.ends.total()} answers: {ends}")
    return 0


class _Desk:
    """Where questions of every kind are made up and put to one engine."""

    def __init__(self, engine: BatchingEngine, seed: int) -> None:
        self._engine = engine
        self._chance = random.Random(seed)  # noqa: S311 - nothing is secret here
        self._texts = [text for entry in read_corpus() for text in entry.wordings]
        self._lock = threading.Lock()
        self.ends: Counter[str] = Counter()
        self.tokens = 0

    def ask_until(self, end: float) -> None:
        """Ask, one question after the other, until *end*."""
        while time.monotonic() < end:
            self.ask_once()

    def ask_once(self) -> None:
        """Ask one question, and read its answer or give it up."""
        with self._lock:
            question, prefix, patience = self._think()
        deadline = time.monotonic() + patience
        try:
            generation = self._engine.start(question, deadline=deadline, prefix=prefix)
        except (BusyError, TooLongError) as error:
            self._note(error.code, 0)
            return
        pieces = 0
        while generation.finish is None and pieces < patience:
            generation.take(1)
            pieces += 1
        given_up = generation.finish is None
        generation.cancel()
        finish = generation.finish
        assert finish is not None  # noqa: S101 - it was cancelled
        self._note("given up" if given_up else finish.reason, finish.completion_tokens)

    def _note(self, end: str, tokens: int) -> None:
        with self._lock:
            self.ends[end] += 1
            self.tokens += tokens

    def _think(self) -> tuple[Question, PrefixName | None, float]:
        chance = self._chance
        text = " ".join(chance.choices(self._texts, k=chance.choice((1, 1, 2, 5, 20, 80))))
        options = Options(
            max_tokens=chance.randint(1, 120),
            temperature=chance.choice((0.0, 1.0, 2.0)),
            top_k=chance.choice((0, 5)),
            stop=chance.choice(((), ("the",))),
        )
        name = PrefixName(bytes([chance.randrange(12)]), time.monotonic() + chance.uniform(1, 60))
        prefix = chance.choice((None, name))
        return Question((Message("user", text),), options), prefix, chance.choice((2.0, 30.0, 60.0))


if __name__ == "__main__":
    sys.exit(main())
