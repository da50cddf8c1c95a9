import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openvino
import pytest
from numpy.typing import NDArray
from openvino import opset13 as operations
from openvino._offline_transformations import paged_attention_transformation

from app.enclave.engine import pieces
from app.enclave.engine.cache import blocks_for
from app.enclave.engine.chain import CORE, is_cache, load_chain, make_cache
from app.enclave.engine.mapped import KEPT, MappedWeights
from app.enclave.engine.model import OpenVinoModel, Settings, find_products
from app.enclave.engine.step import Rows, encode_step
from app.enclave.engine.weights import Weights, load_weights
from benchmarks.engine.large_package import LargeShape, write_package

ROOT = Path(__file__).parents[4]
DEMO = ROOT / "local" / "demo_model" / "weights"
SMALL = LargeShape(6, 64, 256, 4, 2, 16, 512, tied=False, bits=8, context=256)
TOKENS = [5, 300, 17, 400, 42]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Weights:
    """A package of six layers."""
    folder = tmp_path_factory.mktemp("six-layers")
    write_package(folder, SMALL, "six-layers")
    return load_weights(folder)


def compute(weights: Weights, count: int) -> tuple[OpenVinoModel, NDArray[np.float32]]:
    """Load *weights* in *count* pieces at most, and give the logits of a prompt and two tokens."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "LEAST_BYTES", 1)
        patch.setattr(pieces, "MOST_PIECES", count)
        model = OpenVinoModel(weights, Settings(1, exact=False), most_blocks=4, most_bytes=2**30)
    steps = [Rows(TOKENS, 0, [2], 5), Rows([7], 5, [2], 1), Rows([8], 6, [2], 1)]
    return model, np.concatenate([model.forward([step]).copy() for step in steps])


@pytest.mark.parametrize("count", [2, 3, 8])
def test_pieces_are_one_model(weights: Weights, count: int) -> None:
    """
    In as many pieces as wanted, a model computes what it does in one.
    """
    whole, expected = compute(weights, 1)
    model, logits = compute(weights, count)
    assert len(whole._chain._requests) == 1
    assert len(model._chain._requests) == count
    assert np.array_equal(logits, expected)
    assert np.ptp(expected) > 0
    assert {port.any_name for port in model._chain.inputs} | {"position_ids"} == {
        port.any_name for port in whole._chain.inputs
    }


def test_little_passes_between_pieces(weights: Weights) -> None:
    """
    A piece is given the states of its tokens, and little else: no matrix, for one.
    """
    model, _ = compute(weights, 4)
    for request, links in zip(model._chain._requests, model._chain._links, strict=True):
        given = [request.get_tensor(link.name).size for link in links]
        assert len(given) <= 3
        assert sum(given) <= 2 * SMALL.width


def test_small_models_are_one_piece() -> None:
    """
    A model that is smaller than two pieces is loaded as it is.
    """
    model = OpenVinoModel(
        load_weights(DEMO), Settings(1, exact=False), most_blocks=4, most_bytes=2**30
    )
    assert len(model._chain._requests) == 1


@pytest.mark.parametrize("routes", [True, False])
def test_a_mixture_of_experts_stays_whole(monkeypatch: pytest.MonkeyPatch, *, routes: bool) -> None:
    """
    A mixture of experts is one piece, and nothing of it is given up: where a cut went through its
    experts, the library would compute them all, and a matrix that no row has met is copied later.
    """
    monkeypatch.setattr(pieces, "LEAST_BYTES", 64)
    tokens = operations.parameter([-1, 4], np.float32, name="tokens")
    alone = operations.matmul(
        tokens,
        operations.constant(np.ones((4, 4), np.float32)),
        transpose_a=False,
        transpose_b=True,
    )
    every = operations.constant(np.ones((2, 4, 4), np.float32))
    together = operations.matmul(
        operations.unsqueeze(alone, 0), every, transpose_a=False, transpose_b=True
    )
    routed = operations.topk(together, 1, -1, "max", "value").output(0) if routes else together
    model = openvino.Model([operations.result(routed)], [tokens])
    made, constants = pieces.cut(model, copied=True)
    lasts = {constant.array.shape: constant.last_piece for constant in constants}
    assert (len(made) == 1) == routes
    assert (lasts[2, 4, 4] == lasts[4, 4] == KEPT) == routes


def chunks(vocabulary: int, size: int = 128) -> Iterator[range]:
    for begin in range(0, vocabulary, size):
        yield range(begin, min(begin + size, vocabulary))


def embeddings(model: openvino.Model) -> openvino.Node:
    """Give the operation that looks tokens up."""
    (found,) = [
        op
        for op in model.get_ordered_ops()
        if op.get_type_name() == "Gather" and next(iter(op.input(0).get_partial_shape())) == 2048
    ]
    return found


def test_every_embedding_is_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    The library reads embeddings where they lie. When all has been given up that it copied, it
    still gives every token's as it did before.
    """
    monkeypatch.setattr(pieces, "LEAST_BYTES", 1)
    monkeypatch.setattr(pieces, "MOST_PIECES", 1)
    folder = tmp_path / "package"
    shutil.copytree(DEMO, folder)
    weights = load_weights(folder)
    graph = (folder / "openvino_model.xml").read_text()
    plain = CORE.read_model(DEMO / "openvino_model.xml")
    asked = plain.input("input_ids").get_node()
    table = CORE.compile_model(
        openvino.Model([embeddings(plain).output(0)], [asked]), "CPU",
        {"INFERENCE_PRECISION_HINT": "f32"},
    )  # fmt: skip
    mapped = MappedWeights(folder / "openvino_model.bin", owned=True)
    model = CORE.read_model(graph, mapped.tensor)
    paged_attention_transformation(model)
    model.add_results([openvino.opset13.result(embeddings(model).output(0))])
    blocks = list(range(blocks_for(128)))
    config = Settings(1, exact=False).for_library(find_products(model))
    chain = load_chain(
        model, mapped, config, [encode_step([Rows([0] * 8, 0, [0], 8)])], copied=True
    )
    for port in filter(is_cache, chain.inputs):
        chain.set_tensor(port.any_name, make_cache(port, len(blocks)))
    left = (folder / "openvino_model.bin").stat().st_blocks * 512
    assert left < weights.sizes.weights_bytes / 2
    for tokens in chunks(2048):
        for name, value in encode_step([Rows(tokens, 0, blocks, 1)]).items():
            chain.set_tensor(name, openvino.Tensor(value))
        chain.compute()
        found = chain._requests[0].get_output_tensor(1).data.reshape(len(tokens), -1)
        wanted = table(np.array([tokens], np.int64))[0].reshape(len(tokens), -1)
        assert np.array_equal(found, wanted)


def test_a_small_model_keeps_its_file() -> None:
    """
    A model whose matrices are smaller than a piece's may be gives up nothing, and is one piece.
    """
    model = CORE.read_model(DEMO / "openvino_model.xml")
    parts, constants = pieces.cut(model, copied=True)
    assert len(parts) == 1
    assert {constant.last_piece for constant in constants} == {KEPT}


def test_a_wrong_free_never_answers() -> None:
    """
    Were something given up that the library still reads, the process would end while it loads.
    """
    done = subprocess.run(
        (sys.executable, "-P", "-m", "tests.engine.wrong_free", DEMO),
        cwd=ROOT, env={"PATH": "/usr/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stdout == ""
    assert done.returncode == -signal.SIGSEGV
