"""
What int8 and int4 weights cost in quality: the demo model against itself in 32 bits.

    $ VENV=.venv-convert bin/setup convert
    $ .venv-convert/bin/python -m benchmarks.quality --json quality.json

Converts the demo model at each precision and shows each the held-out questions, computing as the
enclave does: activations in groups of 8 bits, keys and values in 8 bits, except for 32-bit weights.
"""

import argparse
import math
import platform
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray
from tokenizers import Tokenizer

from app.enclave.engine.prompt import plain_transcript
from app.protocol.question import Message
from benchmarks.engine.machine import describe_machine, write_report
from image.model.graph import CORE, EXACT, GRAPH_NAME, compute_logits, logprobs
from local.demo_model.corpus import read_corpus
from local.demo_model.measure import is_near
from local.demo_model.pack import SOURCE_PATH, pack

PRECISIONS: Final = ("fp32", "bf16", "int8", "int4")  # the first is what others are held to
MOST_TOKENS: Final = 96
END_ID: Final = 2
_AS_SERVED: Final = {"INFERENCE_PRECISION_HINT": "f32"}


@dataclass(frozen=True, slots=True)
class Quality:
    """
    What one precision came to.

    Attributes:
        weights_bytes: Of the numbers.

        perplexity: Of the corpus's answers to held-out questions, end token included.

        same: Answers that are those of 32 bits to the letter.

        near: The same, or 90 % of the characters in order.

        right: Answers that are the corpus's to the letter.
    """

    precision: str
    weights_bytes: int
    perplexity: float
    same: int
    near: int
    right: int
    total: int


@dataclass(frozen=True, slots=True)
class Case:
    """A held-out question, as tokens, and the corpus's answer."""

    prompt: list[int]
    answer: list[int]
    text: str


def read_cases(tokenizer: Tokenizer) -> list[Case]:
    """Give every held-out question; those whose prompts are of one length stand together."""
    pairs = [(text, entry.answer) for entry in read_corpus() for text in entry.held_out]
    cases = [
        Case(
            prompt=tokenizer.encode(plain_transcript([Message("user", text)])).ids,
            answer=[*tokenizer.encode(f" {answer}").ids, END_ID],
            text=answer,
        )
        for text, answer in pairs
    ]
    return sorted(cases, key=lambda case: len(case.prompt))


def measure_perplexity(model: openvino.CompiledModel, cases: Sequence[Case]) -> float:
    """Give e to the mean surprise at each token of the answers."""
    surprises: list[float] = []
    for case in cases:
        tokens = (*case.prompt, *case.answer)
        logits = compute_logits(model, tokens)[len(case.prompt) - 1 : -1]
        surprises += (-logprobs(logits, case.answer)).tolist()
    return math.exp(sum(surprises) / len(surprises))


def answer_all(
    model: openvino.CompiledModel, tokenizer: Tokenizer, cases: Sequence[Case]
) -> list[str]:
    """Give the greedy answer to each case; prompts of one length go together, none is padded."""
    answers: list[str] = []
    for _, group in groupby(cases, key=lambda case: len(case.prompt)):
        rows = np.array([case.prompt for case in group], np.int64)
        made = np.stack(list(_continue(model, rows)), axis=1).tolist()
        ended = [[*row, END_ID] for row in made]
        answers += [tokenizer.decode(row[: row.index(END_ID)]).strip() for row in ended]
    return answers


def _continue(
    model: openvino.CompiledModel, rows: NDArray[np.int64]
) -> Iterator[NDArray[np.int64]]:
    """Give the next token of each row, again and again, until all have ended."""
    request = model.create_infer_request()
    count, length = rows.shape
    ended = np.zeros(count, np.bool_)
    ids = rows
    for step in range(MOST_TOKENS):
        mask = np.ones((count, length + step), np.int64)
        beams = np.arange(count, dtype=np.int32)
        request.start_async({"input_ids": ids, "attention_mask": mask, "beam_idx": beams})
        request.wait()
        ids = request.get_tensor("logits").data[:, -1].argmax(axis=-1)[:, None]
        yield ids[:, 0]
        ended |= ids[:, 0] == END_ID
        if ended.all():
            return


def measure(folder: Path) -> list[Quality]:
    """Convert at each precision into *folder*, and measure."""
    tokenizer = Tokenizer.from_file(str(SOURCE_PATH / "tokenizer.json"))
    cases = read_cases(tokenizer)
    found: list[Quality] = []
    exact: list[str] = []
    for precision in PRECISIONS:
        package = folder / precision
        pack(package, precision)
        settings = EXACT if precision == "fp32" else _AS_SERVED
        model = CORE.compile_model(package / GRAPH_NAME, "CPU", settings)
        answers = answer_all(model, tokenizer, cases)
        exact = exact or answers
        found.append(
            Quality(
                precision=precision,
                weights_bytes=(package / GRAPH_NAME).with_suffix(".bin").stat().st_size,
                perplexity=measure_perplexity(model, cases),
                same=sum(a == b for a, b in zip(answers, exact, strict=True)),
                near=sum(is_near(a, b) for a, b in zip(answers, exact, strict=True)),
                right=sum(a == case.text for a, case in zip(answers, cases, strict=True)),
                total=len(cases),
            )
        )
    return found


def table(found: Sequence[Quality]) -> str:
    """Write what was found as a table of docs/models.md."""
    lines = [
        "| weights | bytes | perplexity | answers as in fp32 | or nearly | the corpus's own |",
        "|---|---|---|---|---|---|",
    ]
    for q in found:
        shares = (f"{100 * n / q.total:.1f} %" for n in (q.same, q.near, q.right))
        size = f"{q.weights_bytes:,}"
        lines.append(f"| {q.precision} | {size} | {q.perplexity:.5f} | {' | '.join(shares)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print the table, and write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description="Measure what narrow weights cost (a minute).")
    parser.add_argument("--json", type=Path, help="file to write what was found into")
    out = parser.parse_args().json
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    print(table(found))
    if out is not None:
        versions = {"openvino": openvino.__version__, "python": platform.python_version()}
        record = {
            "processor": describe_machine()["processor"],
            **versions,
            "found": [asdict(q) for q in found],
        }
        write_report(out, record)


if __name__ == "__main__":
    main()
