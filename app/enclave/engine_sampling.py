"""
Sampling: which token comes next, from what a model thinks of each.
"""

import torch
from torch import Tensor

from app.protocol.question import Options


def choose_token(logits: Tensor, options: Options, generator: torch.Generator) -> int:
    """Choose the next token as *options* say."""
    if options.temperature == 0:
        return int(logits.argmax())
    weights = logits.float() / options.temperature
    if 0 < options.top_k < len(weights):
        least = weights.topk(options.top_k).values[-1]
        weights = weights.masked_fill(weights < least, float("-inf"))
    chances = weights.softmax(dim=-1)
    if options.top_p < 1:
        ordered, places = chances.sort(descending=True, stable=True)
        ordered[ordered.cumsum(dim=-1) - ordered >= options.top_p] = 0
        chances = torch.zeros_like(chances).scatter(0, places, ordered)
    return int(torch.multinomial(chances, 1, generator=generator))
