"""
How soon the second turn of a conversation begins, beside its first, and what others gain by it.

`python -m benchmarks.engine.second_turn` asks a prompt of some length, then, as the second turn,
one of nearly the same length of which most was in the first; and the second turn's prompt in a
conversation of its own, where nothing of it can be known. Median times to the first token.
"""

import argparse
import secrets
import statistics
import time
from typing import Final

from app.enclave.engine.batching import BatchingEngine
from app.enclave.engine.cache import PrefixName
from app.enclave.engine.cpu import count_cores
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import load_weights
from app.protocol.constants import DATA_KEY_CACHE_SECONDS
from app.protocol.question import Message, Options, Question
from benchmarks.engine.shapes import SHAPES, package_of

_SECONDS: Final = 110


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.second_turn", description=__doc__
    )
    parser.add_argument("--model", choices=SHAPES, default=next(iter(SHAPES)))
    parser.add_argument("--words", type=int, default=500, help="of the first prompt")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    weights = load_weights(package_of(SHAPES[options.model], "int8"))
    engine = load_engine(weights, threads=count_cores())
    try:
        _first_token(engine, _words(options.words), _name())  # what is compiled at first use
        rounds = [_round(engine, options.words) for _ in range(options.rounds)]
    finally:
        engine.close()
    first, second, foreign = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"first turn              {first * 1000:7.0f} ms")
    print(f"second turn             {second * 1000:7.0f} ms, {second / first:.2f} of the first")
    print(f"the same, another's     {foreign * 1000:7.0f} ms, {foreign / first:.2f} of the first")


def _round(engine: BatchingEngine, words: int) -> tuple[float, float, float]:
    """Give the times to the first token of a first turn, its second, and a stranger's."""
    mine, text = _name(), _words(words)
    again = f"{text} {_words(20)}"
    return (
        _first_token(engine, text, mine),
        _first_token(engine, again, mine),
        _first_token(engine, again, _name()),
    )


def _first_token(engine: BatchingEngine, text: str, prefix: PrefixName) -> float:
    question = Question((Message("user", text),), Options(max_tokens=1))
    started = time.perf_counter()
    generation = engine.start(question, deadline=time.monotonic() + _SECONDS, prefix=prefix)
    while generation.finish is None:
        generation.take(1)
    return time.perf_counter() - started


def _name() -> PrefixName:
    return PrefixName(secrets.token_bytes(32), time.monotonic() + DATA_KEY_CACHE_SECONDS)


def _words(count: int) -> str:
    return " ".join(
        secrets.choice(("mail", "plan", "leave", "desk", "phone")) for _ in range(count)
    )


if __name__ == "__main__":
    main()
