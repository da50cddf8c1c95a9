"""
Memory: what an engine needs beside its image. docs/models.md has the measurements.
"""

import json
from pathlib import Path
from typing import Final

from image.errors import ImageError
from image.model.weights import MANIFEST_NAME

_COPY_PERCENT: Final = 110  # of the weights: once more, in the order that instructions want
_WORKING_BYTES: Final = 512 * 1024 * 1024  # Python, libraries, activations, logits
_KV_SHARE: Final = 2  # keys and values get half of what is free
_EXACT: Final = "fp32"  # keeps keys and values in 32 bits, too


def least_engine_bytes(weights: Path) -> int:
    """
    Give the least memory, in bytes, with which the model of the package *weights* starts.

    That is for one conversation that fills its context; 16 at once need 16 times its keys and
    values. The files of the image, weights among them, come on top.

    Raises:
        ImageError: The package says no sizes; says how to make one that does.
    """
    try:
        manifest = json.loads((weights / MANIFEST_NAME).read_bytes())
        sizes = manifest["sizes"]
        a_token = "f32" if manifest["precision"] == _EXACT else "u8"
        context = manifest["context_length"] * sizes[f"kv_bytes_per_token_{a_token}"]
        copy = sizes["weights_bytes"] * _COPY_PERCENT // 100
    except (OSError, ValueError, KeyError, TypeError):
        raise ImageError(
            f"{MANIFEST_NAME} says nothing of the model's sizes: make the package again with "
            "bin/save-model"
        ) from None
    return int(copy + _KV_SHARE * context + _WORKING_BYTES)
