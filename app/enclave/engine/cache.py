"""
The cache of keys and values: blocks of one pool, and the prefixes that conversations left there.

A block belongs to one answer or to one kept prefix. Only the answers to one question share the
blocks that their prompt fills, which nobody writes to any more; so nothing is shared between
conversations. A prefix is found by a name that only those can make who hold its question key.
Pure: what lies in the blocks is the model's business.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.protocol.errors import EngineError

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
    """Tokens whose keys and values lie in *blocks*, which may have room for more."""

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
    All blocks of the model: free, lent to answers, or kept as a conversation's prefix.

    Used by one thread. What nobody holds any more and the model had written is listed in `freed`
    until the model has wiped it.

    Args:
        blocks: How many there are.
    """

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self._free = list(reversed(range(blocks)))  # the last freed is the first lent
        self._holders: Counter[int] = Counter()
        self._kept: dict[bytes, _Kept] = {}  # the longest unused first
        self._written: set[int] = set()
        self.freed: list[int] = []

    @property
    def available(self) -> int:
        """How many blocks answers could get, kept prefixes given up."""
        kept = (block for kept in self._kept.values() for block in kept.cached.blocks)
        return len(self._free) + sum(self._holders[block] == 1 for block in kept)

    def has(self, blocks: int) -> bool:
        """Tell whether answers could get so many."""
        return blocks <= len(self._free) or blocks <= self.available

    @property
    def next_end(self) -> float | None:
        """When the first kept prefix is over; None while there is none."""
        return min((kept.ends for kept in self._kept.values()), default=None)

    def lend(self, prompt: list[int], prefix: PrefixName | None) -> CachedTokens:
        """
        Lend those tokens of *prompt* that *prefix* holds, in blocks that are shared with nobody.

        The last token of *prompt* is never among them, since the model has to see it.
        """
        kept = self._kept.pop(prefix.name, None) if prefix else None
        cached = kept.cached if kept else CachedTokens()
        own = [self._holders[block] == 1 for block in cached.blocks]
        first_shared = own.index(False) if False in own else len(own)
        self._cut(cached, min(first_shared * BLOCK_TOKENS, _common(cached.tokens, prompt[:-1])))
        return cached

    def share(self, cached: CachedTokens, prompt: list[int]) -> CachedTokens:
        """
        Lend the blocks of *cached* that *prompt* fills to one more answer to it.

        As with `lend`, the last token of *prompt* is not among their tokens.
        """
        whole = (len(prompt) - 1) // BLOCK_TOKENS
        self._holders.update(cached.blocks[:whole])
        return CachedTokens(prompt[: whole * BLOCK_TOKENS], cached.blocks[:whole])

    def grow(self, cached: CachedTokens, tokens: int) -> None:
        """
        Lend *cached* the blocks that it lacks for *tokens*; so many have to be available.

        Kept prefixes give theirs up, the longest unused first, and of each the end first.
        """
        lacking = max(0, blocks_for(tokens) - len(cached.blocks))
        while len(self._free) < lacking:
            name, kept = next(iter(self._kept.items()))
            self._cut(kept.cached, (len(kept.cached.blocks) - 1) * BLOCK_TOKENS)
            if not kept.cached.blocks:
                del self._kept[name]
        lent = [self._free.pop() for _ in range(lacking)]
        self._holders.update(lent)
        cached.blocks += lent

    def note_written(self, blocks: Sequence[int]) -> None:
        """
        Note that the model is about to write to *blocks*.

        Raises:
            EngineError: One of them is shared, or nobody's.
        """
        if any(self._holders[block] != 1 for block in blocks):
            raise EngineError("a step writes to a block of several answers, or of none")
        self._written.update(blocks)

    def give_back(self, cached: CachedTokens, prefix: PrefixName | None = None) -> None:
        """Take back what was lent, and keep its tokens under *prefix*, if that is given."""
        self._cut(cached, len(cached.tokens) if prefix else 0)
        if prefix and cached.tokens:
            if prefix.name in self._kept:
                self._drop(prefix.name)
            self._kept[prefix.name] = _Kept(cached, prefix.ends)

    def expire(self, now: float) -> None:
        """Drop every prefix whose key is over at *now*."""
        for name in [name for name, kept in self._kept.items() if now >= kept.ends]:
            self._drop(name)

    def _drop(self, name: bytes) -> None:
        self._release(self._kept.pop(name).cached.blocks)

    def _cut(self, cached: CachedTokens, tokens: int) -> None:
        """Leave *cached* its first *tokens* alone."""
        del cached.tokens[tokens:]
        self._release(cached.blocks[blocks_for(tokens) :])
        del cached.blocks[blocks_for(tokens) :]

    def _release(self, blocks: list[int]) -> None:
        """Let go of *blocks*, once; those that nobody else holds are free."""
        self._holders.subtract(blocks)
        left = [block for block in blocks if self._holders[block] == 0]
        self._free += left
        self.freed += self._written.intersection(left)
        self._written.difference_update(left)


def _common(left: list[int], right: list[int]) -> int:
    """Give how many tokens *left* and *right* begin with in common."""
    pairs = zip(left, right, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs) if one != other), min(len(left), len(right))
    )
