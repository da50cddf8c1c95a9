"""
The model on OpenVINO: tokens of many answers in one step, their keys and values in blocks.

The weights package holds a plain model; its attention is exchanged for OpenVINO's paged one
when it is loaded, so that each answer's keys and values lie in blocks that we hand out.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

# Read when the library is imported: it may ask nobody and write nothing, and what it keeps of the
# shapes that steps have had stays small.
os.environ.update(OPENVINO_LOG_LEVEL="0", OV_TELEMETRY="0", ONEDNN_PRIMITIVE_CACHE_CAPACITY="256")

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as operations
from openvino._offline_transformations import paged_attention_transformation

from app.enclave.engine.chain import Chain, block_shape, is_cache, load_chain, make_cache
from app.enclave.engine.mapped import MappedWeights
from app.enclave.engine.step import (
    WANTED,
    Bounds,
    Rows,
    encode_step,
    require_blocks,
    require_step,
)
from app.enclave.engine.weights import Weights
from app.protocol.errors import EngineError, WeightsError

_GRAPH_NAME: Final = "openvino_model.xml"
_NUMBERS_NAME: Final = "openvino_model.bin"
MEMORY_SHARE: Final = 2  # of what is free, one part in so many is for keys and values
_MEMORY_INFO: Final = Path("/proc/meminfo")
# Whose matrices the library copies into layouts of its own, by the tokens of a step: one for up to
# four, for up to six, and for all more, or fewer layouts. Of wider numbers it has others as well.
_COPIED: Final = ("int8", "int4")
_TRIED: Final = (1, 5, 8)
_EXACT: Final = {
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",
    "INFERENCE_PRECISION_HINT": "f32",
    "KV_CACHE_PRECISION": "f32",
}
_EXPERTS_RANK: Final = 3  # of matrices: experts, outputs, inputs
_MOST_GROUP: Final = 256  # activations that share a scale
_LEAST_GROUP: Final = 32


@dataclass(frozen=True, slots=True)
class Settings:
    """
    How the library runs a model.

    Attributes:
        threads: As many as there are physical cores is best.

        exact: Compute and keep everything in 32 bits, for weights that have as many.

        tiles: The processor has AMX: products of experts, and all sums, may take 16 bits.
    """

    threads: int
    exact: bool
    tiles: bool = False

    def for_library(self, products: "Products") -> dict[str, str]:
        """
        Give the library's own names; docs/engine.md has the figure that decided each.

        It computes in 32 bits: r5 has no 16-bit floats, and they gain nothing but for experts,
        whose prompts AMX computes in a third of the time.
        """
        group = max(_LEAST_GROUP, math.gcd(_MOST_GROUP, *products.widths))
        return {
            "CPU_RUNTIME_CACHE_CAPACITY": "64",
            "DYNAMIC_QUANTIZATION_GROUP_SIZE": str(group),
            "INFERENCE_NUM_THREADS": str(self.threads),
            "INFERENCE_PRECISION_HINT": "bf16" if self.tiles and products.experts else "f32",
            "KV_CACHE_PRECISION": "u8",
            "PERFORMANCE_HINT": "LATENCY",
            **(_EXACT if self.exact else {}),
        }


@dataclass(frozen=True, slots=True)
class Products:
    """
    What a model multiplies.

    Attributes:
        widths: Of the activations that meet weights, or of those that meet weights of one scale. A
            group that is wider than one would switch 8-bit products off; one that divides all
            leaves no part of a group.

        experts: Whether some weights are those of several experts.
    """

    widths: Sequence[int] = ()
    experts: bool = False


class Model(Protocol):
    """What a scheduler needs of a model; one thread uses it."""

    blocks: int

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        """
        Show the model all tokens of *batch* and give logits, [wanted in all, vocabulary].

        They are overwritten by the next call.

        Raises:
            EngineError: The model failed, or has no room for *batch*; then nothing was shown.
        """

    def wipe(self, blocks: Sequence[int]) -> None:
        """Overwrite what lies in *blocks*."""


class OpenVinoModel:
    """
    A compiled model; see `Model` for what its methods promise.

    Args:
        weights: Its package, whose files are checked.

        most_blocks: Of keys and values that are wanted at most.

        most_bytes: That they may take; fewer blocks are made when that many take more. None is
            half of what is free once the weights are loaded.

        owned: The weights' file is the enclave's alone: what the library has copied is cut out.

    Attributes:
        frees: Whether weights were given up when it was loaded.

    Raises:
        WeightsError: OpenVINO cannot read or compile it, or it is no decoder of text.
    """

    def __init__(
        self,
        weights: Weights,
        settings: Settings,
        *,
        most_blocks: int,
        most_bytes: int | None = None,
        owned: bool = False,
    ) -> None:
        try:
            self._chain = _load(weights, settings, owned=owned)
            width = self._chain.output.partial_shape[-1].get_length()
        except (RuntimeError, ValueError) as error:
            raise WeightsError("OpenVINO cannot load the model") from error
        caches = list(filter(is_cache, self._chain.inputs))
        if not caches:
            raise WeightsError("the model keeps no keys and values")
        self.frees = self._chain.frees
        self.block_bytes = sum(map(_block_bytes, caches))
        most_bytes = free_bytes() // MEMORY_SHARE if most_bytes is None else most_bytes
        self.blocks = min(most_blocks, most_bytes // self.block_bytes)
        vocabulary = min(width, weights.sizes.vocabulary)
        self._bounds = Bounds(vocabulary, weights.context_length, self.blocks)
        self._caches = [self._make_cache(port) for port in caches]

    def _make_cache(self, port: openvino.ConstOutput) -> NDArray[np.generic]:
        """Give the model a tensor for every block."""
        tensor = make_cache(port, self.blocks)
        self._chain.set_tensor(port.any_name, tensor)
        cache: NDArray[np.generic] = tensor.data
        return cache

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        """Show the model all tokens of *batch* and give the logits that are wanted."""
        require_step(batch, self._bounds)
        for name, value in encode_step(batch).items():
            self._set_input(name, value)
        try:
            logits: NDArray[np.float32] = self._chain.compute().data
        except RuntimeError:
            raise EngineError from None
        wanted = sum(rows.wanted for rows in batch)
        logits = logits.reshape(-1, logits.shape[-1])
        if len(logits) != max(1, wanted):
            raise EngineError("the model gave other logits than were wanted")
        return logits[:wanted]

    def _set_input(self, name: str, value: NDArray[np.generic]) -> None:
        self._chain.set_tensor(name, openvino.Tensor(value))

    def wipe(self, blocks: Sequence[int]) -> None:
        """Overwrite what lies in *blocks*."""
        require_blocks(blocks, self._bounds)
        for cache in self._caches:
            cache[list(blocks)] = 0


def _load(weights: Weights, settings: Settings, *, owned: bool) -> Chain:
    """Read the model, exchange its attention, and load it for this processor."""
    mapped = MappedWeights(weights.folder / _NUMBERS_NAME, owned=owned)
    graph = (weights.folder / _GRAPH_NAME).read_text("utf-8")
    model = openvino.Core().read_model(graph, mapped.tensor)
    paged_attention_transformation(model)
    _choose_logits(model)
    config = settings.for_library(find_products(model))
    steps = [encode_step([Rows([0] * count, 0, [0], count)]) for count in _TRIED]
    return load_chain(model, mapped, config, steps, copied=weights.precision in _COPIED)


def find_products(model: openvino.Model) -> Products:
    """Give what *model* multiplies with weights."""
    widths, experts = [], False
    for operation in model.get_ops():
        if operation.get_type_name() == "MatMul":
            shape, weights = (operation.input_value(at).partial_shape for at in (0, 1))
            if weights.is_static and shape[-1].is_static:
                widths.append(_scale_width(operation) or shape[-1].get_length())
                experts = experts or len(weights) == _EXPERTS_RANK
    return Products(widths, experts)


def _scale_width(product: openvino.Node) -> int | None:
    """
    Give the number of weights that share a scale in one row of *product*; None where a row does.

    Narrow weights are kept with a dimension more, [outputs, groups, width], and unfolded.
    """
    weights = product.input_value(1)
    kept = weights.get_node()
    while kept.get_input_size():
        kept = kept.input_value(0).get_node()
    shape = list(kept.get_output_shape(0))
    if len(shape) == len(weights.partial_shape):
        return None
    return int(shape[-1 if product.get_attributes()["transpose_b"] else -2])


def _choose_logits(model: openvino.Model) -> None:
    """Let the model compute logits only where they are wanted: they are half of bloom's work."""
    head = model.get_results()[0].input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        if head.get_input_size() == 0:
            raise WeightsError("the model's last step is no matrix product")
        head = head.input_value(0).get_node()
    wanted = operations.parameter([-1], np.int64, name=WANTED)
    wanted.output(0).get_tensor().set_names({WANTED})
    axis = operations.constant(0, dtype=np.int64)
    chosen = operations.gather(head.input_value(0), wanted, axis)
    head.input(0).replace_source_output(chosen.output(0))
    model.add_parameters([wanted])
    model.validate_nodes_and_infer_types()


def _block_bytes(port: openvino.ConstOutput) -> int:
    return math.prod(block_shape(port)) * int(port.element_type.size)


def free_bytes() -> int:
    """Give the bytes of memory that are free or could be."""
    for line in _MEMORY_INFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise WeightsError("the kernel does not say how much memory is free")
