"""
Tensors: what the heads of safetensors files say, read without any package.
"""

import json
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from image.model.source import SaveError


def count_numbers(paths: Iterable[Path]) -> Counter[str]:
    """
    Count the numbers in *paths*, by their kind there, such as "BF16".

    Raises:
        SaveError: One is no safetensors file, or cut short.
    """
    counts: Counter[str] = Counter()
    for path in paths:
        for tensor in _read_head(path):
            counts[str(tensor["dtype"])] += math.prod(tensor["shape"])
    return counts


def _read_head(path: Path) -> list[dict[str, list[int]]]:
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 2 <= size <= path.stat().st_size - 8:
                raise SaveError(f"{path.name} is cut short, or no safetensors file: fetch it anew")
            head = json.loads(file.read(size))
        tensors = [tensor for name, tensor in head.items() if name != "__metadata__"]
        end = max((tensor["data_offsets"][1] for tensor in tensors), default=0)
        if not all("dtype" in tensor and "shape" in tensor for tensor in tensors):
            raise KeyError
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        raise SaveError(f"{path.name} is no safetensors file: fetch it anew") from None
    if path.stat().st_size != 8 + size + end:
        raise SaveError(
            f"{path.name} has {path.stat().st_size:,} bytes, and should have "
            f"{8 + size + end:,}: fetch it anew"
        )
    return tensors
