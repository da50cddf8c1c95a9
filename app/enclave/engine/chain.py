"""
A chain: pieces of a model as the library runs them, loaded one by one and computed as one.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray

from app.enclave.engine.mapped import KEPT, MappedWeights
from app.enclave.engine.pieces import Link, cut
from app.protocol.errors import WeightsError

# The process's only one, and for good. With its core the library gives up a signal stack, which the
# thread that first compiled may have still: docs/upstream/openvino-signal-stack.md.
CORE: Final = openvino.Core()
_LEAST_BITS: Final = 8  # of keys and values: two in one byte are no array, to be lent and wiped


class Chain:
    """
    Pieces that are loaded, in order; together they are used like one request of the library's.

    Args:
        mapped: What the library reads of the weights, and this object keeps alive.

    Attributes:
        inputs: Of all pieces together.

        output: Of the last piece, once there is one.

        frees: Whether weights were given up when it was loaded.
    """

    output: openvino.ConstOutput

    def __init__(self, mapped: MappedWeights, *, frees: bool) -> None:
        self._mapped = mapped
        self._requests: list[openvino.InferRequest] = []
        self._links: list[Sequence[Link]] = []
        self._takers: dict[str, list[openvino.InferRequest]] = {}
        self.inputs: list[openvino.ConstOutput] = []
        self.frees = frees

    def add(self, compiled: openvino.CompiledModel, links: Sequence[Link]) -> None:
        """
        Add a piece, which takes *links* from those before it, with a block of keys and values.

        Raises:
            WeightsError: Its keys and values have less than 8 bits.
        """
        request = compiled.create_infer_request()
        handed = {link.name for link in links}
        for port in compiled.inputs:
            name = port.any_name
            if name in handed:
                continue
            if name not in self._takers:
                self.inputs.append(port)
            self._takers.setdefault(name, []).append(request)
            if is_cache(port):
                request.set_tensor(name, make_cache(port, blocks=1))
        self._requests.append(request)
        self._links.append(links)
        self.output = compiled.output(0)

    def set_tensor(self, name: str, tensor: openvino.Tensor) -> None:
        """Give *tensor* to every piece that has an input of this name."""
        for request in self._takers.get(name, ()):
            request.set_tensor(name, tensor)

    def set_step(self, step: Mapping[str, NDArray[np.generic]]) -> None:
        """Give all that is no key and no value."""
        for name, value in step.items():
            self.set_tensor(name, openvino.Tensor(value))

    def compute(self) -> openvino.Tensor:
        """Compute all pieces, and give what the last one gives."""
        for piece in range(len(self._requests)):
            self.compute_piece(piece)
        return self._requests[-1].get_output_tensor(0)

    def compute_piece(self, piece: int) -> None:
        """
        Compute one piece, from what those before it gave when they were computed last.

        The executor's own threads compute: in one that calls `infer()` the library leaves what
        writes to freed memory when it ends (docs/upstream/openvino-use-after-free.md).
        """
        request = self._requests[piece]
        for link in self._links[piece]:
            handed = self._requests[link.piece].get_output_tensor(link.output)
            request.set_tensor(link.name, handed)
        request.start_async()
        request.wait()


def load_chain(
    model: openvino.Model,
    mapped: MappedWeights,
    config: Mapping[str, str],
    steps: Sequence[Mapping[str, NDArray[np.generic]]],
    *,
    copied: bool,
) -> Chain:
    """
    Load *model* piece by piece, giving up of *mapped* what the library has copied.

    It copies in the first step of a kind. So each piece computes *steps* when it is loaded; and
    again when its weights are forbidden. Were one of them still read, the process would end there,
    and never serve. A model that gives up nothing computes nothing here.

    Args:
        model: Is no use afterwards.

        steps: One of each kind: inputs but for keys and values, of which each fills a block.

        copied: Whether the library copies matrices for good, once it has seen *steps*.

    Raises:
        WeightsError: Keys and values have less than 8 bits; or the kernel gives up no memory.
    """
    pieces, constants = cut(model, copied=copied)
    for constant in constants:
        mapped.note(constant.array, constant.last_piece)
    frees = any(constant.last_piece != KEPT for constant in constants)
    chains = [Chain(mapped, frees=frees) for _ in (steps if frees else steps[:1])]
    for number, piece in enumerate(pieces):
        compiled = CORE.compile_model(piece.model, "CPU", config)
        for chain in chains:
            chain.add(compiled, piece.links)
        if frees:
            for chain, step in zip(chains, steps, strict=True):
                chain.set_step(step)
                chain.compute_piece(number)
            mapped.forbid(number)
            for chain in chains:
                chain.compute_piece(number)
            mapped.drop(number)
    return chains[0]


def is_cache(port: openvino.ConstOutput) -> bool:
    """Tell whether an input is for keys or values."""
    return "cache." in port.any_name


def block_shape(port: openvino.ConstOutput) -> list[int]:
    """Give the shape of one block of keys or values."""
    return [dimension.get_length() for dimension in list(port.partial_shape)[1:]]


def make_cache(port: openvino.ConstOutput, blocks: int) -> openvino.Tensor:
    """Give a tensor for so many blocks; pages are taken as they are written."""
    if port.element_type.bitwidth < _LEAST_BITS:
        raise WeightsError("keys and values of less than 8 bits are not served")
    return openvino.Tensor(port.element_type, openvino.Shape([blocks, *block_shape(port)]))
