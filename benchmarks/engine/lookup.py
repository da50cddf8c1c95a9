"""
Prompt lookup: how much sooner an answer ends that copies, and what it costs one that does not.

`python -m benchmarks.engine.lookup` takes at most five minutes and prints the table of README.md.
The model has a real shape and random weights, and computes each step in full. What it writes is
then told to it, since random weights copy nothing: prose, of which the prompt holds more or less.
So the cost of a step is measured, and how many guesses are right follows from the texts, by the
engine's own lookup. The demo model writes answers of its own. Each task is done with padding, which
has guesses, and without, which has none, in turn; answers are timed from their first token on.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.cache import blocks_for
from app.enclave.engine.cpu import count_cores
from app.enclave.engine.generation import BatchedAnswers
from app.enclave.engine.load import load_engine
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from app.protocol.question import Message, Options, Padding, Question
from benchmarks.engine.lookup_texts import Task, make_tasks
from benchmarks.engine.machine import OtherWork, describe_machine, write_report
from benchmarks.engine.shapes import ROOT, SHAPES, package_of

_REPORT: Final = ROOT / "benchmarks" / "engine" / "results" / "lookup.json"
_DEMO: Final = ROOT / "local" / "demo_model" / "weights"
_ASKED: Final = ("How do I reset my password?", "How do I request vacation?")  # of its corpus
_SURE: Final = 1e4  # far over any logit of random weights
_DEADLINE_SECONDS: Final = 110
_PADDINGS: Final[tuple[Padding, Padding]] = ("off", "constant")


class ToldModel:
    """
    A model that computes all of each step, and then thinks what it is told.

    Attributes:
        text: Prompt and answer, token for token.

        steps: How many it has taken.
    """

    def __init__(self, model: OpenVinoModel) -> None:
        self._model = model
        self.blocks = model.blocks
        self.text: Sequence[int] = ()
        self.steps = 0

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        """Take a step; there is one answer in it."""
        logits = self._model.forward(batch)
        [rows] = batch
        for row, place in enumerate(range(rows.end - rows.wanted + 1, rows.end + 1)):
            if place < len(self.text):
                logits[row, self.text[place]] += _SURE
        self.steps += 1
        return logits

    def wipe(self, blocks: Sequence[int]) -> None:
        """Overwrite what lies in *blocks*."""
        self._model.wipe(blocks)


class Numbers:
    """A tokenizer of texts that are token ids, written out."""

    stops: tuple[str, ...] = ()
    strip_start = False
    most_token_bytes = 8
    vocabulary = 2**31
    controls: Mapping[int, str] = MappingProxyType({})

    def encode(self, question: Question) -> list[int]:
        """Give the tokens of the prompt."""
        return [int(word) for word in question.messages[-1].text.split()]

    def grammar(self, question: Question) -> None:
        """Give none: answers are free."""

    def decode(self, ids: Sequence[int]) -> str:
        """Give the text of *ids*."""
        return "".join(f"{token} " for token in ids)

    def spell(self, token: int) -> bytes:
        """Give the bytes of *token*."""
        return f"{token} ".encode()


@dataclass(frozen=True, slots=True)
class Run:
    """One answer: seconds a token after the first, how many tokens, and in how many steps."""

    seconds: float
    tokens: int
    steps: int


def _time(answers: BatchedAnswers) -> tuple[float, int]:
    """Give an answer's seconds a token after the first, and how many tokens it has."""
    first = 0.0
    while (finish := answers.finish) is None:
        if answers.take(1) and not first:
            first = time.perf_counter()
    if finish.reason == "error":
        raise RuntimeError("the engine could not answer")
    return (time.perf_counter() - first) / max(1, finish.completion_tokens - 1), (
        finish.completion_tokens
    )


def _ask(engine: BatchingEngine, text: str, padding: Padding, most: int) -> tuple[float, int]:
    question = Question((Message("user", text),), Options(max_tokens=most, padding=padding))
    return _time(engine.start(question, deadline=time.monotonic() + _DEADLINE_SECONDS))


class Bench:
    """The models, loaded, and what came of each task."""

    def __init__(self, shape: str) -> None:
        weights = load_weights(package_of(SHAPES[shape], "int8"))
        settings = Settings(count_cores(), exact=False)
        most = blocks_for(weights.context_length)
        model = OpenVinoModel(weights, settings, most_blocks=most, most_bytes=2**31)
        self._told = ToldModel(model)
        limits = Limits(weights.context_length, frozenset())
        self._engine = BatchingEngine(self._told, Numbers(), limits)
        self._demo = load_engine(load_weights(_DEMO), threads=count_cores())
        self.runs: dict[tuple[str, Padding], list[Run]] = {}

    def ask(self, task: Task, padding: Padding) -> None:
        """Have the told model write *task*'s answer."""
        self._told.text, self._told.steps = (*task.prompt, *task.answer), 0
        prompt = " ".join(map(str, task.prompt))
        seconds, tokens = _ask(self._engine, prompt, padding, len(task.answer))
        self._note(task.name, padding, Run(seconds, tokens, self._told.steps))

    def ask_demo(self, padding: Padding) -> None:
        """Have the demo model answer questions as it was taught to."""
        timed = [_ask(self._demo, text, padding, 96) for text in _ASKED]
        tokens = sum(count for _, count in timed)
        seconds = sum(each * (count - 1) for each, count in timed) / (tokens - len(timed))
        self._note("the demo model's own answers", padding, Run(seconds, tokens, 0))

    def _note(self, name: str, padding: Padding, run: Run) -> None:
        self.runs.setdefault((name, padding), []).append(run)

    def close(self) -> None:
        """End the engines."""
        self._engine.close()
        self._demo.close()


def _take_rounds(bench: Bench, tasks: Sequence[Task], seconds: float) -> int:
    """Ask all tasks as often as *seconds* allow, the order turned each time; give how often."""
    end, rounds, longest = time.monotonic() + seconds, 0, 0.0
    for padding in _PADDINGS:  # what is compiled at first use
        bench.ask(tasks[0], padding)
        bench.ask_demo(padding)
    bench.runs.clear()
    while rounds == 0 or time.monotonic() + longest < end:
        began = time.monotonic()
        for padding in _PADDINGS[:: -1 if rounds % 2 else 1]:
            for task in tasks:
                bench.ask(task, padding)
            bench.ask_demo(padding)
        rounds += 1
        longest = max(longest, time.monotonic() - began)
    return rounds


def _tell(bench: Bench) -> Iterator[str]:
    """Give the lines of the table."""
    yield "| the answer | tokens a second | with guesses | ratio | least, most | tokens a step |"
    yield "|---|---|---|---|---|---|"
    for name in dict.fromkeys(name for name, _ in bench.runs):
        plain, quick = (bench.runs[name, padding] for padding in _PADDINGS)
        ratios = [one.seconds / two.seconds for one, two in zip(plain, quick, strict=True)]
        rates = [statistics.median(1 / run.seconds for run in runs) for runs in (plain, quick)]
        steps = f"{quick[0].tokens / quick[0].steps:.2f}" if quick[0].steps else ""
        yield (
            f"| {name} | {rates[0]:.1f} | {rates[1]:.1f} | {statistics.median(ratios):.2f} | "
            f"{min(ratios):.2f}, {max(ratios):.2f} | {steps} |"
        )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.lookup", description=__doc__
    )
    parser.add_argument("--model", choices=SHAPES, default="qwen3-0.6b")
    parser.add_argument("--seconds", type=float, default=240, help="at most, loading aside")
    options = parser.parse_args()
    machine, bench, other = describe_machine(), Bench(options.model), OtherWork()
    try:
        rounds = _take_rounds(bench, make_tasks(), options.seconds)
    finally:
        bench.close()
    table = list(_tell(bench))
    print("\n".join(table))
    print(
        f"\n{options.model}, int8, {rounds} rounds; {other.cores():.2f} cores were busy otherwise"
    )
    runs = {f"{name}, {padding}": [asdict(run) for run in runs]
            for (name, padding), runs in bench.runs.items()}  # fmt: skip
    write_report(_REPORT, {"machine": machine, "model": options.model, "rounds": rounds,
                           "cores_busy_otherwise": other.cores(), "runs": runs})  # fmt: skip


if __name__ == "__main__":
    main()
