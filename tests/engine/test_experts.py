import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from app.enclave.engine import model as engine_model
from app.enclave.engine import pieces
from app.enclave.engine.cache import blocks_for
from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.step import Rows
from app.enclave.engine.weights import Weights, load_weights
from image.model.memory import is_mixture

# The session's models are made within the first test that asks for them.
pytestmark = pytest.mark.timeout(660)

LAYERS = 2


@pytest.mark.parametrize(("name", "products"), [("qwen3_moe", 3), ("gpt_oss", 2)])
@pytest.mark.parametrize("exact", [True, False])
def test_experts_are_gathered(
    converted_models: dict[str, Path], name: str, products: int, *, exact: bool
) -> None:
    """
    Of a mixture of experts only those that tokens are routed to are read: each product of experts
    is one that gathers their weights, and none goes through all of them.
    """
    model = OpenVinoModel(
        load_weights(converted_models[name]),
        Settings(1, exact=exact),
        most_blocks=4,
        most_bytes=2**30,
    )
    kinds = count_kinds(model)
    assert kinds["GatherMatmul"] + kinds["GatherMatmulCompressed"] == LAYERS * products
    assert kinds["MatMul"] == 1  # the frequencies of rotary embeddings


def test_the_tools_know_them(converted_models: dict[str, Path]) -> None:
    """
    Of each model that is converted the image's tools say by its graph whether it is a mixture, so
    that its memory is counted as one's.
    """
    found = {name: is_mixture(folder) for name, folder in converted_models.items()}
    mixtures = {"gpt_oss", "gpt_oss-mxfp4", "granitemoe", "mixtral", "qwen3_moe"}
    assert found == {name: name in mixtures for name in converted_models}


@pytest.mark.parametrize("name", ["granitemoe", "mixtral"])
def test_experts_that_no_step_had_used(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """
    Steps route tokens to experts that none before them did. So a mixture stays whole, and nothing
    of it is given up, however large.
    """
    monkeypatch.setattr(pieces, "LEAST_BYTES", 1)
    folder = tmp_path / name
    shutil.copytree(made / "narrow" / name, folder)
    weights = load_weights(folder)
    numbers = (folder / "openvino_model.bin").stat().st_size
    model = load(weights, owned=True)
    left = (folder / "openvino_model.bin").stat().st_blocks * 512
    assert left > 0.9 * numbers
    assert count_kinds(model)["GatherMatmul"] == (LAYERS * 3 if name == "mixtral" else 0)
    monkeypatch.setattr(engine_model, "_COPIED", ())
    whole = load(load_weights(made / "narrow" / name), owned=False)
    chance = np.random.default_rng(1)
    for count in (1, 2, 3, 5, 8, 33, 300):
        tokens = chance.integers(4, 2000, count).tolist()
        step = [Rows(tokens, 0, list(range(blocks_for(count))), 1)]
        assert np.array_equal(model.forward(step), whole.forward(step))


def count_kinds(model: OpenVinoModel) -> Counter[str]:
    """Count the operations of *model*, which is in one piece, by what the library made of them."""
    (request,) = model._chain._requests
    graph = request.get_compiled_model().get_runtime_model()
    return Counter(op.get_rt_info()["layerType"].astype(str) for op in graph.get_ops())


def load(weights: Weights, *, owned: bool) -> OpenVinoModel:
    settings = Settings(1, exact=False)
    return OpenVinoModel(weights, settings, most_blocks=16, most_bytes=2**30, owned=owned)
