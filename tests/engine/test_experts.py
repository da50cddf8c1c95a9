from collections import Counter
from pathlib import Path

import pytest

from app.enclave.engine.model import OpenVinoModel, Settings
from app.enclave.engine.weights import load_weights

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
    (request,) = model._chain._requests
    graph = request.get_compiled_model().get_runtime_model()
    kinds = Counter(op.get_rt_info()["layerType"].astype(str) for op in graph.get_ops())
    assert kinds["GatherMatmul"] + kinds["GatherMatmulCompressed"] == LAYERS * products
    assert kinds["MatMul"] == 1  # the frequencies of rotary embeddings
