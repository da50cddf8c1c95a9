"""
The cache of keys and values: blocks of one pool, and the prefixes that conversations left there.

A block belongs to one answer or to one kept prefix, never to two, so nothing is shared between
conversations. A prefix is found by a name that only those can make who hold its question key.
Pure: what lies in the blocks is the model's business.
"""

import math
from dataclasses import dataclass, field
from typing import Final

BLOCK_TOKENS: Final = 32  # OpenVINO's paged attention on CPUs, fixed by its kernels


@dataclass(frozen=True, slots=True)
class PrefixName:
    """
    Names what a conversation may leave in the cache for its next turn.

    Attributes:
        name: A digest of the opened question key.

        ends: `time.monotonic()` at which the key is over, and with it the prefix.
    """

    name: bytes = field(repr=False)
    ends: float


@dataclass(slots=True)
class CachedTokens:
    """Tokens whose keys and values lie in *blocks*, which have room for more."""

    tokens: list[int] = field(default_factory=list, repr=False)
    blocks: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Kept:
    cached: CachedTokens
    ends: float


def blocks_for(tokens: int) -> int:
    """Give how many blocks hold *tokens*."""
    return math.ceil(tokens / BLOCK_TOKENS)


class KvCache:
    """
    All blocks of the model: free, lent to an answer, or kept as a conversation's prefix.

    Used by one thread. What it frees and the model had written is listed in `freed` until the
    model has wiped it.

    Args:
        blocks: How many there are.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._free = list(reversed(range(blocks)))  # the last freed is the first lent
        self._kept: dict[bytes, _Kept] = {}  # the longest unused first
        self._written: set[int] = set()
        self.freed: list[int] = []

    @property
    def available(self) -> int:
        """How many blocks an answer could get, kept prefixes given up."""
        return len(self._free) + sum(len(kept.cached.blocks) for kept in self._kept.values())

    @property
    def next_end(self) -> float | None:
        """When the first kept prefix is over; None while there is none."""
        return min((kept.ends for kept in self._kept.values()), default=None)

    def lend(self, prompt: list[int], tokens: int, prefix: PrefixName | None) -> CachedTokens:
        """
        Lend blocks for *tokens*, of which those of *prompt* that *prefix* holds are cached.

        The last token of *prompt* is never taken as cached, since the model has to see it.
        There must be that many available.
        """
        kept = self._kept.pop(prefix.name, None) if prefix else None
        cached = kept.cached if kept else CachedTokens()
        del cached.tokens[_common(cached.tokens, prompt[:-1]) :]
        if not cached.tokens:
            self._release(cached.blocks)
            cached = CachedTokens()
        wanted = blocks_for(tokens)
        self._release(cached.blocks[wanted:])
        del cached.blocks[wanted:]
        while len(self._free) < wanted - len(cached.blocks):
            self._drop(next(iter(self._kept)))
        cached.blocks += [self._free.pop() for _ in range(wanted - len(cached.blocks))]
        return cached

    def note_written(self, blocks: list[int]) -> None:
        """Note that the model is about to write to *blocks*."""
        self._written.update(blocks)

    def give_back(self, cached: CachedTokens, prefix: PrefixName | None) -> None:
        """Take back what was lent, and keep its tokens under *prefix*, if that is given."""
        used = blocks_for(len(cached.tokens)) if prefix else 0
        self._release(cached.blocks[used:])
        del cached.blocks[used:]
        if prefix and used:
            if prefix.name in self._kept:
                self._drop(prefix.name)
            self._kept[prefix.name] = _Kept(cached, prefix.ends)

    def expire(self, now: float) -> None:
        """Drop every prefix whose key is over at *now*."""
        for name in [name for name, kept in self._kept.items() if now >= kept.ends]:
            self._drop(name)

    def _drop(self, name: bytes) -> None:
        self._release(self._kept.pop(name).cached.blocks)

    def _release(self, blocks: list[int]) -> None:
        self._free += blocks
        self.freed += self._written.intersection(blocks)
        self._written.difference_update(blocks)


def _common(left: list[int], right: list[int]) -> int:
    """Give how many tokens *left* and *right* begin with in common."""
    pairs = zip(left, right, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right))
    )
