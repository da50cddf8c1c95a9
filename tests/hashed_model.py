"""
A model without weights whose every logit depends on all tokens that lie in an answer's blocks.

Were one of them another answer's, wiped, or not yet written, it would go on otherwise.
"""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.enclave.engine.cache import BLOCK_TOKENS
from app.enclave.engine.step import Bounds, Rows, require_blocks, require_step

VOCABULARY: Final = 300
_CONTEXT: Final = 4096


@dataclass(slots=True)
class HashedModel:
    """
    See `app.enclave.engine.model.Model` for what its methods promise.

    Attributes:
        copies: Of so many tokens all but one are, if anything followed the last two of its text
            before, what did so last; 0 copies nothing.

        gate: One permit lets it take one step.

        steps: What each step was given.

        held: What lies in each block, token by token; wiped ones hold nothing.
    """

    blocks: int
    copies: int = 0
    gate: threading.Semaphore | None = None
    steps: list[list[Rows]] = field(default_factory=list)
    held: dict[int, list[int]] = field(default_factory=dict)
    wiped: list[int] = field(default_factory=list)

    def forward(self, batch: Sequence[Rows]) -> NDArray[np.float32]:
        """Write what it is shown to its blocks, and think of all that lies in them."""
        if self.gate is not None:
            self.gate.acquire()
        require_step(batch, Bounds(VOCABULARY, _CONTEXT, self.blocks))
        self.steps.append([Rows(list(r.tokens), r.past, list(r.blocks), r.wanted) for r in batch])
        for rows in batch:
            for at, token in enumerate(rows.tokens, rows.past):
                block = self.held.setdefault(rows.blocks[at // BLOCK_TOKENS], [])
                assert len(block) >= at % BLOCK_TOKENS, "a place before it was not written"
                block[at % BLOCK_TOKENS :] = [token]
        return np.array([row for rows in batch for row in self._think(rows)], np.float32)

    def _think(self, rows: Rows) -> list[NDArray[np.float32]]:
        text = [token for block in rows.used_blocks for token in self.held[block]]
        assert len(text) == rows.end, "blocks hold other tokens than the answer has"
        return [self.logits(text[:end]) for end in range(rows.end - rows.wanted + 1, rows.end + 1)]

    def logits(self, text: Sequence[int]) -> NDArray[np.float32]:
        """Give what it thinks of *text*."""
        digest = hashlib.blake2b(np.array(text, np.int32).tobytes(), digest_size=8).digest()
        chance = np.random.default_rng(int.from_bytes(digest))
        logits = chance.normal(0, 2, VOCABULARY).astype(np.float32)
        if self.copies and chance.integers(self.copies):
            pair = list(text[-2:])
            found = [at for at in range(2, len(text)) if list(text[at - 2 : at]) == pair]
            if found:
                logits[text[found[-1]]] += 9
        return logits

    def wipe(self, blocks: Sequence[int]) -> None:
        """Forget what lies in *blocks*."""
        require_blocks(blocks, Bounds(VOCABULARY, _CONTEXT, self.blocks))
        self.wiped += blocks
        for block in blocks:
            self.held.pop(block, None)

    @property
    def shown(self) -> int:
        """How many tokens it was shown in all."""
        return sum(len(rows.tokens) for step in self.steps for rows in step)
