"""
A model without weights whose every logit depends on all tokens that lie in an answer's blocks.

Were one of them another answer's, wiped, or not yet written, it would go on otherwise.
"""

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.enclave.engine.batching import BatchingEngine, Limits
from app.enclave.engine.cache import BLOCK_TOKENS, PrefixName
from app.enclave.engine.generation import BatchedAnswers
from app.enclave.engine.sampling import Choice, Sampler
from app.enclave.engine.step import Bounds, Rows, require_blocks, require_step
from app.protocol.piece import Piece
from app.protocol.question import Message, Options, Question
from tests.numbers import Numbers

VOCABULARY: Final = 300
FOREVER: Final = time.monotonic() + 3600
_CONTEXT: Final = 4096


@dataclass(slots=True)
class HashedModel:
    """
    See `app.enclave.engine.model.Model` for what its methods promise.

    Attributes:
        copies: Of so many tokens all but one are, if anything followed the last one before, what
            did so last; 0 copies nothing.

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
            found = [at for at in range(1, len(text)) if text[at - 1] == text[-1]]
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


@contextmanager
def run_engine(model: HashedModel, context: int) -> Iterator[BatchingEngine]:
    """Run an engine that ends no answer before its length."""
    engine = BatchingEngine(model, Numbers(VOCABULARY), Limits(context, frozenset()))
    try:
        yield engine
    finally:
        if model.gate is not None:
            model.gate.release(10_000)
        engine.close()


def prompt_of(number: int, length: int) -> list[int]:
    """Give some prompt."""
    return [int(token) for token in np.random.default_rng(number).integers(0, 300, length)]


def start(
    engine: BatchingEngine, prompt: Sequence[int], options: Options, name: str = ""
) -> BatchedAnswers:
    """Ask for what continues *prompt*."""
    question = Question((Message("user", " ".join(map(str, prompt))),), options)
    prefix = PrefixName(name.encode(), FOREVER) if name else None
    return engine.start(question, deadline=FOREVER, prefix=prefix)


def take(answers: BatchedAnswers) -> list[Piece]:
    """Give all pieces of answers that come to their lengths."""
    pieces = []
    while answers.finish is None:
        pieces += answers.take(5)
    assert set(answers.finish.reasons) == {"length"}
    return pieces


def read(answers: BatchedAnswers) -> list[list[int]]:
    """Give the tokens of each answer."""
    pieces = take(answers)
    texts = [
        "".join(piece.text for piece in pieces if piece.index == index)
        for index in range(len(answers.answers))
    ]
    return [[int(word) for word in text.split()] for text in texts]


def choose_alone(
    model: HashedModel, prompt: Sequence[int], options: Options, context: int, index: int = 0
) -> list[Choice]:
    """Give the answer that is made with no other, no blocks and no guess beside it."""
    random, text = np.random.default_rng((options.seed or 0, index)), list(prompt)
    sampler = Sampler(options, prompt=prompt, random=random, spell=Numbers(VOCABULARY).spell)
    choices = []
    for _ in range(min(options.max_tokens, context - len(prompt))):
        choices.append(sampler.choose(model.logits(text)))
        text.append(choices[-1].token)
    return choices


def alone(
    model: HashedModel, prompt: Sequence[int], options: Options, context: int, index: int = 0
) -> list[int]:
    """Give its tokens."""
    return [choice.token for choice in choose_alone(model, prompt, options, context, index)]
