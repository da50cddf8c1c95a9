"""
Where a step's time goes inside OpenVINO: by kind of operation, for one and for many answers.

`python -m benchmarks.engine.step_profile` takes a package of the benchmark's, has OpenVINO count
the time of every operation, and prints the shares of a step that adds one token to each answer.
"""

import argparse
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Final

import openvino

from app.enclave.engine.cache import blocks_for
from app.enclave.engine.cpu import count_cores
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from benchmarks.engine.shapes import NEW_TOKENS, PROMPT_TOKENS, SHAPES, package_of

_STEPS: Final = 20
_COUNTS: Final = (1, 8, 16)
_MOST_BYTES: Final = 2**32


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(
        prog=".venv/bin/python -m benchmarks.engine.step_profile", description=__doc__
    )
    parser.add_argument("--model", choices=SHAPES, default=next(iter(SHAPES)))
    parser.add_argument("--weights", choices=("int8", "int4"), default="int8")
    options = parser.parse_args()
    model = _load_counting(package_of(SHAPES[options.model], options.weights))
    each = blocks_for(PROMPT_TOKENS + NEW_TOKENS)
    for count in _COUNTS:
        blocks = [list(range(at * each, (at + 1) * each)) for at in range(count)]
        step = [Rows([300 + at], PROMPT_TOKENS, mine, 1) for at, mine in enumerate(blocks)]
        _print(count, *_profile(model, step))


def _load_counting(folder: Path) -> OpenVinoModel:
    """Load the model as the engine does, with OpenVINO's counters on."""
    compile_model = openvino.Core.compile_model

    def compile_counting(
        core: openvino.Core, model: openvino.Model, device: str, settings: dict[str, str]
    ) -> openvino.CompiledModel:
        return compile_model(core, model, device, {**settings, "PERF_COUNT": "YES"})

    setattr(openvino.Core, "compile_model", compile_counting)  # noqa: B010 - for the engine, too
    most = 16 * blocks_for(PROMPT_TOKENS + NEW_TOKENS)
    return OpenVinoModel(
        load_weights(folder),
        Settings(threads=count_cores(), exact=False),
        most_blocks=most,
        most_bytes=_MOST_BYTES,
    )


def _profile(model: OpenVinoModel, step: list[Rows]) -> tuple[float, Counter[str]]:
    """Give the median seconds of a step, and seconds by kind of operation in the last one."""
    model.forward(step)
    seconds = []
    for _ in range(_STEPS):
        started = time.perf_counter()
        model.forward(step)
        seconds.append(time.perf_counter() - started)
    kinds: Counter[str] = Counter()
    for request in model._chain._requests:  # noqa: SLF001 - it is what is profiled
        for entry in request.get_profiling_info():
            kinds[entry.node_type] += entry.real_time.total_seconds()
    return statistics.median(seconds), kinds


def _print(count: int, seconds: float, kinds: Counter[str]) -> None:
    total = sum(kinds.values())
    shares = ", ".join(f"{kind} {time / total:.0%}" for kind, time in kinds.most_common(6))
    print(
        f"{count:2} answers, {1000 * seconds:.1f} ms a step, {1000 * total:.1f} counted: {shares}"
    )


if __name__ == "__main__":
    main()
