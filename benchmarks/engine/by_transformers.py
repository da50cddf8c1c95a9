"""
Contender: transformers on torch.

In fp32 and one question after the other it is the loop of the sample that this project set out
from: tokenise, `generate()`, next question. In bf16 all questions of a run are one static batch.
"""

import argparse
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import Final

import torch
from transformers import AutoModelForCausalLM, StoppingCriteria, StoppingCriteriaList

from benchmarks.engine.contender import Answers, Prompt, serve
from benchmarks.engine.shapes import SHAPES, source_of

_TYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16}


class _FirstToken(StoppingCriteria):  # type: ignore[misc]  # transformers is not installed here
    """Stops nothing, and notes when it was asked first: after the first token."""

    def __init__(self) -> None:
        self.at: float | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        """Note the time."""
        del scores
        if self.at is None:
            self.at = time.perf_counter()
        return torch.zeros(len(input_ids), dtype=torch.bool)


class _Model:
    def __init__(self, shape: str, kind: str) -> None:
        source = source_of(SHAPES[shape])
        self._model = AutoModelForCausalLM.from_pretrained(source, dtype=_TYPES[kind]).eval()
        self._model.generation_config.eos_token_id = None

    def one_by_one(self, prompts: Sequence[Prompt], new_tokens: int) -> Answers:
        """Answer one question after the other; who asks last waits for all."""
        started = time.perf_counter()
        parts = [self._generate([prompt], new_tokens, started) for prompt in prompts]
        return Answers(
            time.perf_counter() - started,
            [first for part in parts for first in part.first_seconds],
            [count for part in parts for count in part.tokens],
            parts[0].sample,
        )

    def together(self, prompts: Sequence[Prompt], new_tokens: int) -> Answers:
        """Answer all questions in one batch; all prompts have one length."""
        return self._generate(prompts, new_tokens, time.perf_counter())

    def _generate(self, prompts: Sequence[Prompt], new_tokens: int, started: float) -> Answers:
        first = _FirstToken()
        tokens = torch.tensor([prompt.tokens for prompt in prompts])
        with torch.inference_mode():
            made = self._model.generate(
                input_ids=tokens,
                attention_mask=torch.ones_like(tokens),
                max_new_tokens=new_tokens,
                do_sample=False,
                stopping_criteria=StoppingCriteriaList([first]),
            )
        ended = time.perf_counter()
        new = made[:, tokens.shape[1] :]
        return Answers(
            ended - started,
            [(first.at or ended) - started] * len(prompts),
            [new.shape[1]] * len(prompts),
            new[0].tolist(),
        )


def main() -> None:
    """Load and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("kind", choices=_TYPES)
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = _Model(options.shape, options.kind)
    ask = model.one_by_one if options.kind == "fp32" else model.together
    serve(ask, versions={name: version(name) for name in ("torch", "transformers")})


if __name__ == "__main__":
    main()
