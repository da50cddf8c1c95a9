"""
A step: the tokens that answers show the model together, checked and put into its inputs.

The library takes places outside its tensors without an error, and reads or writes there. So
nothing reaches it that was not checked here. Pure.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.enclave.engine.cache import BLOCK_TOKENS, blocks_for
from app.protocol.errors import EngineError

WANTED: Final = "wanted_logits"  # our own input: the places of whose logits are computed


@dataclass(frozen=True, slots=True)
class Rows:
    """
    What one answer adds to a step.

    Attributes:
        tokens: Those that the model has not seen yet, 1 or more.

        past: How many it has seen; their keys and values lie in `blocks`.

        blocks: All that the answer has, at least as many as past and new tokens need.

        wanted: For how many of the last tokens logits are given, 0 to all.

        question: Whose other answers may have filled some of `blocks`, too; None shares nothing.
    """

    tokens: Sequence[int] = field(repr=False)
    past: int
    blocks: list[int]
    wanted: int
    question: object = field(default=None, repr=False)

    @property
    def end(self) -> int:
        """How many tokens the model has seen after the step."""
        return self.past + len(self.tokens)

    @property
    def used_blocks(self) -> list[int]:
        """Those that past and new tokens lie in."""
        return self.blocks[: blocks_for(self.end)]

    @property
    def open_blocks(self) -> list[int]:
        """Those that new tokens are written to, now or later."""
        return self.blocks[self.past // BLOCK_TOKENS :]

    @property
    def written_blocks(self) -> list[int]:
        """Those that the step writes to."""
        return self.used_blocks[self.past // BLOCK_TOKENS :]


@dataclass(frozen=True, slots=True)
class Bounds:
    """
    What one model has room for.

    Attributes:
        vocabulary: Tokens are below it.

        context_tokens: Of one answer, prompt and completion together.

        blocks: Of keys and values, in all.
    """

    vocabulary: int
    context_tokens: int
    blocks: int


def require_step(batch: Sequence[Rows], bounds: Bounds) -> None:
    """
    Require that the model may be shown *batch*: that all of it lies within *bounds*.

    Raises:
        EngineError: It has no row, or one without tokens; a token, a place or a block is out of
            bounds; an answer has too few blocks; a block is named twice, and not only as one that
            answers to one question have filled, at one place; or more logits are wanted than there
            are tokens.
    """
    if not batch:
        raise EngineError("a step shows the model nothing")
    for rows in batch:
        _require_within(rows.tokens, bounds.vocabulary, "a token")
        if not 0 <= rows.past < rows.end <= bounds.context_tokens:
            raise EngineError("a step has a place outside the context")
        if len(rows.blocks) < blocks_for(rows.end):
            raise EngineError("a step has fewer blocks than its tokens need")
        if not 0 <= rows.wanted <= len(rows.tokens):
            raise EngineError("a step wants logits of tokens that it does not have")
        require_blocks(rows.blocks, bounds)
    _require_apart(batch)


def _require_apart(batch: Sequence[Rows]) -> None:
    """Require that only answers to one question share blocks, full ones that nobody writes to."""
    filled: dict[int, tuple[int, int]] = {}
    for rows in batch:
        whose = id(rows if rows.question is None else rows.question)
        for place, block in enumerate(rows.blocks[: rows.past // BLOCK_TOKENS]):
            if filled.setdefault(block, (whose, place)) != (whose, place):
                raise EngineError("a block is of two questions, or at two places")
    written = [block for rows in batch for block in rows.open_blocks]
    if len(filled.keys() | set(written)) < len(filled) + len(written):
        raise EngineError("a block of two answers is written to")


def require_blocks(blocks: Sequence[int], bounds: Bounds) -> None:
    """
    Require that *blocks* are blocks of the model, none of them twice.

    Raises:
        EngineError: They are not.
    """
    _require_within(blocks, bounds.blocks, "a block")
    if len(set(blocks)) < len(blocks):
        raise EngineError("a block is named twice")


def _require_within(numbers: Sequence[int], limit: int, what: str) -> None:
    if not all(0 <= number < limit for number in numbers):
        raise EngineError(f"{what} is out of bounds")


def encode_step(batch: Sequence[Rows]) -> dict[str, NDArray[np.generic]]:
    """Give the inputs of paged attention for *batch*, which is within its bounds."""
    begins = np.cumsum([0, *(len(rows.tokens) for rows in batch)])
    blocks = [rows.used_blocks for rows in batch]
    places = zip(batch, begins[1:], strict=True)
    wanted = [np.arange(end - rows.wanted, end) for rows, end in places]
    if not any(map(len, wanted)):
        wanted = [np.zeros(1)]  # the model cannot compute none
    positions = [np.arange(rows.past, rows.end) for rows in batch]
    return {
        "input_ids": np.fromiter(chain.from_iterable(r.tokens for r in batch), np.int64),
        "position_ids": np.concatenate(positions).astype(np.int64),
        "past_lens": np.array([rows.past for rows in batch], np.int32),
        "subsequence_begins": begins.astype(np.int32),
        "block_indices": np.fromiter(chain.from_iterable(blocks), np.int32),
        "block_indices_begins": np.cumsum([0, *map(len, blocks)]).astype(np.int32),
        "max_context_len": np.array(max(rows.end for rows in batch), np.int32),
        WANTED: np.concatenate(wanted).astype(np.int64),
    }
