"""
Pieces: a model cut into several, which are loaded one after the other and computed as one.

While a piece is loaded, the library makes its own copy of that piece's weights. Those of the pieces
before are given up by then, so that memory never holds all weights twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino import opset13 as operations

from app.enclave.engine.mapped import KEPT

MOST_PIECES: Final = 5  # each keeps memory of its own for activations
LEAST_BYTES: Final = 2**24  # of a piece's matrices; a smaller model gives up nothing
_SLACK: Final = 4  # a cut is at most a quarter of a piece from where pieces are of one size

Edge = tuple[str, int]  # an operation, and which of its outputs


@dataclass(frozen=True, slots=True)
class Link:
    """
    What a piece is given by an earlier one.

    Attributes:
        name: Of the piece's input.

        piece: Which piece gives it.

        output: Which of that one's outputs it is.
    """

    name: str
    piece: int
    output: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a model, which is a model itself, and what earlier ones give it."""

    model: openvino.Model
    links: Sequence[Link] = ()


@dataclass(frozen=True, slots=True)
class Constant:
    """
    A constant of the model.

    Attributes:
        last_piece: That needs it as it lies in the file; `KEPT` if answers do. The library puts
            the matrices of products into an order of its own, and reads all others in place.
    """

    array: NDArray[np.generic]
    last_piece: int


@dataclass(slots=True)
class _Graph:
    """
    The operations of a model in order, and what follows from constants alone.

    Attributes:
        routes: It is a mixture of experts: some tokens' rows meet some matrices.
    """

    operations: list[openvino.Node]
    places: dict[str, int] = field(default_factory=dict)
    steady: set[str] = field(default_factory=set)
    routes: bool = False

    def __post_init__(self) -> None:
        for place, operation in enumerate(self.operations):
            self.routes = self.routes or operation.get_type_name() == "TopK"
            self.places[operation.get_name()] = place
            sources = [value.get_node().get_name() for value in operation.input_values()]
            constant = operation.get_type_name() == "Constant"
            if constant or (sources and self.steady.issuperset(sources)):
                self.steady.add(operation.get_name())

    def passes(self, value: openvino.Output) -> bool:
        """Tell whether *value* has to be handed on, if it is needed in another piece."""
        node = value.get_node()
        return node.get_type_name() != "Parameter" and node.get_name() not in self.steady

    def last_product(self, constant: openvino.Node) -> int:
        """Give the place of the last product of which *constant* is a matrix, or `KEPT`."""
        places = [KEPT]
        for target in constant.output(0).get_target_inputs():
            user = target.get_node()
            if user.get_name() in self.steady:
                places.append(self.last_product(user))
            elif user.get_type_name() == "MatMul" and target.get_index() == 1:
                places.append(self.places[user.get_name()])
            else:
                return KEPT
            if places[-1] == KEPT:
                return KEPT
        return max(places)


@dataclass(slots=True)
class _Part:
    """What becomes a piece: its inputs and its outputs, each by what it is in the whole model."""

    takes: dict[Edge, openvino.Node] = field(default_factory=dict)
    gives: dict[Edge, openvino.Output] = field(default_factory=dict)
    links: list[Link] = field(default_factory=list)

    @property
    def parameters(self) -> list[openvino.Node]:
        """All inputs, as the library takes them."""
        return list(self.takes.values())

    def take(self, edge: Edge, value: openvino.Output, piece: int, output: int) -> None:
        """Have an input for *value*, which is *output* of *piece*."""
        name = f"handed.{len(self.takes)}"
        shape, kind = value.get_partial_shape(), value.get_element_type()
        parameter = operations.parameter(shape, kind, name=name)
        parameter.output(0).get_tensor().set_names({name})
        self.takes[edge] = parameter
        self.links.append(Link(name, piece, output))

    def give(self, edge: Edge, value: openvino.Output) -> int:
        """Have an output for *value*, and give its number."""
        self.gives.setdefault(edge, value)
        return list(self.gives).index(edge)


def cut(model: openvino.Model, *, copied: bool) -> tuple[list[Piece], list[Constant]]:
    """
    Cut *model*, which is no use afterwards, into pieces, and give its constants.

    The pieces' matrices take about as many bytes each, and little passes from one to the next.

    Args:
        copied: Whether the library copies matrices for good; else all constants are kept, and the
            model stays in one piece. So do a small model, since the proof would cost its start more
            than its memory is worth; and a mixture of experts, of which the library computes all
            where a cut goes through them, and copies an expert's own matrix in whichever step is
            the first to need it.
    """
    graph = _Graph(model.get_ordered_ops())
    copied = copied and not graph.routes
    nodes = [node for node in graph.operations if node.get_type_name() == "Constant"]
    arrays = [node.get_tensor_view().data for node in nodes]
    lasts = [graph.last_product(node) if copied else KEPT for node in nodes]
    weights = np.zeros(len(graph.operations))
    for array, last in zip(arrays, lasts, strict=True):
        if last != KEPT:
            weights[last] += array.nbytes
    if weights.sum() < LEAST_BYTES:
        return [Piece(model)], [Constant(array, KEPT) for array in arrays]
    cuts = _choose_cuts(np.cumsum(weights), _count_passing(graph))
    constants = [
        Constant(array, KEPT if last == KEPT else int(np.searchsorted(cuts, last, "right")))
        for array, last in zip(arrays, lasts, strict=True)
    ]
    return list(_make_pieces(model, graph, cuts)) if cuts else [Piece(model)], constants


def _choose_cuts(weights: NDArray[np.float64], passing: NDArray[np.int64]) -> list[int]:
    """Give the places before which to cut, by the bytes up to each and how much passes there."""
    count = int(min(MOST_PIECES, weights[-1] // LEAST_BYTES))
    cuts = set()
    for number in range(1, count):
        apart = np.abs(weights - weights[-1] * number / count)
        near = np.flatnonzero(apart <= weights[-1] / count / _SLACK) + 1
        near = near[near < len(passing)]
        if len(near):
            cuts.add(int(near[np.argmin(passing[near])]))
    return sorted(cuts)


def _count_passing(graph: _Graph) -> NDArray[np.int64]:
    """Give, for each place, how many values pass from before it to it or what follows."""
    last: dict[Edge, int] = {}
    for place, operation in enumerate(graph.operations):
        for value in operation.input_values():
            if graph.passes(value):
                last[value.get_node().get_name(), value.get_index()] = place
    changes = np.zeros(len(graph.operations) + 1, np.int64)
    for (name, _), place in last.items():
        changes[graph.places[name] + 1] += 1
        changes[place + 1] -= 1
    return np.cumsum(changes)[:-1]


def _make_pieces(model: openvino.Model, graph: _Graph, cuts: Sequence[int]) -> Iterator[Piece]:
    """Give a model for the operations between each two cuts."""
    parts = [_Part() for _ in range(len(cuts) + 1)]
    for place, operation in enumerate(graph.operations):
        if operation.get_name() not in graph.steady:
            for target in operation.inputs():
                _hand_on(target, graph, parts, cuts, _find_piece(cuts, place))
    for part in parts[:-1]:
        yield Piece(openvino.Model(list(part.gives.values()), part.parameters), tuple(part.links))
    yield Piece(openvino.Model(model.get_results(), parts[-1].parameters), tuple(parts[-1].links))


def _find_piece(cuts: Sequence[int], place: int) -> int:
    return int(np.searchsorted(cuts, place, "right"))


def _hand_on(
    target: openvino.Input, graph: _Graph, parts: Sequence[_Part], cuts: Sequence[int], piece: int
) -> None:
    """Have *target*, which is in *piece*, read what another one gives by an input of its own."""
    value = target.get_source_output()
    node, part = value.get_node(), parts[piece]
    edge = (node.get_name(), value.get_index())
    if node.get_type_name() == "Parameter":
        part.takes[edge] = node
    elif graph.passes(value):
        source = _find_piece(cuts, graph.places[node.get_name()])
        if source != piece:
            if edge not in part.takes:
                part.take(edge, value, source, parts[source].give(edge, value))
            target.replace_source_output(part.takes[edge].output(0))
