"""
The plain graph: what a package's model computes of one text alone, in 32 bits and without pages.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as operations

GRAPH_NAME: Final = "openvino_model.xml"
NUMBERS_NAME: Final = "openvino_model.bin"
# One, and for good: see docs/upstream/openvino-signal-stack.md.
CORE: Final = openvino.Core()
# Nothing is quantized but the weights: other processors compute the same, but for rounding.
EXACT: Final = {
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
}
_PLACES: Final = "places"  # our own input: where logits are computed

Logits = NDArray[np.float64]


def compile_plain(folder: Path) -> openvino.CompiledModel:
    """Compile the graph in *folder* so that it computes logits only where they are asked for."""
    model = CORE.read_model(folder / GRAPH_NAME)
    head = model.get_results()[0].input_value(0).get_node()
    while head.get_type_name() != "MatMul" and head.get_input_size():
        head = head.input_value(0).get_node()
    if head.get_input_size():  # else all are computed, and chosen afterwards
        places = operations.parameter([-1], np.int64, name=_PLACES)
        places.output(0).get_tensor().set_names({_PLACES})
        axis = operations.constant(1, dtype=np.int64)
        chosen = operations.gather(head.input_value(0), places, axis)
        head.input(0).replace_source_output(chosen.output(0))
        model.add_parameters([places])
        model.validate_nodes_and_infer_types()
    return CORE.compile_model(model, "CPU", EXACT)


def compute_logits(
    model: openvino.CompiledModel, tokens: Sequence[int], places: Sequence[int] | None = None
) -> Logits:
    """Give the logits after each of *tokens*, or those at *places*, [places, vocabulary]."""
    count = len(tokens)
    chosen = np.arange(count) if places is None else np.array(places)
    given = {
        "input_ids": np.array([tokens], np.int64),
        "attention_mask": np.ones((1, count), np.int64),
        "position_ids": np.arange(count, dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
        _PLACES: chosen.astype(np.int64),
    }
    wanted = {port.any_name for port in model.inputs}
    request = model.create_infer_request()
    # In the executor's own threads: see docs/upstream/openvino-use-after-free.md.
    request.start_async({name: value for name, value in given.items() if name in wanted})
    request.wait()
    logits: Logits = request.get_tensor("logits").data[0].astype(np.float64)
    return logits if _PLACES in wanted else logits[chosen]


def logprobs(logits: Logits, tokens: Sequence[int]) -> Logits:
    """Give the log-probability of each of *tokens*, by the *logits* before it, a row each."""
    before = logits - logits.max(axis=-1, keepdims=True)
    chosen = before[np.arange(len(tokens)), list(tokens)]
    found: Logits = chosen - np.log(np.exp(before).sum(axis=-1))
    return found


def distances(found: Logits, wanted: Logits) -> Logits:
    """Give, a row each, how far *found* lies from *wanted*, as a share of its spread."""
    spread = np.linalg.norm(wanted - wanted.mean(axis=-1, keepdims=True), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares: Logits = np.linalg.norm(found - wanted, axis=-1) / spread
    return np.nan_to_num(shares, nan=np.inf)
