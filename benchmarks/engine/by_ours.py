"""
Contender: our engine, bare: no frames, no cryptography, no other process.
"""

import argparse
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from app.enclave.engine.interface import Engine
from app.enclave.engine.load import load_engine
from app.enclave.engine.weights import load_weights
from app.protocol.constants import ANSWER_DEADLINE_SECONDS
from app.protocol.question import Message, Options, Question
from benchmarks.engine.contender import Answers, Prompt, run_together, serve

_POLL_SECONDS: Final = 0.1  # as the enclave takes text


class _Asker:
    """One asker's thread: starts a generation and takes its text until it has ended."""

    def __init__(self, engine: Engine, prompt: Prompt, new_tokens: int) -> None:
        self._engine = engine
        # Random weights repeat themselves: with padding, alone, that would be guessed.
        options = Options(max_tokens=new_tokens, padding="off")
        self._question = Question((Message("user", prompt.text),), options)
        self.first: float = 0
        self.tokens = 0

    def run(self) -> None:
        """Ask, and note when the first text came."""
        deadline = time.monotonic() + ANSWER_DEADLINE_SECONDS
        generation = self._engine.start(self._question, deadline=deadline)
        while (finish := generation.finish) is None:
            if generation.take(_POLL_SECONDS) and not self.first:
                self.first = time.perf_counter()
        if finish.reason == "error":
            raise RuntimeError("our engine could not answer")
        self.tokens = finish.completion_tokens


def ask(engine: Engine, prompts: Sequence[Prompt], new_tokens: int) -> Answers:
    """Have an asker's thread for each of *prompts* ask it."""
    askers = [_Asker(engine, prompt, new_tokens) for prompt in prompts]
    started, ended = run_together([asker.run for asker in askers])
    first = [asker.first - started for asker in askers]
    return Answers(ended - started, first, [asker.tokens for asker in askers])


def main() -> None:
    """Load and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    engine = load_engine(load_weights(options.package), threads=options.threads)
    serve(
        lambda prompts, new_tokens: ask(engine, prompts, new_tokens),
        versions={"openvino": version("openvino")},
    )
    engine.close()


if __name__ == "__main__":
    main()
