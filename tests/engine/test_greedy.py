import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from numpy.typing import NDArray

from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.cache import PrefixName, blocks_for
from app.enclave.engine.load import load_engine
from app.enclave.engine.lookup import Lookup
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import load_weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.question import Message, Options, Padding, Question
from image.model.support import TESTED
from tests.engine.conftest import VARIANTS
from tests.numbers import Numbers
from tests.pieces import take_all, text_of

References = dict[str, list[dict[str, object]]]
NAMES = ("demo", *TESTED, *VARIANTS)
NEW_TOKENS = 96
RANDOM_TOKENS = 16  # of a random model, as many as transformers was asked for
CLEAR_LEAD = 1e-4  # logits; below it rounding may decide, in either library
DEMO = Path(__file__).parents[2] / "local" / "demo_model" / "weights"


@contextmanager
def run_engine(folder: Path, *, exact: bool = True, threads: int = 2) -> Iterator[BatchingEngine]:
    """
    Run an engine.

    Where there is much to compute, it is in one thread: several, on cores that others use, wait
    for one another.
    """
    weights = load_weights(folder)
    model = OpenVinoModel(
        weights,
        Settings(threads=threads, exact=exact),
        most_blocks=MAX_ACTIVE_ANSWERS * blocks_for(weights.context_length),
        most_bytes=2**32,
    )
    engine = BatchingEngine(model, Numbers(), Limits(weights.context_length, weights.end_ids))
    try:
        yield engine
    finally:
        engine.close()


def continue_all(
    engine: BatchingEngine,
    prompts: Sequence[list[int]],
    most: int = NEW_TOKENS,
    prefix: PrefixName | None = None,
    padding: Padding = "constant",
) -> list[list[int]]:
    """Continue *prompts*, as many at once as may be, and give the tokens of each."""
    results = []
    for at in range(0, len(prompts), MAX_ACTIVE_ANSWERS):
        under_way = []
        for prompt in prompts[at : at + MAX_ACTIVE_ANSWERS]:
            text = " ".join(map(str, prompt))
            question = Question((Message("user", text),), Options(max_tokens=most, padding=padding))
            under_way.append(engine.start(question, deadline=time.monotonic() + 600, prefix=prefix))
        for generation in under_way:
            pieces, finish = take_all(generation)
            assert finish.reason != "error"
            results.append([int(word) for word in text_of(pieces).split()])
    return results


@pytest.mark.parametrize("name", NAMES)
def test_transformers_tokens(
    name: str,
    converted_models: dict[str, Path],
    reference_tokens: References,
) -> None:
    """
    In 32 bits the engine's greedy answers are transformers', token for token: the demo model's to
    every question of its corpus, and those of a random model of each architecture to prompts of
    lengths about the blocks'; 16 at once.
    """
    rows = reference_tokens[name]
    assert len(rows) > (1000 if name == "demo" else 5)
    most = NEW_TOKENS if name == "demo" else RANDOM_TOKENS
    prompts = [cast("list[int]", row["prompt"]) for row in rows]
    with run_engine(converted_models[name], threads=1 if name == "demo" else 2) as engine:
        answers = continue_all(engine, prompts, most)
    others = [row["text"] or row["prompt"] for row, answer in zip(rows, answers, strict=True)
              if answer != row["tokens"] and cast("float", row["margin"]) > CLEAR_LEAD]  # fmt: skip
    assert others == []
    unclear = sum(cast("float", row["margin"]) <= CLEAR_LEAD for row in rows)
    assert unclear <= len(rows) / 100, "too few answers are clear to compare"


@pytest.mark.parametrize("name", NAMES[1:])
def test_alone_and_from_a_prefix(
    name: str,
    converted_models: dict[str, Path],
    reference_tokens: References,
) -> None:
    """
    Of every architecture an answer is the same alone, among others, and when most of its prompt
    was computed in the conversation's last turn.
    """
    row = max(reference_tokens[name], key=lambda row: len(cast("list[int]", row["prompt"])))
    prompt, tokens = cast("list[int]", row["prompt"]), row["tokens"]
    with run_engine(converted_models[name]) as engine:
        mine = PrefixName(b"mine", time.monotonic() + 6000)
        continue_all(engine, [prompt[:-40]], 8, mine)
        assert continue_all(engine, [prompt], RANDOM_TOKENS, mine) == [tokens]
        assert continue_all(engine, [prompt], RANDOM_TOKENS) == [tokens]


@pytest.mark.parametrize("name", NAMES[1:])
def test_guesses(
    name: str, converted_models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Of every architecture an answer is the same when four tokens are guessed in each step, three of
    them rightly, as when none are.
    """
    prompt = list(range(4, 44))

    def guess(lookup: Lookup, most: int) -> list[int]:
        made = len(lookup) - len(prompt)
        right = [*plain[made : made + 3], 5]
        return right[:most]

    with run_engine(converted_models[name]) as engine:
        [plain] = continue_all(engine, [prompt], RANDOM_TOKENS, padding="off")
        model = cast("OpenVinoModel", engine._runner._model)
        shown: list[int] = []
        forward = model.forward

        def count(batch: Sequence[Rows]) -> NDArray[np.float32]:
            shown.extend(len(rows.tokens) for rows in batch)
            return forward(batch)

        monkeypatch.setattr(model, "forward", count)
        monkeypatch.setattr(Lookup, "guess", guess)
        assert continue_all(engine, [prompt], RANDOM_TOKENS) == [plain]
    assert len(shown) <= 2 + len(plain) / 3
    assert max(shown[1:], default=5) == 5


def test_int8_agreement(converted_models: dict[str, Path], reference_tokens: References) -> None:
    """
    With 8-bit weights, keys and values at least 98 of 100 answers of the demo model are, token
    for token, those it gives in 32 bits; a third of the corpus is asked, from all over it.
    """
    rows = reference_tokens["demo"][::3]
    assert len(rows) > 500
    with run_engine(DEMO, exact=False, threads=1) as engine:
        answers = continue_all(engine, [cast("list[int]", row["prompt"]) for row in rows])
    same = sum(answer == row["tokens"] for row, answer in zip(rows, answers, strict=True))
    assert same >= 0.98 * len(rows)
    assert load_weights(DEMO).precision == "int8"
    assert load_weights(converted_models["demo"]).precision == "fp32"


@pytest.mark.parametrize("name", ["demo", "llama", "smollm3", "gpt_oss"])
def test_a_package_serves(name: str, converted_models: dict[str, Path]) -> None:
    """
    A package passes its own check here and answers through its own tokenizer and template; every
    other one has done so where it was made.
    """
    engine = load_engine(load_weights(converted_models[name]), threads=2)
    try:
        question = Question((Message("user", "Hello"),), Options(max_tokens=4))
        generation = engine.start(question, deadline=time.monotonic() + 600)
        while generation.finish is None:
            generation.take(5)
        assert generation.finish.reason in {"length", "stop"}
        assert generation.finish.prompt_tokens > 1
    finally:
        engine.close()
