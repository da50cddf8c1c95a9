"""
Sampling: which token comes next, from what a model thinks of each.
"""

import numpy as np
from numpy.typing import NDArray

from app.protocol.errors import EngineError
from app.protocol.question import Options

Logits = NDArray[np.float32]


def choose_token(logits: Logits, options: Options, generator: np.random.Generator) -> int:
    """
    Choose the next token as *options* say.

    Args:
        logits: One number a token of the vocabulary.

        generator: Randomness; not drawn from when the temperature is 0.

    Raises:
        EngineError: A logit is no number, or infinite.
    """
    if not np.isfinite(logits.max()):
        raise EngineError
    if options.temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / options.temperature
    chances = np.exp(scaled - scaled.max())
    chances /= chances.sum()
    chances[chances < _least_kept(chances, options)] = 0
    sums = chances.cumsum()
    place = int(np.searchsorted(sums, generator.random() * sums[-1], side="right"))
    return min(place, int(np.flatnonzero(chances)[-1]))


def _least_kept(chances: NDArray[np.float64], options: Options) -> float:
    """
    Give the smallest chance that top_k and top_p leave; equal ones stay together.

    Only numbers are sorted, never places: a vocabulary has a quarter of a million.
    """
    count = len(chances)
    most = options.top_k if 0 < options.top_k < count else count
    if options.top_p >= 1:
        return float(np.partition(chances, count - most)[count - most]) if most < count else 0.0
    likely = np.sort(np.partition(chances, count - most)[count - most :])[::-1]
    before = likely.cumsum() - likely
    return float(likely[int((before < options.top_p * likely.sum()).sum()) - 1])
