"""
One way to run a model, in a process of its own: told what to do line by line, as JSON.

`{"time": KIND}` gives the seconds of one step of that kind; `{"judge": FILE}` shows the model the
texts of *FILE* and gives how sure it is of them; `{"memory": true}` gives the process's bytes.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.enclave.engine.cache import blocks_for
from app.enclave.engine.flags import has_tiles
from app.enclave.engine.model import OpenVinoModel, Products, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from benchmarks.engine.machine import memory_bytes

_PAST: Final = 160  # tokens that the model has seen of each answer
KINDS: Final[Mapping[str, tuple[int, int, int]]] = {  # answers, tokens each, tokens before
    "1 answer": (1, 1, _PAST),
    "8 answers": (8, 1, _PAST),
    "16 answers": (16, 1, _PAST),
    "4 tokens of 1": (1, 4, _PAST),
    "prompt of 128": (1, 128, 0),
}
_ANSWERS: Final = 16
_EACH: Final = blocks_for(512)
_LEAST_TOKEN: Final = 300  # below it are bytes and special tokens


@dataclass(frozen=True, slots=True)
class Tried(Settings):
    """Settings with some that are tried, by the library's names; "" leaves one to the library."""

    more: Mapping[str, str] = field(default_factory=dict)

    def for_library(self, products: Products) -> dict[str, str]:
        """Give the library's own names."""
        every = {**Settings.for_library(self, products), **self.more}
        return {name: value for name, value in every.items() if value}


class Trial:
    """A loaded model, and what it can be told to do."""

    def __init__(self, package: Path, settings: Settings) -> None:
        weights = load_weights(package)
        self._model = OpenVinoModel(
            weights, settings, most_blocks=_ANSWERS * _EACH, most_bytes=2**34
        )
        self._vocabulary = weights.sizes.vocabulary
        self._chance = np.random.default_rng(1)

    def time(self, kind: str) -> float:
        """Take one step and give its seconds."""
        answers, tokens, past = KINDS[kind]
        step = [
            Rows(
                self._chance.integers(_LEAST_TOKEN, self._vocabulary, tokens).tolist(),
                past,
                list(range(at * _EACH, (at + 1) * _EACH)),
                wanted=tokens if past else 1,
            )
            for at in range(answers)
        ]
        started = time.perf_counter()
        self._model.forward(step)
        return time.perf_counter() - started

    def judge(
        self, texts: Sequence[tuple[list[int], int]], logits: Path | None
    ) -> dict[str, object]:
        """
        Show the model *texts*, each with how many of its last tokens count.

        Gives the surprise at each of those, and the likeliest token in its place; and, where
        *logits* are the exact ones, how far those here are from them. Where that is no file yet
        it is written.
        """
        surprises: list[float] = []
        best: list[int] = []
        apart: list[float] = []
        kept: list[NDArray[np.float32]] = []
        wanted = np.load(logits, mmap_mode="r") if logits and logits.exists() else None
        for tokens, count in texts:
            blocks = list(range(blocks_for(len(tokens))))
            found = self._model.forward([Rows(tokens[:-1], 0, blocks, count)]).copy()
            surprises += _surprises(found, tokens[-count:])
            best += found.argmax(axis=-1).tolist()
            if wanted is not None:
                apart += _distances(found, wanted[len(apart) : len(apart) + count])
            elif logits is not None:
                kept.append(found)
            self._model.wipe(blocks)
        if kept and logits is not None:
            np.save(logits, np.concatenate(kept))
        return {"surprise": float(np.mean(surprises)), "best": best, "apart": apart}


def _surprises(logits: NDArray[np.float32], tokens: Sequence[int]) -> list[float]:
    before = logits.astype(np.float64)
    before -= before.max(axis=-1, keepdims=True)
    chosen = before[np.arange(len(tokens)), list(tokens)]
    found: list[float] = (np.log(np.exp(before).sum(axis=-1)) - chosen).tolist()
    return found


def _distances(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> list[float]:
    """Give how far each row lies from what is wanted, as a share of its spread."""
    spread = np.linalg.norm(wanted - wanted.mean(axis=-1, keepdims=True), axis=-1)
    shares: list[float] = (np.linalg.norm(found - wanted, axis=-1) / spread).tolist()
    return shares


def main() -> None:
    """Load, say so, and do what comes from standard input until it ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    options = parser.parse_args()
    more = dict(setting.split("=", 1) for setting in options.set)
    settings = Tried(options.threads, exact=options.exact, tiles=has_tiles(), more=more)
    trial = Trial(options.package, settings)
    _say(loaded=True)
    for line in sys.stdin:
        told = json.loads(line)
        if "time" in told:
            _say(seconds=trial.time(told["time"]))
        elif "judge" in told:
            texts = json.loads(Path(told["judge"]).read_text())
            logits = Path(told["logits"]) if told.get("logits") else None
            _say(**trial.judge(texts, logits))
        else:
            _say(bytes=memory_bytes(os.getpid()), peak=memory_bytes(os.getpid(), "VmHWM"))


def _say(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
