"""
Memory: what an engine needs beside its image. docs/models.md has the measurements.
"""

from pathlib import Path
from typing import Final

from image.model.weights import read_description

# Of the weights: once more, in the order that instructions want; of 4 bits, scales are widened.
_COPY_PERCENT: Final = 110
_INT4_COPY_PERCENT: Final = 140
# Of weights that come in when the enclave starts: what is left of their file, and the copy. Where
# the last layer is the embeddings, those are in both; of wider numbers the file stays whole.
_STREAMED_PERCENT: Final = {"int8": 160, "int4": 180}
_WIDE_STREAMED_PERCENT: Final = 210
_MIXTURE_STREAMED_PERCENT: Final = {"int8": 210, "int4": 240}  # of which the file stays, too
_GRAPH_NAME: Final = "openvino_model.xml"
_ROUTER: Final = b'type="TopK"'  # in the graph of a mixture of experts
_WORKING_BYTES: Final = 512 * 1024 * 1024  # Python, libraries, activations, logits
_KV_SHARE: Final = 2  # keys and values get half of what is free
_EXACT: Final = "fp32"  # keeps keys and values in 32 bits, too


def least_engine_bytes(weights: Path, *, weights_inside: bool = True) -> int:
    """
    Give the least memory, in bytes, with which the model of the package *weights* starts.

    That is for one conversation that fills its context; 16 at once need 16 times its keys and
    values. The files of the image come on top.

    Args:
        weights_inside: They are among those files, and only the engine's copy is counted here.
            Otherwise they are all counted, less what the engine gives up as it copies it.

    Raises:
        ImageError: There is none, or none that says its sizes; says how to make one.
    """
    description = read_description(weights)
    sizes = description.sizes
    exact = description.precision == _EXACT
    a_token = sizes.kv_bytes_per_token_f32 if exact else sizes.kv_bytes_per_token_u8
    percent = _INT4_COPY_PERCENT if description.precision == "int4" else _COPY_PERCENT
    if not weights_inside:
        streamed = _MIXTURE_STREAMED_PERCENT if _is_mixture(weights) else _STREAMED_PERCENT
        percent = streamed.get(description.precision, _WIDE_STREAMED_PERCENT)
    taken = sizes.weights_bytes * percent // 100
    return taken + _KV_SHARE * description.context_length * a_token + _WORKING_BYTES


def _is_mixture(weights: Path) -> bool:
    """Tell whether the graph in *weights* routes tokens; a sealed one cannot be seen."""
    graph = weights / _GRAPH_NAME
    return graph.exists() and _ROUTER in graph.read_bytes()
