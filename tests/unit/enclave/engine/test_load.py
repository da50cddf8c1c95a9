import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13 as operations

from app.enclave.engine import model as model_module
from app.enclave.engine.batching import BatchingEngine
from app.enclave.engine.cache import PrefixName, blocks_for
from app.enclave.engine.generation import BatchedAnswers
from app.enclave.engine.load import load_engine
from app.enclave.engine.model import OpenVinoModel, Products, Settings, find_products
from app.enclave.engine.schedule import PREFILL_TOKENS
from app.enclave.engine.step import Rows
from app.enclave.engine.tokenizer import Tokenizer
from app.enclave.engine.weights import Weights, load_weights
from app.protocol.constants import MAX_ACTIVE_ANSWERS
from app.protocol.errors import EngineError, WeightsError
from app.protocol.question import Message, Options, Question
from tests.pieces import take_all, text_of

DEMO = Path(__file__).parents[4] / "local" / "demo_model" / "weights"
GIB = 2**30


@pytest.fixture(scope="module")
def weights() -> Weights:
    return load_weights(DEMO)


@pytest.fixture(scope="module")
def model(weights: Weights) -> OpenVinoModel:
    return make_model(weights)


@pytest.fixture
def engine(weights: Weights) -> Iterator[BatchingEngine]:
    engine = load_engine(weights, threads=1)
    yield engine
    engine.close()


def make_model(weights: Weights, *, most_blocks: int = 64, most_bytes: int = GIB) -> OpenVinoModel:
    return OpenVinoModel(
        weights, Settings(threads=1, exact=False), most_blocks=most_blocks, most_bytes=most_bytes
    )


def ask(text: str, **options: object) -> Question:
    return Question((Message("user", text),), Options(**options))  # type: ignore[arg-type]


def read(generation: BatchedAnswers) -> str:
    pieces, finish = take_all(generation)
    assert finish.reason != "error"
    return text_of(pieces)


def start(engine: BatchingEngine, question: Question, name: str | None = None) -> BatchedAnswers:
    prefix = PrefixName(name.encode(), time.monotonic() + 600) if name else None
    return engine.start(question, deadline=time.monotonic() + 60, prefix=prefix)


@pytest.mark.parametrize(
    ("widths", "group"),
    [((1024, 4096), "256"), ((2048, 768), "256"), ((2880, 4096), "64"), ((192, 768), "64"),
     ((100,), "32"), ((), "256")],
)  # fmt: skip
def test_groups_divide_every_width(widths: tuple[int, ...], group: str) -> None:
    """
    Activations share a scale in the largest group that leaves no rest in any of the model's
    matrices: one wider than a matrix would switch its 8-bit products off.
    """
    products = Products(widths)
    served = Settings(threads=3, exact=False, tiles=True).for_library(products)
    assert served == {
        "CPU_RUNTIME_CACHE_CAPACITY": "64",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
        "INFERENCE_NUM_THREADS": "3",
        "INFERENCE_PRECISION_HINT": "f32",
        "KV_CACHE_PRECISION": "u8",
        "PERFORMANCE_HINT": "LATENCY",
    }
    exact = Settings(threads=3, exact=True).for_library(products)
    assert exact == served | {
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0", "KV_CACHE_PRECISION": "f32",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("kept", "row_major", "width"),
    [
        ((8, 2, 64), True, 64),
        ((8, 4, 32), True, 32),
        ((2, 64, 8), False, 64),
        ((8, 128), True, 128),
    ],
)
def test_groups_are_no_wider_than_scales(
    kept: tuple[int, ...], *, row_major: bool, width: int
) -> None:
    """
    Where fewer weights than a row share a scale, no more activations do: else the library widens
    the weights before it multiplies, and takes twice the time.
    """
    activations = operations.parameter([-1, 128], np.float32)
    weights = operations.constant(np.ones(kept), openvino.Type.u4)
    scaled = operations.multiply(operations.convert(weights, np.float32), np.float32(2))
    whole = operations.reshape(scaled, [8, 128] if row_major else [128, 8], special_zero=False)
    product = operations.matmul(activations, whole, transpose_a=False, transpose_b=row_major)
    products = find_products(openvino.Model([product], [activations]))
    assert products == Products([width])


def test_experts_take_tiles() -> None:
    """
    A mixture of experts is computed in 16-bit floats where the processor has AMX, unless its
    weights have 32; no other model is, and on no other processor.
    """
    hints = {
        (tiles, experts, exact): Settings(1, exact=exact, tiles=tiles).for_library(
            Products((64,), experts)
        )["INFERENCE_PRECISION_HINT"]
        for tiles, experts, exact in product((True, False), repeat=3)
    }
    assert hints.pop((True, True, False)) == "bf16"
    assert set(hints.values()) == {"f32"}


def test_the_library_takes_the_settings(model: OpenVinoModel) -> None:
    """
    What is asked of the library is what the compiled model says of itself: the demo model's
    matrices are 192 and 768 wide.
    """
    compiled = model._chain._requests[0].get_compiled_model()
    assert compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 64
    assert compiled.get_property("KV_CACHE_PRECISION").to_string() == "u8"
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == "256"


def test_pieces(model: OpenVinoModel, weights: Weights) -> None:
    """
    A prompt shown in pieces, in blocks of any order, gives what it gives at once.
    """
    tokens = Tokenizer(weights).encode(ask("How do I enrol in the dental plan? " * 4))
    whole = model.forward([Rows(tokens, 0, [0, 1, 2, 3], 1)]).copy()
    blocks = [9, 4, 7, 5]
    nothing = model.forward([Rows(tokens[:20], 0, blocks, 0)])
    assert nothing.shape == (0, weights.sizes.vocabulary)
    pieces = model.forward([Rows(tokens[20:], 20, blocks, 1)])
    assert pieces.shape == (1, weights.sizes.vocabulary)
    assert np.abs(pieces - whole).max() < 0.2  # keys and values have 8 bits
    assert pieces.argmax() == whole.argmax()


def test_batch(model: OpenVinoModel, weights: Weights) -> None:
    """
    In one step answers at different places get what they get alone.
    """
    tokenizer = Tokenizer(weights)
    texts = ("My email is down", "How do I enrol in the dental plan?", "Hello")
    prompts = [tokenizer.encode(ask(text)) for text in texts]
    alone = [model.forward([Rows(p, 0, [0], 1)])[0].copy() for p in prompts]
    model.forward([Rows(prompts[0][:5], 0, [20], 0)])
    together = model.forward([
        Rows(prompts[0][5:], 5, [20], 1), Rows(prompts[1], 0, [21], 1), Rows(prompts[2], 0, [22], 1)
    ])  # fmt: skip
    assert [row.argmax() for row in together] == [row.argmax() for row in alone]
    assert np.abs(together - np.array(alone)).max() < 0.2


def test_wanted(model: OpenVinoModel) -> None:
    """
    Logits of the last tokens are given, as many as are wanted, in order.
    """
    every = model.forward([Rows([5, 6, 7, 8], 0, [0], 4)]).copy()
    last = model.forward([Rows([5, 6, 7, 8], 0, [1], 2), Rows([9], 0, [2], 1)])
    assert every.shape[0] == 4
    assert np.abs(every[2:] - last[:2]).max() < 0.05
    assert len(last) == 3


@pytest.mark.parametrize(
    "rows",
    [
        Rows([2048], 0, [0], 1),
        Rows([5], 1024, list(range(33)), 1),
        Rows([5], 0, [64], 1),
        Rows([5], 0, [0], 2),
    ],
    ids=["token", "place", "block", "wanted"],
)
def test_out_of_bounds(model: OpenVinoModel, weights: Weights, rows: Rows) -> None:
    """
    What the model has no room for is refused before the library sees any of it.
    """
    assert (weights.sizes.vocabulary, weights.context_length) == (2048, 1024)
    before = [cache.copy() for cache in model._caches]
    with pytest.raises(EngineError):
        model.forward([Rows([5, 6], 0, [7], 1), rows])
    assert all(map(np.array_equal, model._caches, before))


def test_wipe_out_of_bounds(model: OpenVinoModel) -> None:
    """
    Only blocks of the model are wiped.
    """
    with pytest.raises(EngineError):
        model.wipe([-1])


def test_other_logits_than_wanted(weights: Weights) -> None:
    """
    A library that gives more logits than were wanted, or fewer, has failed.
    """
    model = make_model(weights)
    given = SimpleNamespace(data=np.zeros((3, 1, 2048), np.float32))
    chain = SimpleNamespace(set_tensor=lambda *_: None, compute=lambda: given)
    model._chain = chain  # type: ignore[assignment]  # what a step needs of one
    with pytest.raises(EngineError):
        model.forward([Rows([5, 6], 0, [7], 2)])


def test_wipe(weights: Weights) -> None:
    """
    What was in a block is overwritten, and other blocks keep what they have.
    """
    model = make_model(weights)
    model.forward([Rows([5, 6, 7], 0, [3], 1)])
    model.forward([Rows([5, 6, 7], 0, [4], 1)])
    held = [cache[4].copy() for cache in model._caches]
    model.wipe([3])
    assert not any(cache[3].any() for cache in model._caches)
    assert all(
        np.array_equal(cache[4], was) for cache, was in zip(model._caches, held, strict=True)
    )
    assert any(was.any() for was in held)


def test_blocks(weights: Weights) -> None:
    """
    Blocks are as many as are wanted, or as fit into the memory given.
    """
    assert make_model(weights, most_blocks=7).blocks == 7
    few = make_model(weights, most_bytes=10 * make_model(weights).block_bytes + 1)
    assert few.blocks == 10


def test_room(engine: BatchingEngine, weights: Weights) -> None:
    """
    The engine has blocks for as many whole contexts as may be under way.
    """
    assert engine._runner._cache.blocks == MAX_ACTIVE_ANSWERS * blocks_for(weights.context_length)


def test_too_little_memory(
    weights: Weights, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """
    Where memory does not hold one context, the message says what is needed and what there is.
    """
    (tmp_path / "meminfo").write_text("MemTotal: 4096 kB\nMemAvailable: 1024 kB\n")
    monkeypatch.setattr(model_module, "_MEMORY_INFO", tmp_path / "meminfo")
    with pytest.raises(WeightsError, match=r"need \d+ MiB of free memory, there are 1: give"):
        load_engine(weights, threads=1)


def test_memory_is_read() -> None:
    """
    The kernel's own figure of available memory is taken.
    """
    assert 2**24 < model_module.free_bytes() < 2**50


@pytest.mark.parametrize("off", [-0.2, 0.2, float("nan")])
def test_another_processor(weights: Weights, off: float) -> None:
    """
    A model that computes something else here than where it was packed is refused.
    """
    check = replace(weights.check, mean_logprob=weights.check.mean_logprob + off)
    with pytest.raises(WeightsError, match="this processor computes another model"):
        load_engine(replace(weights, check=check), threads=1)


def watch_steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Give the tokens of each step that models are shown from now on."""
    shown: list[int] = []
    forward = OpenVinoModel.forward

    def watch(self: OpenVinoModel, batch: Sequence[Rows]) -> NDArray[np.float32]:
        shown.append(sum(len(rows.tokens) for rows in batch))
        return forward(self, batch)

    monkeypatch.setattr(OpenVinoModel, "forward", watch)
    return shown


def test_longest_step_is_tried(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Before it serves, the model has been shown a step as long as any that prompts make: were there
    weights that only those read, and that were given up, it would end here.
    """
    monkeypatch.setattr("app.enclave.engine.pieces.LEAST_BYTES", 1)
    shown = watch_steps(monkeypatch)
    load_engine(weights, threads=1).close()
    assert max(shown) == min(PREFILL_TOKENS, weights.context_length - 1)


def test_nothing_more_is_tried_where_nothing_was_given_up(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    A model that keeps its file, as small ones and mixtures of experts do, starts without the
    longest step: no long prompt can read what is gone.
    """
    shown = watch_steps(monkeypatch)
    load_engine(weights, threads=1).close()
    assert max(shown) == len(weights.check.tokens) - 1


def test_saturating_processor(weights: Weights, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Products that saturate, as 8-bit ones may without VNNI, are noticed by the check.
    """
    forward = OpenVinoModel.forward

    def saturate(self: OpenVinoModel, batch: list[Rows]) -> NDArray[np.float32]:
        return np.clip(forward(self, batch), -1, 1)

    monkeypatch.setattr(OpenVinoModel, "forward", saturate)
    with pytest.raises(WeightsError, match="this processor computes another model"):
        load_engine(weights, threads=1)


@pytest.mark.parametrize("content", [b"", b"<net/>", b"<?xml version='1.0'?><net name='x'/>"])
def test_no_model(weights: Weights, tmp_path: Path, content: bytes) -> None:
    """
    What OpenVINO cannot read, or is no language model, is refused with the documented error.
    """
    (tmp_path / "openvino_model.xml").write_bytes(content)
    (tmp_path / "openvino_model.bin").write_bytes(b"")
    with pytest.raises(WeightsError):
        load_engine(replace(weights, folder=tmp_path), threads=1)


def test_all_at_once(engine: BatchingEngine) -> None:
    """
    As many answers at once as may be are those that come one after another.
    """
    questions = [
        ask(f"How do I reset password number {n}?", max_tokens=30)
        for n in range(MAX_ACTIVE_ANSWERS)
    ]
    alone = [read(start(engine, question)) for question in questions]
    together = [start(engine, question) for question in questions]
    assert [read(generation) for generation in together] == alone


def test_seed(engine: BatchingEngine) -> None:
    """
    A seed makes sampling reproducible; among other seeds, or none, answers differ.

    Any two may be equal: one answer comes a fifth of the time, whatever is drawn.
    """

    def sample(seed: int | None) -> str:
        return read(start(engine, ask("Hello", max_tokens=24, temperature=2.0, seed=seed)))

    seeded = [sample(seed) for seed in range(12)]
    assert [sample(seed) for seed in range(12)] == seeded
    assert len(set(seeded)) > 1
    assert len({sample(None) for _ in range(12)}) > 1


@pytest.mark.parametrize("cut", [{"top_k": 1}, {"top_p": 1e-6}])
def test_cut_to_one(engine: BatchingEngine, cut: dict[str, float]) -> None:
    """
    Sampling among the one likeliest token is greedy.
    """
    greedy = read(start(engine, ask("My email is down", max_tokens=24)))
    sampled = start(engine, ask("My email is down", max_tokens=24, temperature=2.0, **cut))
    assert read(sampled) == greedy


def test_conversations_apart(engine: BatchingEngine) -> None:
    """
    Asking the same twice gives the same, whatever other conversations asked between.
    """
    first = read(start(engine, ask("My email is down", max_tokens=40)))
    for name in ("one", "two"):
        read(start(engine, ask("My email is down. Where do I park?", max_tokens=40), name))
    assert read(start(engine, ask("My email is down", max_tokens=40), "three")) == first


def test_second_turn(engine: BatchingEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    What a conversation kept of its first turn changes nothing of the second's answer.
    """
    first = ask("My email is down", max_tokens=60)
    answer = read(start(engine, first, "mine"))
    messages = (*first.messages, Message("assistant", answer), Message("user", "And my phone?"))
    second = Question(messages, Options(max_tokens=40))
    shown: list[int] = []
    forward = engine._runner._model.forward

    def count(batch: Sequence[Rows]) -> NDArray[np.float32]:
        shown.append(sum(len(rows.tokens) for rows in batch))
        return forward(batch)

    monkeypatch.setattr(engine._runner._model, "forward", count)
    with_prefix = read(start(engine, second, "mine"))
    saved = sum(shown)
    shown.clear()
    assert read(start(engine, second)) == with_prefix
    assert sum(shown) - saved > 40


def test_schema(engine: BatchingEngine) -> None:
    """
    A loaded engine holds answers to a schema, several beside others that are free.
    """
    schema = '{"type": "object", "properties": {"plan": {"enum": ["dental", "vision"]}, "days": '
    schema += '{"type": "integer", "minimum": 1, "maximum": 31}}, "required": ["plan", "days"]'
    schema += ', "additionalProperties": false}'
    held = start(engine, ask("Where do I enrol?", schema=schema, n=3, max_tokens=250))
    free = start(engine, ask("Where do I enrol?", max_tokens=8))
    pieces, finish = take_all(held)
    assert finish.reasons == ("stop",) * 3
    for index in range(3):
        answer = json.loads(text_of(pieces, index))
        assert answer["plan"] in {"dental", "vision"}
        assert 1 <= answer["days"] <= 31
    assert read(free)
