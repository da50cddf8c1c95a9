"""
Show a model steps of varied shapes, and say how many bytes the process holds on the way.

    $ .venv/bin/python -m tests.engine.varied PACKAGE --requests 4000

Each step begins some answers, whose prompts have lengths by chance, beside others that go on.
Prints the bytes at the middle and at the end, without what the allocator has free. `--own-cache`
leaves what the library remembers of shapes to the library.
"""

import argparse
import ctypes
import os
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app.enclave.engine.cache import blocks_for
from app.enclave.engine.model import OpenVinoModel, Products, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from benchmarks.engine.machine import memory_bytes

_ANSWERS: Final = 16
_CONTEXT: Final = 512
_EACH: Final = blocks_for(_CONTEXT)
_OWN: Final = "CPU_RUNTIME_CACHE_CAPACITY"


@dataclass(frozen=True, slots=True)
class OwnCache(Settings):
    """Settings that leave one number to the library."""

    def for_library(self, products: Products) -> dict[str, str]:
        """Give all others."""
        names = Settings.for_library(self, products)
        return {name: value for name, value in names.items() if name != _OWN}


def main() -> None:
    """Take the steps and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.engine.varied", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--requests", type=int, default=4000)
    parser.add_argument("--own-cache", action="store_true")
    options = parser.parse_args()
    settings = (OwnCache if options.own_cache else Settings)(1, exact=False)
    model = OpenVinoModel(
        load_weights(options.package), settings, most_blocks=_ANSWERS * _EACH, most_bytes=2**30
    )
    chance = random.Random(1)  # noqa: S311 - nothing is secret here
    sizes: list[int] = []
    for _ in range(2):
        begun = 0
        while begun < options.requests // 2:
            step = [_rows(chance, at) for at in range(chance.randint(1, _ANSWERS))]
            model.forward(step)
            begun += sum(rows.past == 0 for rows in step)
        ctypes.CDLL(None).malloc_trim(0)
        sizes.append(memory_bytes(os.getpid()))
    print(*sizes)  # noqa: T201 - it is a program


def _rows(chance: random.Random, at: int) -> Rows:
    begins = chance.random() < 0.2
    count = chance.randint(1, 200) if begins else 1
    past = 0 if begins else chance.randint(1, _CONTEXT - 1)
    tokens = [chance.randrange(4, 2048) for _ in range(count)]
    return Rows(tokens, past, list(range(at * _EACH, (at + 1) * _EACH)), 1)


if __name__ == "__main__":
    main()
