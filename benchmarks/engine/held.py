"""
Load a package that may be cut up, and say what memory its weights take, at most and in the end.

    $ .venv/bin/python -m benchmarks.engine.held PACKAGE

PACKAGE's numbers are gone afterwards: give a copy. What counts is what is left of the file, which
in an enclave lies in memory, and what the process holds beyond what it held when it had loaded the
demo model. Prints one line of JSON, in bytes.
"""

import argparse
import json
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from app.enclave.engine.cache import blocks_for
from app.enclave.engine.flags import has_tiles
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from benchmarks.engine.shapes import ROOT
from image.model.graph import NUMBERS_NAME

_DEMO: Final = ROOT / "local" / "demo_model" / "weights"
_STATUS: Final = Path("/proc/self/status")
_BLOCK_BYTES: Final = 512  # of stat's blocks, whatever the file system's are
_SECONDS: Final = 0.005  # between two looks


@dataclass(frozen=True, slots=True)
class Held:
    """
    What weights take.

    Attributes:
        weights: The file, before.

        most: While it was loaded.

        held: Once it is loaded and has computed.

        file: Of that, what is left of the file.
    """

    weights: int
    most: int
    held: int
    file: int


class _Watch(threading.Thread):
    """Looks again and again at what is held, and keeps the most."""

    def __init__(self, numbers: Path) -> None:
        super().__init__(daemon=True)
        self._numbers = numbers
        self._before = _anonymous_bytes()
        self._over = threading.Event()
        self.most = 0

    def run(self) -> None:
        while not self._over.wait(_SECONDS):
            self.most = max(self.most, self.look())

    def look(self) -> int:
        """Give what is held now."""
        return _anonymous_bytes() - self._before + file_bytes(self._numbers)

    def end(self) -> None:
        """Look no more."""
        self._over.set()
        self.join()


def file_bytes(path: Path) -> int:
    """Give what a file takes, without its holes."""
    return path.stat().st_blocks * _BLOCK_BYTES


def _anonymous_bytes() -> int:
    (line,) = [line for line in _STATUS.read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def _load(package: Path, threads: int, *, owned: bool) -> OpenVinoModel:
    weights = load_weights(package)
    settings = Settings(threads, exact=weights.precision == "fp32", tiles=has_tiles())
    blocks = blocks_for(min(512, weights.context_length))
    model = OpenVinoModel(weights, settings, most_blocks=blocks, most_bytes=2**34, owned=owned)
    tokens = weights.check.tokens
    model.forward([Rows(tokens, 0, list(range(blocks)), 1)])
    model.forward([Rows(tokens[:1], len(tokens), list(range(blocks)), 1)])
    return model


def main() -> None:
    """Load and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine.held", description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    numbers = options.package / NUMBERS_NAME
    size = numbers.stat().st_size
    before = _load(_DEMO, options.threads, owned=False)
    watch = _Watch(numbers)
    watch.start()
    model = _load(options.package, options.threads, owned=True)
    watch.end()
    held = Held(size, max(watch.most, watch.look()), watch.look(), file_bytes(numbers))
    sys.stdout.write(json.dumps(asdict(held)) + "\n")
    del before, model


if __name__ == "__main__":
    main()
