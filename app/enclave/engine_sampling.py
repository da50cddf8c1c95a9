"""
Sampling: which token comes next, from what a model thinks of each.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.protocol.question import Options

_LIKELY: Final = 512  # sorting only so many is enough for nearly every top_p

Logits = NDArray[np.float32]


def choose_token(logits: Logits, options: Options, generator: np.random.Generator) -> int:
    """
    Choose the next token as *options* say.

    Args:
        logits: One number a token of the vocabulary.

        generator: Randomness; not drawn from when the temperature is 0.
    """
    if options.temperature == 0:
        return int(logits.argmax())
    scaled = logits.astype(np.float64) / options.temperature
    chances = np.exp(scaled - scaled.max())
    chances /= chances.sum()
    tokens = _kept_tokens(chances, options)
    kept = chances[tokens] if tokens is not None else chances
    sums = kept.cumsum()
    place = int(np.searchsorted(sums, generator.random() * sums[-1], side="right"))
    place = min(place, len(kept) - 1)
    return place if tokens is None else int(tokens[place])


def _kept_tokens(chances: NDArray[np.float64], options: Options) -> NDArray[np.intp] | None:
    """Give the tokens that top_k and top_p leave, the likeliest first; None for all."""
    count = len(chances)
    most = options.top_k if 0 < options.top_k < count else count
    if options.top_p >= 1:
        return None if most == count else _likeliest(chances, most)
    tokens = _likeliest(chances, min(most, _LIKELY))
    mass = chances.sum() if most == count else chances[_likeliest(chances, most)].sum()
    if chances[tokens].sum() < options.top_p * mass and len(tokens) < most:
        tokens = _likeliest(chances, most)
    before = chances[tokens].cumsum() - chances[tokens]
    return tokens[: int((before < options.top_p * mass).sum())]


def _likeliest(chances: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    """Give the *count* likeliest tokens, the likeliest first, of equal ones the lowest id."""
    some = np.arange(len(chances))
    if count < len(chances):
        least = np.partition(chances, len(chances) - count)[len(chances) - count]
        some = np.flatnonzero(chances >= least)
    order = np.lexsort((some, -chances[some]))
    return some[order][:count]
