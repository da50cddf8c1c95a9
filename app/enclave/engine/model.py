"""
The model on OpenVINO: tokens of many answers in one step, their keys and values in blocks.

The weights package holds a plain model; its attention is exchanged for OpenVINO's paged one
when it is loaded, so that each answer's keys and values lie in blocks that we hand out.
"""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

# Read when the library is imported: it may ask nobody and write nothing.
os.environ.update(OPENVINO_LOG_LEVEL="0", OV_TELEMETRY="0")

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as operations
from openvino._offline_transformations import paged_attention_transformation

from app.enclave.engine.cache import blocks_for
from app.protocol.errors import EngineError, WeightsError

_MODEL_NAME: Final = "openvino_model.xml"
_WANTED: Final = "wanted_logits"  # our own input: the places of whose logits are computed
_EXACT: Final = {"KV_CACHE_PRECISION": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}


@dataclass(frozen=True, slots=True)
class Rows:
    """
    What one answer adds to a step.

    Attributes:
        tokens: Those that the model has not seen yet, 1 or more.

        past: How many it has seen; their keys and values lie in `blocks`.

        blocks: All that the answer has, at least as many as past and new tokens need.

        wanted: For how many of the last tokens logits are given, 0 to all.
    """

    tokens: Sequence[int] = field(repr=False)
    past: int
    blocks: list[int]
    wanted: int

    @property
    def end(self) -> int:
        """How many tokens the model has seen after the step."""
        return self.past + len(self.tokens)

    @property
    def used_blocks(self) -> list[int]:
        """Those that past and new tokens lie in."""
        return self.blocks[: blocks_for(self.end)]


class Model(Protocol):
    """What a scheduler needs of a model; one thread uses it."""

    blocks: int

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        """
        Show the model all tokens of *batch* and give logits, [wanted in all, vocabulary].

        They are overwritten by the next call.

        Raises:
            EngineError: The model failed.
        """

    def wipe(self, blocks: Sequence[int]) -> None:
        """Overwrite what lies in *blocks*."""


class OpenVinoModel:
    """
    A compiled model; see `Model` for what its methods promise.

    Args:
        folder: The weights package, whose files are checked.

        threads: For the whole model.

        most_blocks: Of keys and values that are wanted at most.

        most_bytes: That they may take; fewer blocks are made when that many take more.

        exact: Compute and keep everything in 32 bits, for weights that have as many.

    Raises:
        WeightsError: OpenVINO cannot read or compile it, or it is no decoder of text.
    """

    def __init__(
        self, folder: Path, *, threads: int, most_blocks: int, most_bytes: int, exact: bool
    ) -> None:
        try:
            self._compiled = _compile(folder / _MODEL_NAME, threads=threads, exact=exact)
        except RuntimeError as error:
            raise WeightsError("OpenVINO cannot load the model") from error
        caches = [port for port in self._compiled.inputs if "cache." in port.any_name]
        if not caches:
            raise WeightsError("the model keeps no keys and values")
        self.block_bytes = sum(map(_block_bytes, caches))
        self.blocks = min(most_blocks, most_bytes // self.block_bytes)
        self._inputs = {port.any_name for port in self._compiled.inputs}
        self._request = self._compiled.create_infer_request()
        self._caches = [self._make_cache(port) for port in caches]

    def _make_cache(self, port: openvino.ConstOutput) -> NDArray[np.generic]:
        """Give the request a tensor for every block; pages are taken as they are written."""
        shape = openvino.Shape([self.blocks, *_block_shape(port)])
        tensor = openvino.Tensor(port.element_type, shape)
        self._request.set_tensor(port.any_name, tensor)
        cache: NDArray[np.generic] = tensor.data
        return cache

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        """Show the model all tokens of *batch* and give the logits that are wanted."""
        for name, value in _encode(batch).items():
            if name in self._inputs:
                self._request.set_tensor(name, openvino.Tensor(value))
        try:
            self._request.infer()
        except RuntimeError:
            raise EngineError from None
        logits: NDArray[np.float32] = self._request.get_output_tensor(0).data
        return logits.reshape(-1, logits.shape[-1])[: sum(rows.wanted for rows in batch)]

    def wipe(self, blocks: Sequence[int]) -> None:
        """Overwrite what lies in *blocks*."""
        for cache in self._caches:
            cache[list(blocks)] = 0


def _compile(path: Path, *, threads: int, exact: bool) -> openvino.CompiledModel:
    """
    Read the model, exchange its attention, and compile it for this processor.

    It computes in 32 bits: r5 has no 16-bit floats, and a hint of its own would make answers
    depend on the machine. Weights stay in the file, which is mapped.
    """
    core = openvino.Core()
    model = core.read_model(path)
    paged_attention_transformation(model)
    _choose_logits(model)
    settings = {
        "INFERENCE_NUM_THREADS": str(threads),
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        **(_EXACT if exact else {}),
    }
    return core.compile_model(model, "CPU", settings)


def _choose_logits(model: openvino.Model) -> None:
    """Let the model compute logits only where they are wanted: they are half of bloom's work."""
    head = model.get_results()[0].input_value(0).get_node()
    while head.get_type_name() != "MatMul":
        if head.get_input_size() == 0:
            raise WeightsError("the model's last step is no matrix product")
        head = head.input_value(0).get_node()
    wanted = operations.parameter([-1], np.int64, name=_WANTED)
    wanted.output(0).get_tensor().set_names({_WANTED})
    axis = operations.constant(0, dtype=np.int64)
    chosen = operations.gather(head.input_value(0), wanted, axis)
    head.input(0).replace_source_output(chosen.output(0))
    model.add_parameters([wanted])
    model.validate_nodes_and_infer_types()


def _block_shape(port: openvino.ConstOutput) -> list[int]:
    return [dimension.get_length() for dimension in list(port.partial_shape)[1:]]


def _block_bytes(port: openvino.ConstOutput) -> int:
    return math.prod(_block_shape(port)) * int(port.element_type.size)


def _encode(batch: Sequence[Rows]) -> dict[str, NDArray[np.generic]]:
    """Give the inputs of paged attention for *batch*."""
    begins = np.cumsum([0, *(len(rows.tokens) for rows in batch)])
    blocks = [rows.used_blocks for rows in batch]
    places = zip(batch, begins[1:], strict=True)
    wanted = [np.arange(end - rows.wanted, end) for rows, end in places]
    if not any(map(len, wanted)):
        wanted = [np.zeros(1)]  # the model cannot compute none
    positions = [np.arange(rows.past, rows.end) for rows in batch]
    return {
        "input_ids": np.concatenate([rows.tokens for rows in batch]).astype(np.int64),
        "position_ids": np.concatenate(positions).astype(np.int64),
        "past_lens": np.array([rows.past for rows in batch], np.int32),
        "subsequence_begins": begins.astype(np.int32),
        "block_indices": np.concatenate(blocks).astype(np.int32),
        "block_indices_begins": np.cumsum([0, *map(len, blocks)]).astype(np.int32),
        "max_context_len": np.array(max(rows.end for rows in batch), np.int32),
        _WANTED: np.concatenate(wanted).astype(np.int64),
    }
