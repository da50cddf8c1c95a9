"""
Contender: llama.cpp by way of llama-cpp-python.

The binding's `Llama` object answers one question at a time. This drives the C interface below it
in place of that: all questions of a run are sequences of one context, their prompts go in
together, and each step decodes the next token of all of them in one batch.
"""

import argparse
import ctypes
import os
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import llama_cpp
import numpy as np
from numpy.typing import NDArray

from benchmarks.engine.contender import Answers, Prompt, serve
from benchmarks.engine.shapes import MOST_ASKERS, NEW_TOKENS, PROMPT_TOKENS, SHAPES, gguf_of

_BATCH_TOKENS: Final = MOST_ASKERS * PROMPT_TOKENS
_CONTEXT_TOKENS: Final = MOST_ASKERS * (PROMPT_TOKENS + NEW_TOKENS)
_DECODED: Final = 0


class _Model:
    def __init__(self, path: str, vocabulary: int, threads: int) -> None:
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = _CONTEXT_TOKENS
        settings.n_seq_max = MOST_ASKERS
        settings.n_batch = _BATCH_TOKENS
        settings.n_threads = settings.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(model, settings)
        self._batch = llama_cpp.llama_batch_init(_BATCH_TOKENS, 0, 1)
        self._vocabulary = vocabulary

    def ask(self, prompts: Sequence[Prompt], new_tokens: int) -> Answers:
        """Answer all questions in one batch."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)  # noqa: FBT003
        started = time.perf_counter()
        answers = [[token] for token in self._decode([prompt.tokens for prompt in prompts], 0)]
        first = time.perf_counter() - started
        for at in range(len(prompts[0].tokens), len(prompts[0].tokens) + new_tokens - 1):
            for answer, token in zip(
                answers, self._decode([answer[-1:] for answer in answers], at), strict=True
            ):
                answer.append(token)
        return Answers(
            time.perf_counter() - started,
            [first] * len(prompts),
            [len(answer) for answer in answers],
            answers[0],
        )

    def _decode(self, rows: Sequence[Sequence[int]], position: int) -> list[int]:
        """Show the model *rows*, a sequence each, that begin at *position*; choose what follows."""
        batch, lasts = self._batch, []
        batch.n_tokens = 0
        for sequence, row in enumerate(rows):
            for offset, token in enumerate(row):
                self._add(token, position + offset, sequence, wanted=offset == len(row) - 1)
            lasts.append(batch.n_tokens - 1)
        if llama_cpp.llama_decode(self._context, batch) != _DECODED:
            raise SystemExit("llama.cpp could not decode a batch")
        return [int(self._logits(last).argmax()) for last in lasts]

    def _add(self, token: int, position: int, sequence: int, *, wanted: bool) -> None:
        batch = self._batch
        at = batch.n_tokens
        batch.token[at] = token
        batch.pos[at] = position
        batch.n_seq_id[at] = 1
        batch.seq_id[at][0] = sequence
        batch.logits[at] = wanted
        batch.n_tokens = at + 1

    def _logits(self, at: int) -> NDArray[np.float32]:
        pointer = llama_cpp.llama_get_logits_ith(self._context, at)
        floats = ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(floats, shape=(self._vocabulary,))


def main() -> None:
    """Load and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("kind", choices=("Q8_0", "Q4_K_M"))
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    shape = SHAPES[options.shape]
    model = _Model(os.fspath(gguf_of(shape, options.kind)), shape.vocabulary, options.threads)
    machine = llama_cpp.llama_print_system_info().decode().strip()
    versions = {"llama-cpp-python": version("llama-cpp-python"), "llama.cpp": machine}
    serve(model.ask, versions=versions)


if __name__ == "__main__":
    main()
