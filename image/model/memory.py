"""
Memory: what an engine needs beside its image. docs/models.md has the measurements.
"""

import hashlib
from pathlib import Path
from typing import Final

from app.protocol.asker.weights import KEY_NAME, parse_wrapped_key
from app.protocol.errors import ConfigError
from app.protocol.package import MANIFEST_NAME
from image.errors import ImageError
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


def least_engine_bytes(weights: Path, *, weights_inside: bool = True, wary: bool = False) -> int:
    """
    Give the least memory, in bytes, with which the model of the package *weights* starts.

    That is for one conversation that fills its context; 16 at once need 16 times its keys and
    values. The files of the image come on top.

    Args:
        weights_inside: They are among those files, and only the engine's copy is counted here.
            Otherwise they are all counted, less what the engine gives up as it copies it.

        wary: A package that does not say whether it is a mixture of experts is counted as one.

    Raises:
        ImageError: There is none, or none that says its sizes, or as `is_mixture`; says how to make
            one.
    """
    description = read_description(weights)
    sizes = description.sizes
    exact = description.precision == _EXACT
    a_token = sizes.kv_bytes_per_token_f32 if exact else sizes.kv_bytes_per_token_u8
    percent = _INT4_COPY_PERCENT if description.precision == "int4" else _COPY_PERCENT
    if not weights_inside:
        mixture = is_mixture(weights)
        counted_so = wary if mixture is None else mixture
        streamed = _MIXTURE_STREAMED_PERCENT if counted_so else _STREAMED_PERCENT
        percent = streamed.get(description.precision, _WIDE_STREAMED_PERCENT)
    taken = sizes.weights_bytes * percent // 100
    return taken + _KV_SHARE * description.context_length * a_token + _WORKING_BYTES


def is_mixture(weights: Path) -> bool | None:
    """
    Tell whether the package *weights* is of a mixture of experts; None where nothing says it.

    The graph shows it. Of a package whose graph is sealed, whoever sealed it has written it down,
    unless that was before bin/seal-weights did.

    Raises:
        ImageError: What the package was sealed with is malformed, or another package's.
    """
    graph, key_file = weights / _GRAPH_NAME, weights / KEY_NAME
    if graph.is_file():
        return _ROUTER in graph.read_bytes()
    if not key_file.is_file():
        return None
    try:
        key = parse_wrapped_key(key_file.read_bytes())
        manifest = (weights / MANIFEST_NAME).read_bytes()
        key.require_package(hashlib.sha256(manifest).digest(), key_file)
    except ConfigError as error:
        raise ImageError(str(error)) from None
    return key.mixture
