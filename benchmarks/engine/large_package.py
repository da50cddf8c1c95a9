"""
Weights packages of random numbers as large as wanted, written directly.

A graph of a decoder is built from its shape, without torch and without a model in memory: all its
matrices are windows of one pool of random bytes. It costs what a trained one of that shape costs,
but knows no places, and its logits are nearly even, so that its check is known beforehand.

    $ .venv/bin/python -m benchmarks.engine.large_package 4b-int4 FOLDER
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as operations

from app.protocol.package import Check, Description, Generation, Sizes
from benchmarks.engine.made_tokenizer import write_tokenizer
from image.model.graph import GRAPH_NAME, NUMBERS_NAME
from image.model.weights import write_manifest

_GROUP: Final = 64  # weights of 4 bits that share a scale
_CHECK_TOKENS: Final = 48
_TOLERANCE_MILLIONTHS: Final = 100_000
_EVEN: Final = 0.001  # of what the last layer is given: logits are as good as the same
_STEP: Final = 64  # bytes between two matrices' windows of the pool
_KV_BLOCK: Final = 32  # tokens whose keys share scales
_SCALE_BYTES: Final = 8  # of a scale and a zero point
_END_ID: Final = 2


@dataclass(frozen=True, slots=True)
class LargeShape:
    """
    The shape of a decoder with grouped attention and gated layers.

    Attributes:
        inner: Width of the gated layers.

        tied: The last layer's matrix is that of the embeddings.

        bits: Of matrices, 8 or 4; embeddings and last layer have 8.
    """

    layers: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    tied: bool
    bits: int
    context: int = 4096


SHAPES: Final = {
    "middle-int8": LargeShape(12, 512, 3072, 8, 4, 64, 4096, tied=False, bits=8),
    "middle-int4": LargeShape(12, 1024, 4096, 16, 4, 64, 4096, tied=False, bits=4),
    "4b-int4": LargeShape(36, 2560, 9728, 32, 8, 128, 151_936, tied=True, bits=4),
    "6gb-int8": LargeShape(25, 4096, 12_288, 32, 8, 128, 151_936, tied=False, bits=8),
}


def write_package(folder: Path, shape: LargeShape, name: str) -> None:
    """Write a package of *shape* into the empty *folder*."""
    builder = _Builder(shape)  # whose pool the graph's constants are
    openvino.save_model(builder.build(), folder / GRAPH_NAME, compress_to_fp16=False)
    write_tokenizer(folder, shape.vocabulary)
    (folder / "tokenizer_config.json").unlink()
    write_manifest(folder, _describe(shape, name, (folder / NUMBERS_NAME).stat().st_size))


def _describe(shape: LargeShape, name: str, weights_bytes: int) -> Description:
    cached = shape.layers * shape.kv_heads
    numbers = 2 * cached * shape.head_size
    scales = cached * _SCALE_BYTES * (shape.head_size / _KV_BLOCK + 1)
    even = -round(1_000_000 * math.log(shape.vocabulary))
    return Description(
        name=name,
        label="random weights",
        source="benchmarks.engine.large_package",
        revision="local",
        context_length=shape.context,
        precision=f"int{shape.bits}",
        generation=Generation((_END_ID,), "<s>", "</s>"),
        check=Check(tuple(range(300, 300 + _CHECK_TOKENS)), even, _TOLERANCE_MILLIONTHS),
        sizes=Sizes(
            parameters=_count_parameters(shape),
            weights_bytes=weights_bytes,
            layers=shape.layers,
            kv_heads=shape.kv_heads,
            head_size=shape.head_size,
            vocabulary=shape.vocabulary,
            kv_bytes_per_token_u8=math.ceil(numbers + scales),
            kv_bytes_per_token_f32=4 * numbers,
        ),
    )


def _count_parameters(shape: LargeShape) -> int:
    attention = 2 * shape.width * shape.head_size * (shape.heads + shape.kv_heads)
    layers = shape.layers * (attention + 3 * shape.width * shape.inner)
    return layers + shape.vocabulary * shape.width * (1 if shape.tied else 2)


class _Builder:
    """Builds one graph."""

    def __init__(self, shape: LargeShape) -> None:
        self._shape = shape
        largest = max(shape.vocabulary, shape.inner) * shape.width
        count = 7 * shape.layers + 2
        self._chance = np.random.default_rng(1)
        self._pool = np.frombuffer(self._chance.bytes(largest + count * _STEP), np.uint8)
        self._windows = iter(range(0, count * _STEP, _STEP))
        self._sinks: list[openvino.Node] = []
        self._beam = _parameter("beam_idx", [-1], np.int32)
        self._mask = operations.constant(np.zeros((1, 1, 1, 1), np.float32))

    def build(self) -> openvino.Model:
        """Give the graph; its constants are windows of this object's pool."""
        shape = self._shape
        tokens = _parameter("input_ids", [-1, -1], np.int64)
        table = self._matrix(shape.vocabulary, shape.width, bits=8)
        states = operations.gather(table, tokens, _number(0))
        for layer in range(shape.layers):
            states = operations.add(states, self._attend(_norm(states), layer))
            states = operations.add(states, self._gate(_norm(states)))
        last = table if shape.tied else self._matrix(shape.vocabulary, shape.width, bits=8)
        even = operations.multiply(_norm(states), _number(_EVEN, np.float32))
        logits = operations.result(
            operations.matmul(even, last, transpose_a=False, transpose_b=True)
        )
        logits.output(0).get_tensor().set_names({"logits"})
        return openvino.Model([logits], self._sinks, [tokens, self._beam], "large")

    def _attend(self, states: openvino.Node, layer: int) -> openvino.Node:
        shape = self._shape
        query = self._split(states, shape.heads)
        keys, values = (
            self._remember(self._split(states, shape.kv_heads), f"{layer}.{kind}")
            for kind in ("key", "value")
        )
        attended = operations.scaled_dot_product_attention(
            query, keys, values, self._mask, causal=True
        )
        joined = operations.transpose(attended, _numbers(0, 2, 1, 3))
        inner = shape.heads * shape.head_size
        return self._product(
            operations.reshape(joined, _numbers(0, 0, inner), special_zero=True), shape.width
        )

    def _split(self, states: openvino.Node, heads: int) -> openvino.Node:
        size = self._shape.head_size
        flat = self._product(states, heads * size)
        return operations.transpose(
            operations.reshape(flat, _numbers(0, 0, heads, size), special_zero=True),
            _numbers(0, 2, 1, 3),
        )

    def _remember(self, states: openvino.Node, name: str) -> openvino.Node:
        """Add *states* to what is kept, and give each of those heads to those that share it."""
        shape = self._shape
        sized = openvino.PartialShape([-1, shape.kv_heads, -1, shape.head_size])
        batch = operations.gather(operations.shape_of(states), _numbers(0), _number(0))
        sizes = operations.concat(
            [batch, _numbers(shape.kv_heads), _numbers(0), _numbers(shape.head_size)], 0
        )
        nothing = operations.broadcast(_number(0, np.float32), sizes)
        kept = operations.read_value(nothing, f"past.{name}", openvino.Type.f32, sized)
        past = operations.gather(kept, self._beam, _number(0))
        every = operations.concat([past, states], -2)
        self._sinks.append(operations.assign(every, f"past.{name}"))
        shared = shape.heads // shape.kv_heads
        apart = operations.unsqueeze(every, _number(2))
        spread = operations.broadcast(
            apart, _numbers(1, 1, shared, 1, 1), broadcast_spec="BIDIRECTIONAL"
        )
        return operations.reshape(
            spread, _numbers(0, shape.heads, -1, shape.head_size), special_zero=True
        )

    def _gate(self, states: openvino.Node) -> openvino.Node:
        gate = operations.swish(self._product(states, self._shape.inner))
        return self._product(
            operations.multiply(gate, self._product(states, self._shape.inner)),
            self._shape.width,
        )

    def _product(self, states: openvino.Node, outputs: int) -> openvino.Node:
        inputs = states.get_output_partial_shape(0)[-1].get_length()
        return operations.matmul(
            states,
            self._matrix(outputs, inputs, bits=self._shape.bits),
            transpose_a=False,
            transpose_b=True,
        )

    def _matrix(self, outputs: int, inputs: int, *, bits: int) -> openvino.Node:
        """Give a random matrix, widened from *bits* as packages have it."""
        groups = inputs // _GROUP if bits == 4 else 1
        wide, rows = [outputs, groups, inputs // groups], [outputs, groups, 1]
        if bits == 8:
            wide, rows = [outputs, inputs], [outputs, 1]
        kind = openvino.Type.u4 if bits == 4 else openvino.Type.u8
        begin, size = next(self._windows), outputs * inputs * bits // 8
        numbers = _packed(self._pool[begin : begin + size], wide, kind)
        zeros = _packed(self._zeros(outputs * groups, bits), rows, kind)
        spread = 2**bits / math.sqrt(12) * math.sqrt(inputs)
        scales = self._chance.uniform(0.8, 1.2, rows).astype(np.float16) / np.float16(spread)
        apart = operations.subtract(*(operations.convert(v, "f16") for v in (numbers, zeros)))
        scaled = operations.multiply(apart, operations.constant(scales.astype(np.float16)))
        if bits == 4:
            scaled = operations.reshape(scaled, _numbers(outputs, inputs), special_zero=False)
        return operations.convert(scaled, "f32")

    def _zeros(self, count: int, bits: int) -> NDArray[np.uint8]:
        """Give zero points about the middle."""
        if bits == 8:
            return self._chance.integers(124, 133, count, np.uint8)
        low, high = self._chance.integers(7, 9, (2, -(-count // 2)), np.uint8)
        packed: NDArray[np.uint8] = low | high << 4
        return packed


def _parameter(name: str, shape: list[int], kind: type[np.generic]) -> openvino.Node:
    parameter = operations.parameter(shape, kind, name=name)
    parameter.output(0).get_tensor().set_names({name})
    return parameter


def _packed(numbers: NDArray[np.uint8], shape: list[int], kind: openvino.Type) -> openvino.Node:
    return openvino.op.Constant(openvino.Tensor(numbers, shape, kind), shared_memory=True)


def _norm(states: openvino.Node) -> openvino.Node:
    squares = operations.power(states, _number(2, np.float32))
    mean = operations.reduce_mean(squares, _numbers(-1), keep_dims=True)
    root = operations.sqrt(operations.add(mean, _number(1e-6, np.float32)))
    return operations.multiply(states, operations.divide(_number(1, np.float32), root))


def _number(value: float, kind: type[np.generic] = np.int64) -> openvino.Node:
    return operations.constant(value, dtype=kind)


def _numbers(*values: int) -> openvino.Node:
    return operations.constant(list(values), dtype=np.int64)


def main() -> None:
    """Write one package."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shape", choices=SHAPES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(parents=True)
    write_package(options.folder, SHAPES[options.shape], options.shape)


if __name__ == "__main__":
    main()
