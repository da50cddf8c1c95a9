"""
What refused questions cost others: one asker's answer beside 16 streams of questions too long.

Every stream puts question after question, each of 256 KiB and in a conversation of its own, and
each is refused. Between two a stream waits as long as an exchange with KMS takes at least. One
asker's answer is timed alone and beside them, in turns; the median of the ratios counts. It runs
inside the engine's process, without sockets and KMS, whose cost would be the twin's.
"""

import argparse
import os
import random
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.cache import PrefixName, blocks_for
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.tokenizer import TEMPLATE_NAME, Tokenizer
from app.enclave.engine.weights import Weights, load_weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_QUESTION_BYTES, MAX_TURNS
from app.protocol.errors import BusyError, TooLongError
from app.protocol.question import Message, Options, Question
from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.shapes import ROOT

_DEMO: Final = ROOT / "local" / "demo_model" / "weights"
_RESULT: Final = ROOT / "benchmarks" / "engine" / "results" / "refused.json"
_GOAL: Final = 1.5
_STREAMS: Final = 16
_KMS_SECONDS: Final = 0.01
_LONG_CONTEXT: Final = 32_768  # that a question may be too long for after it is encoded alone
_TOKENS: Final = 100
_BYTES: Final = MAX_QUESTION_BYTES - 1024
_TEMPLATE: Final = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
    "<assistant>"
)
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.engine.refused", description=__doc__
    )
    parser.add_argument("--rounds", type=int, default=9, help="default: 9")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--result", type=Path, default=_RESULT, help="default: %(default)s")
    options = parser.parse_args()
    found = {}
    machine = describe_machine()
    for name, (context, make) in _KINDS.items():
        other = OtherWork()
        with _load(options.threads, context) as engine:
            found[name] = _measure(engine, make(), options.rounds) | {"other_cores": other.cores()}
        print(f"{name}: {found[name]}", flush=True)
    reached = all(float(each["ratio"]) <= _GOAL for each in found.values())
    report = {"machine": machine, "threads": options.threads, "goal": _GOAL, "reached": reached}
    write_report(options.result, {**report, "streams": _STREAMS, "rounds": options.rounds, **found})
    return 0 if reached else 1


def _words() -> Question:
    chance = random.Random(1)  # noqa: S311 - nothing is secret here
    words = ("".join(chance.choices(_LETTERS, k=chance.randint(2, 9))) for _ in range(_BYTES))
    text = " ".join(word for word, _ in zip(words, range(_BYTES // 6), strict=False))
    return _ask(text[:_BYTES])


def _one_word() -> Question:
    chance = random.Random(1)  # noqa: S311 - nothing is secret here
    return _ask("".join(chance.choices(_LETTERS, k=_BYTES)))


def _turns() -> Question:
    text = "How do I enrol in the dental plan, and who pays?"
    turns = (("assistant" if at % 2 else "user", text) for at in range(MAX_TURNS - 1))
    return Question(tuple(Message(role, text) for role, text in turns))  # type: ignore[arg-type]


# Each kind: the context that the engine has, and the question that is too long for it.
_KINDS: Final[dict[str, tuple[int, Callable[[], Question]]]] = {
    "refused before encoding": (1024, _words),
    "words, encoded": (_LONG_CONTEXT, _words),
    "one word, encoded": (_LONG_CONTEXT, _one_word),
    "turns, rendered and encoded": (_LONG_CONTEXT, _turns),
}


def _ask(text: str) -> Question:
    return Question((Message("user", text),), Options(max_tokens=_TOKENS, temperature=2.0, seed=3))


@contextmanager
def _load(threads: int, context: int) -> Iterator[BatchingEngine]:
    """Load the demo model with a template, its context as if it were *context* tokens."""
    weights = load_weights(_DEMO)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(weights.folder, folder, dirs_exist_ok=True)
        (Path(folder) / TEMPLATE_NAME).write_text(_TEMPLATE)
        engine = _make_engine(replace(weights, folder=Path(folder)), threads, context)
        try:
            yield engine
        finally:
            engine.close()


def _make_engine(weights: Weights, threads: int, context: int) -> BatchingEngine:
    model = OpenVinoModel(
        weights,
        Settings(threads, exact=False),
        most_blocks=MAX_ACTIVE_ANSWERS * blocks_for(weights.context_length),
        most_bytes=2**30,
    )
    tokenizer = Tokenizer(replace(weights, context_length=context))
    return BatchingEngine(model, tokenizer, Limits(context, frozenset()))


@dataclass(slots=True)
class _Streams:
    """Threads that put questions too long, one after the other, while they may."""

    engine: BatchingEngine
    question: Question
    go: threading.Event
    under_way: set[int] = field(default_factory=set)
    refused: int = 0
    ended: bool = False

    def pause(self) -> None:
        """Begin no more, and wait until those under way have ended."""
        self.go.clear()
        while self.under_way:
            time.sleep(0.05)

    def run(self, number: int) -> None:
        """Ask until ended."""
        turn = 0
        while not self.ended:
            self.go.wait()
            self.under_way.add(number)
            turn += 1
            name = PrefixName(f"{number} {turn}".encode(), time.monotonic() + 600)
            try:
                self.engine.start(self.question, deadline=time.monotonic() + 600, prefix=name)
            except TooLongError:
                self.refused += 1
            except BusyError:
                pass
            self.under_way.discard(number)
            time.sleep(_KMS_SECONDS)


def _measure(engine: BatchingEngine, question: Question, rounds: int) -> dict[str, float]:
    streams = _Streams(engine, question, threading.Event())
    threads = [threading.Thread(target=streams.run, args=(n,)) for n in range(_STREAMS)]
    for thread in threads:
        thread.start()
    _time_answer(engine)
    alone, beside = [], []
    for _ in range(rounds):
        streams.pause()
        alone.append(_time_answer(engine))
        streams.go.set()
        time.sleep(0.5)
        beside.append(_time_answer(engine))
    streams.ended = True
    for thread in threads:
        thread.join()
    return {
        "ratio": round(statistics.median(b / a for a, b in zip(alone, beside, strict=True)), 2),
        "alone_seconds": round(statistics.median(alone), 3),
        "beside_seconds": round(statistics.median(beside), 3),
        "refused": streams.refused,
    }


def _time_answer(engine: BatchingEngine) -> float:
    started = time.monotonic()
    generation = engine.start(_ask("My email is down"), deadline=started + 600)
    while generation.finish is None:
        generation.take(5)
    return time.monotonic() - started


if __name__ == "__main__":
    sys.exit(main())
