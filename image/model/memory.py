"""
Memory: what an engine needs beside its image. docs/models.md has the measurements.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from image.errors import ImageError
from image.model.weights import read_description

_COPY_PERCENT: Final = 104  # of matrices, in the order that instructions want
_INT4_COPY_PERCENT: Final = 125  # scales are widened
_PIECES: Final = 8  # in which the engine loads a model, and gives up what it has copied
_WORKING_BYTES: Final = 512 * 1024 * 1024  # Python, libraries, activations, logits
_KV_SHARE: Final = 2  # keys and values get half of what is free
_EXACT: Final = "fp32"  # keeps keys and values in 32 bits, too
_GRAPH_NAME: Final = "openvino_model.xml"
# Between a constant and what it is for: how it is widened.
_WIDENING: Final = frozenset(("Convert", "Subtract", "Multiply", "Reshape"))


@dataclass(frozen=True, slots=True)
class _Numbers:
    """
    Bytes of a package's numbers, by what the engine does with them; a tied table counts twice.

    Attributes:
        copied: Matrices, which are put into an order of their own.

        kept: Tables of embeddings and the like, which are read where they lie.
    """

    copied: int
    kept: int


def least_engine_bytes(weights: Path, *, weights_inside: bool = True) -> int:
    """
    Give the least memory, in bytes, with which the model of the package *weights* starts.

    That is for one conversation that fills its context; 16 at once need 16 times its keys and
    values. The files of the image come on top.

    Args:
        weights_inside: Weights are among those files, and stay. Otherwise they come in when the
            enclave starts, and what has been copied is given up.

    Raises:
        ImageError: There is none, or none that says its sizes; says how to make one.
    """
    description = read_description(weights)
    sizes = description.sizes
    numbers = _read_numbers(weights / _GRAPH_NAME)
    exact = description.precision == _EXACT
    a_token = sizes.kv_bytes_per_token_f32 if exact else sizes.kv_bytes_per_token_u8
    percent = _INT4_COPY_PERCENT if description.precision == "int4" else _COPY_PERCENT
    copy = numbers.copied * percent // 100
    cached = _KV_SHARE * description.context_length * a_token
    if weights_inside:
        return copy + cached + _WORKING_BYTES
    loading = sizes.weights_bytes + copy // _PIECES
    return max(loading, copy + numbers.kept + cached) + _WORKING_BYTES


def _read_numbers(graph: Path) -> _Numbers:
    try:
        root = ET.parse(graph).getroot()  # noqa: S314 - a package of the operator's own
        kinds = {layer.attrib["id"]: layer.attrib["type"] for layer in root.iter("layer")}
        users: dict[str, list[tuple[str, str]]] = {}
        for edge in root.iter("edge"):
            users.setdefault(edge.attrib["from-layer"], []).append(
                (edge.attrib["to-layer"], edge.attrib["to-port"])
            )
        copied = kept = 0
        for layer in root.iter("layer"):
            if layer.attrib["type"] == "Const":
                ends = _find_ends(layer.attrib["id"], kinds, users)
                size = int(layer.find("data").attrib["size"])
                copied += size * ("MatMul", "1") in ends
                kept += size * bool(ends - {("MatMul", "1")})
    except (OSError, ET.ParseError, KeyError, ValueError, AttributeError) as error:
        raise ImageError("") from error
    return _Numbers(copied, kept)
