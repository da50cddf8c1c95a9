"""
Sealed weights of a large model's shape, from their owner's key to an answer, each step timed.

A package of random numbers is written, sealed under a key of another account of the twin, sent to
the enclave's process and asked a question. Takes three times the package's size on disk.

    $ .venv/bin/python -m benchmarks.engine.sealed 4b-int4 FOLDER

FOLDER is new. Prints one line of JSON, in bytes and seconds.
"""

import argparse
import json
import time
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from app.protocol.question import Options
from benchmarks.engine.large_package import SHAPES, write_package
from local.twin.twin import run_twin
from ops.sealed_package import read_package

_QUESTION: Final = "Are you there?"
_TOKENS: Final = 8


@dataclass(frozen=True, slots=True)
class Sealed:
    """
    What one run took.

    Attributes:
        started: Until the enclave was started, which comes after sealing.

        ready: From there until it was: sent, opened, loaded and proved.

        answered: Until the answer to a first question of few tokens was whole.
    """

    weights_bytes: int
    started: float
    ready: float
    answered: float


def run(package: Path, folder: Path, *, sealed: bool = True) -> Sealed:
    """Run *package*, sealed or as it is, in a twin in *folder*."""
    times = [time.monotonic()]

    def note(step: str) -> None:
        if step.startswith("starting the enclave"):
            times.append(time.monotonic())

    with run_twin(folder, weights=package, sealed=sealed, note=note) as twin:
        times.append(time.monotonic())
        with twin.connect() as session:
            for _ in session.ask(_QUESTION, Options(max_tokens=_TOKENS, padding="off")):
                pass
        times.append(time.monotonic())
    spans = [round(after - before, 1) for before, after in pairwise(times)]
    size = sum(file.bytes for file in read_package(package).files.values())
    return Sealed(size, *spans)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--plain", action="store_true", help="do not seal; twice the size on disk")
    options = parser.parse_args()
    package = options.folder / "package"
    package.mkdir(parents=True)
    write_package(package, SHAPES[options.shape], f"random/{options.shape}")
    print(json.dumps(asdict(run(package, options.folder / "twin", sealed=not options.plain))))


if __name__ == "__main__":
    main()
