"""
What choosing one token costs: `.venv/bin/python -m benchmarks.sampling`, half a minute.

Prints the table of README.md in this folder. Every choice is for one answer of a step, over a
vocabulary as large as Qwen3's.
"""

import statistics
import time
from typing import Final

import numpy as np

from app.enclave.engine.sampling import Logits, Sampler
from app.protocol.question import SCALE, Options
from benchmarks.engine.machine import OtherWork, describe_machine

_VOCABULARY: Final = 151_936
_PROMPT_TOKENS: Final = 3000
_CHOICES: Final = 60
_WARM: Final = 5
_CASES: Final[dict[str, dict[str, object]]] = {
    "greedy": {},
    "temperature 1": {"temperature": 1.0},
    "temperature 0.7, top_p 0.8, top_k 20": {"temperature": 0.7, "top_p": 0.8, "top_k": 20},
    "temperature 1, top_p 0.9": {"temperature": 1.0, "top_p": 0.9},
    "temperature 1, min_p 0.05": {"temperature": 1.0, "min_p": 0.05},
    "greedy, 20 log-probabilities": {"logprobs": 20},
    "greedy, all penalties and 300 biases": {
        "presence_penalty": 1.0,
        "frequency_penalty": 0.5,
        "repetition_penalty": 1.1,
        "logit_bias": tuple(number for token in range(300) for number in (token, SCALE)),
    },
}


def _logits(scale: float, likely: float) -> Logits:
    """Give random ones, of which some are likelier than all others."""
    logits = np.random.default_rng(1).normal(0, scale, _VOCABULARY).astype(np.float32)
    logits[:50] += np.float32(likely)
    return logits


def _measure(logits: Logits, options: dict[str, object]) -> float:
    """Give the median milliseconds of a choice."""
    sampler = Sampler(
        Options(**options),  # type: ignore[arg-type]  # as they stand above
        prompt=range(_PROMPT_TOKENS),
        random=np.random.default_rng(1),
        spell=lambda token: token.to_bytes(4),
    )
    times = []
    for _ in range(_CHOICES):
        started = time.perf_counter()
        sampler.choose(logits)
        times.append(1000 * (time.perf_counter() - started))
    return statistics.median(times[_WARM:])


def main() -> None:
    """Measure and print."""
    other = OtherWork()
    sure, unsure = _logits(2.5, 15), _logits(1, 0)
    print("| options | ms, a model that is sure | one that is not at all |\n|---|---|---|")
    for name, options in _CASES.items():
        print(f"| {name} | {_measure(sure, options):.2f} | {_measure(unsure, options):.2f} |")
    print(f"\n{describe_machine()['processor']}, {other.cores():.1f} cores busy with other work")


if __name__ == "__main__":
    main()
