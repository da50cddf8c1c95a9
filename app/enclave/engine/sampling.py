"""
Sampling: which token comes next, from what a model thinks of each. docs/sampling.md says how.

A whole vocabulary is looked at in a few steps of numpy's, in 32 bits, which let other threads run
meanwhile; sums have 64. benchmarks/sampling measures what each costs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.protocol.errors import EngineError
from app.protocol.piece import TokenLogprob
from app.protocol.question import SCALE, Options

Logits = NDArray[np.float32]
Chances = NDArray[np.float32]
Mask = NDArray[np.generic]  # bits of tokens that may come, the lowest of the first byte token 0's

_FIRST_SORTED: Final = 256  # likeliest tokens
_MORE_SORTED: Final = 8  # times as many, where they are not enough
_SUMMED: Final = 512  # chances at once
_OCTETS: Final = np.arange(256, dtype=np.uint8)[:, None]
# What to add to eight logits for each octet of a mask: a table is five times as quick as bits.
_BARRIERS: Final = np.where(
    np.unpackbits(_OCTETS, axis=1, bitorder="little"), np.float32(0), np.float32(-np.inf)
)


@dataclass(frozen=True, slots=True)
class Choice:
    """
    The token that comes next.

    Attributes:
        logprob: Of it and of the likeliest, where the question asks for that.
    """

    token: int
    logprob: TokenLogprob | None = field(default=None, repr=False)


class Sampler:
    """
    Chooses the tokens of one answer, each from what the model thinks of all after those before it.

    Args:
        options: As the question has them.

        prompt: Its tokens, which the repetition penalty counts, too.

        random: Randomness; not drawn from when the temperature is 0.

        spell: Gives the bytes of a token.
    """

    def __init__(
        self,
        options: Options,
        *,
        prompt: Sequence[int],
        random: np.random.Generator,
        spell: Callable[[int], bytes],
    ) -> None:
        self._options = options
        self._random = random
        self._masked = np.empty((0, 8), np.float32)  # kept, since memory that is new costs more
        self._spell = spell
        repeats = options.repetition_penalty != 1
        counted = repeats or options.presence_penalty != 0 or options.frequency_penalty != 0
        self._counts = _Counts(prompt if repeats else ()) if counted else None
        self._biased = np.array(options.logit_bias[::2], np.intp)
        self._biases = (np.array(options.logit_bias[1::2]) / SCALE).astype(np.float32)

    def choose(self, logits: Logits, allowed: Mask | None = None) -> Choice:
        """
        Choose the next token, and count it as made.

        Args:
            logits: One number a token of the vocabulary; left as they are.

            allowed: Which tokens may come; None for all of them.

        Raises:
            EngineError: A logit is no number or infinite, or no token may come.
        """
        if allowed is not None:
            logits = self._mask(logits, allowed)
        if not np.isfinite(logits.max()):
            raise EngineError
        adjusted = self._adjust(logits)
        if self._options.temperature == 0:
            token = int(adjusted.argmax())
        else:
            token = _draw(adjusted, self._options, self._random)
        if self._counts is not None:
            self._counts.add(token)
        told = self._tell(logits, token) if self._options.logprobs is not None else None
        return Choice(token, told)

    def _mask(self, logits: Logits, allowed: Mask) -> Logits:
        """Give the logits of what is *allowed*, and no chance to the rest."""
        size = -(-len(logits) // 8)
        octets = allowed.view(np.uint8)[:size]
        if len(self._masked) != size:
            self._masked = np.empty((size, 8), np.float32)
        np.take(_BARRIERS, octets, axis=0, out=self._masked[: len(octets)], mode="clip")
        self._masked[len(octets) :] = -np.inf
        masked = self._masked.reshape(-1)[: len(logits)]
        masked += logits
        return masked

    def _adjust(self, logits: Logits) -> Logits:
        """Give the logits after biases and penalties."""
        if self._counts is None and not len(self._biased):
            return logits
        options = self._options
        adjusted = logits.copy()
        adjusted[self._biased] += self._biases
        if self._counts is not None:
            tokens, counts = self._counts.tokens, self._counts.counts
            values = adjusted[tokens]
            penalty = np.float32(options.repetition_penalty)
            values = np.where(values > 0, values / penalty, values * penalty)
            values -= np.float32(options.frequency_penalty) * counts
            adjusted[tokens] = values - np.float32(options.presence_penalty) * (counts > 0)
        return adjusted

    def _tell(self, logits: Logits, token: int) -> TokenLogprob:
        """Give the log-probabilities of *token* and of the likeliest ones."""
        highest = logits.max()
        whole = math.log(np.exp(logits - highest).sum(dtype=np.float64)) + float(highest)
        likeliest = _likeliest(logits, self._options.logprobs or 0)
        others = [TokenLogprob(self._spell(n), float(logits[n]) - whole) for n in likeliest]
        return TokenLogprob(self._spell(token), float(logits[token]) - whole, tuple(others))


class _Counts:
    """
    How often the tokens of a text were made; those of its prompt begin at 0.

    Attributes:
        tokens: Each once.

        counts: Theirs, in the same order.
    """

    def __init__(self, prompt: Sequence[int]) -> None:
        self.tokens = np.unique(np.array(prompt, np.intp))
        self.counts = np.zeros(len(self.tokens), np.float32)
        self._places = {token: place for place, token in enumerate(self.tokens.tolist())}

    def add(self, token: int) -> None:
        """Count *token* once more."""
        if token not in self._places:
            self._places[token] = len(self.tokens)
            self.tokens = np.append(self.tokens, token)
            self.counts = np.append(self.counts, np.float32(0))
        self.counts[self._places[token]] += 1


def _likeliest(logits: Logits, count: int) -> list[int]:
    """Give the *count* likeliest tokens, the likeliest first, of equals the lowest number."""
    count = min(count, len(logits))
    if count == 0:
        return []
    least = np.partition(logits, -count)[-count]
    tokens = np.flatnonzero(logits >= least)
    order = np.lexsort((tokens, -logits[tokens]))
    return [int(token) for token in tokens[order[:count]]]


def _draw(logits: Logits, options: Options, random: np.random.Generator) -> int:
    """Draw a token from those that temperature, min_p, top_k and top_p leave; equals stay."""
    temperature, highest = options.temperature, float(logits.max())
    least = highest + temperature * math.log(options.min_p) if options.min_p > 0 else -math.inf
    if 0 < options.top_k < len(logits):
        least = max(least, float(np.partition(logits, -options.top_k)[-options.top_k]))
    tokens = np.flatnonzero(logits >= least) if least > -math.inf else None
    values = logits if tokens is None else logits[tokens]
    chances = np.exp((values - np.float32(highest)) / np.float32(temperature))
    if options.top_p < 1:
        kept = np.flatnonzero(chances >= _least_of_nucleus(chances, options.top_p))
        tokens, chances = kept if tokens is None else tokens[kept], chances[kept]
    place = _draw_place(chances, random.random())
    return place if tokens is None else int(tokens[place])


def _least_of_nucleus(chances: Chances, top_p: float) -> float:
    """
    Give the smallest chance that top_p leaves.

    The likeliest alone are sorted, as many as it takes.
    """
    mass = top_p * chances.sum(dtype=np.float64)
    count = min(_FIRST_SORTED, len(chances))
    while True:
        likely = np.sort(np.partition(chances, -count)[-count:])[::-1]
        before = likely.cumsum(dtype=np.float64) - likely
        kept = int((before < mass).sum())
        if kept < count or count == len(chances):
            return float(likely[kept - 1])
        count = min(_MORE_SORTED * count, len(chances))


def _draw_place(chances: Chances, share: float) -> int:
    """Give the first place up to which *chances* make up more than *share* of their sum."""
    begins = np.arange(0, len(chances), _SUMMED)
    sums = np.add.reduceat(chances, begins).cumsum(dtype=np.float64)
    wanted = min(share * sums[-1], np.nextafter(sums[-1], 0))
    part = int(np.searchsorted(sums, wanted, side="right"))
    before = sums[part - 1] if part else 0.0
    few = chances[part * _SUMMED : (part + 1) * _SUMMED]
    inside = int(np.searchsorted(before + few.cumsum(dtype=np.float64), wanted, side="right"))
    return part * _SUMMED + min(inside, int(np.flatnonzero(few)[-1]))
