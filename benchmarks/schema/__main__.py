"""
Measure what schemas cost those who ask for them, and everyone beside them: some minutes.

`.venv/bin/python -m benchmarks.schema` prints the table of README.md in this folder and writes it
there. It wants a model that `benchmarks.engine` has made, by default the Qwen shape in 8 bits.
"""

import argparse
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from app.enclave.engine.batching import BatchingEngine
from app.enclave.engine.cpu import count_cores
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import load_weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.errors import AppError
from app.protocol.question import Message, Options, Question
from benchmarks.engine.shapes import SHAPES, package_of

README: Final = Path(__file__).with_name("README.md")
MARK: Final = "<!-- measured -->\n"
_TOKENS: Final = 128
_SECONDS: Final = 120.0
_PROMPT: Final = "Fill in the form."
_FORM: Final = {
    "type": "object",
    "properties": {
        f"field {n}": {"type": "array", "items": {"type": "string"}, "minItems": 200}
        for n in range(12)
    },
    "required": [f"field {n}" for n in range(12)],
    "additionalProperties": False,
}
_LISTS: Final = {
    "anyOf": [
        {"type": "array", "items": {"$ref": "#/$defs/a"}, "maxItems": n + 1} for n in range(128)
    ]
}
HOSTILE: Final = (  # what is slowest of all that passes the limits, of what was tried
    {"$ref": "#/$defs/a", "$defs": {"a": _LISTS}},
    {"type": "string", "pattern": "a.{200}b.{200}c"},
    {"properties": {f"p{n}": {"type": "string"} for n in range(1000)}},
    {
        "allOf": [
            {"anyOf": [{"properties": {f"k{j}{i}": {"type": "string"}}} for i in range(10)]}
            for j in range(3)
        ]
    },
)


def ask(engine: BatchingEngine, count: int, schema: object = None, tokens: int = _TOKENS) -> float:
    """Have *count* answers made together; give the seconds of a step."""
    options = Options(
        schema=None if schema is None else json.dumps(schema),
        n=count,
        max_tokens=tokens,
        padding="off",  # so that no answer has guesses, which none has that is held
    )
    question = Question((Message("user", _PROMPT),), options)
    generation = engine.start(question, deadline=time.monotonic() + _SECONDS)
    first = 0.0
    while (finish := generation.finish) is None:
        if generation.take(1) and not first:
            first = time.perf_counter()
    return (time.perf_counter() - first) / max(1, finish.completion_tokens / count - 1)


def compare(one: Callable[[], float], other: Callable[[], float], rounds: int) -> tuple[str, ...]:
    """Take turns between two; give the medians in ms, and how much longer the second one takes."""
    taken = [(one(), other()) for _ in range(rounds)]
    first, second = (statistics.median(column) for column in zip(*taken, strict=True))
    ratio = statistics.median(later / earlier for earlier, later in taken)
    return f"{first * 1e3:.1f}", f"{second * 1e3:.1f}", f"{(ratio - 1) * 100:+.1f} %"


def attack(engine: BatchingEngine, stop: threading.Event) -> None:
    """Ask for hostile schemas, one after the other, until it is enough."""
    at = 0
    while not stop.is_set():
        with suppress(AppError):
            ask(engine, 1, HOSTILE[at % len(HOSTILE)], tokens=8)
        at += 1


def beside_hostile(engine: BatchingEngine) -> float:
    """Give the seconds of a step of 15 honest answers beside one hostile asker."""
    stop = threading.Event()
    attacker = threading.Thread(target=attack, args=(engine, stop))
    attacker.start()
    try:
        return ask(engine, MAX_ACTIVE_ANSWERS - 1)
    finally:
        stop.set()
        attacker.join()


def measure(engine: BatchingEngine, rounds: int) -> list[tuple[str, ...]]:
    """Give the rows of the table."""
    rows: list[tuple[str, ...]] = []
    for count, goal in ((1, "≤ 5 %"), (MAX_ACTIVE_ANSWERS, "≤ 10 %")):

        def free(count: int = count) -> float:
            return ask(engine, count)

        def held(count: int = count) -> float:
            return ask(engine, count, _FORM)

        name = "1 answer" if count == 1 else f"{count} answers"
        rows.append((f"{name}, held to a schema", *compare(free, held, rounds), goal))
    honest = MAX_ACTIVE_ANSWERS - 1
    alone = compare(lambda: ask(engine, honest), lambda: beside_hostile(engine), rounds)
    mixed = compare(lambda: ask(engine, honest), lambda: beside_harmless(engine), rounds)
    rows.append((f"{honest} free answers beside one hostile asker", *alone, ""))
    rows.append((f"{honest} free answers beside one harmless asker", *mixed, ""))
    return rows


def beside_harmless(engine: BatchingEngine) -> float:
    """Give the seconds of a step of 15 honest answers beside one more, to compare."""
    other = threading.Thread(target=ask, args=(engine, 1))
    other.start()
    try:
        return ask(engine, MAX_ACTIVE_ANSWERS - 1)
    finally:
        other.join()


def tell(rows: Sequence[tuple[str, ...]], rounds: int) -> str:
    """Give the table."""
    heading = ("", "free, ms a step", "so, ms a step", "longer", "aimed at")
    lines = ["| " + " | ".join(row) + " |" for row in (heading, ("---",) * 5, *rows)]
    busy = os.getloadavg()[0]
    return "\n".join(
        [*lines, "", f"Medians of {rounds} rounds; load average at the end {busy:.1f}."]
    )


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--package", type=Path, default=package_of(SHAPES["qwen3-0.6b"], "int8"))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    engine = load_engine(load_weights(options.package), threads=count_cores())
    try:
        ask(engine, 1, _FORM)  # the first of all makes what the others share
        table = tell(measure(engine, options.rounds), options.rounds)
    finally:
        engine.close()
    print(table)
    before, _, _ = README.read_text().partition(MARK)
    README.write_text(f"{before}{MARK}\n{table}\n")


if __name__ == "__main__":
    main()
