from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.cache import BLOCK_TOKENS, blocks_for
from app.enclave.engine.step import WANTED, Bounds, Rows, encode_step, require_blocks, require_step
from app.protocol.errors import EngineError

BOUNDS = Bounds(vocabulary=50, context_tokens=200, blocks=40)
# One answer with two blocks, the second begun, of which three tokens are new.
ROWS = Rows([1, 2, 3], 33, [4, 5], 1)
QUESTION = object()


@st.composite
def steps(draw: st.DrawFn) -> list[Rows]:
    """Steps that lie within the bounds, up to their very edges."""
    free = draw(st.permutations(range(BOUNDS.blocks)))
    batch = []
    for _ in range(draw(st.integers(1, 4))):
        tokens = draw(st.lists(st.integers(0, BOUNDS.vocabulary - 1), min_size=1, max_size=70))
        past = draw(st.integers(0, BOUNDS.context_tokens - len(tokens)))
        count = blocks_for(past + len(tokens)) + draw(st.integers(0, 2))
        wanted = draw(st.integers(0, len(tokens)))
        batch.append(Rows(tokens, past, list(free[:count]), wanted))
        free = free[count:]
    return batch


@given(steps())
def test_within_bounds(batch: list[Rows]) -> None:
    """
    What lies within the bounds is taken, and each input has the shape that the others say: a
    place for each token, blocks for all that was seen, and logits of tokens of the step.
    """
    if any(len(rows.blocks) < blocks_for(rows.end) for rows in batch):  # blocks ran out
        with pytest.raises(EngineError):
            require_step(batch, BOUNDS)
        return
    require_step(batch, BOUNDS)
    inputs = encode_step(batch)
    count = sum(len(rows.tokens) for rows in batch)
    used = sum(blocks_for(rows.end) for rows in batch)
    assert inputs["input_ids"].shape == inputs["position_ids"].shape == (count,)
    assert inputs["past_lens"].shape == (len(batch),)
    for begins, end in (("subsequence_begins", count), ("block_indices_begins", used)):
        assert inputs[begins].shape == (len(batch) + 1,)
        assert (inputs[begins][0], inputs[begins][-1]) == (0, end)
        assert (np.diff(inputs[begins]) > 0).all()
    blocks = inputs["block_indices"].tolist()
    assert len(blocks) == len(set(blocks)) == used
    assert max(blocks) < BOUNDS.blocks
    assert inputs["max_context_len"] == max(rows.end for rows in batch)
    assert inputs["position_ids"].max() < BOUNDS.context_tokens
    wanted = inputs[WANTED].tolist()
    assert len(wanted) == max(1, sum(rows.wanted for rows in batch))
    assert set(wanted) <= set(range(count))


@pytest.mark.parametrize(
    "batch",
    [
        [],
        [replace(ROWS, tokens=[])],
        [replace(ROWS, tokens=[1, 50, 3])],
        [replace(ROWS, tokens=[1, -1, 3])],
        [replace(ROWS, past=-1)],
        [replace(ROWS, past=198, blocks=list(range(7)))],
        [replace(ROWS, past=62)],
        [replace(ROWS, blocks=[4])],
        [replace(ROWS, blocks=[4, 40])],
        [replace(ROWS, blocks=[4, -1])],
        [replace(ROWS, blocks=[4, 4])],
        [replace(ROWS, blocks=[4, 5, 5])],
        [ROWS, replace(ROWS, blocks=[6, 5])],
        [ROWS, replace(ROWS, blocks=[6, 7, 5])],
        [replace(ROWS, wanted=-1)],
        [replace(ROWS, wanted=4)],
    ],
    ids=[
        "no rows", "no tokens", "token too large", "negative token", "negative place",
        "beyond the context", "beyond its blocks", "too few blocks", "no such block",
        "negative block", "block twice", "block lent twice", "block of another answer",
        "block lent to another answer", "negative wanted", "more wanted than tokens",
    ],
)  # fmt: skip
def test_out_of_bounds(batch: list[Rows]) -> None:
    """
    Whatever would reach outside of a tensor, or into another answer's blocks, is refused.
    """
    require_step([ROWS], BOUNDS)
    with pytest.raises(EngineError):
        require_step(batch, BOUNDS)


# Answers to one question, whose prompt fills one block.
SHARED = [Rows([7], 40, [9, 1], 1, QUESTION), Rows([8, 8], 32, [9, 2], 2, QUESTION)]


def test_shared_blocks() -> None:
    """
    Answers to one question may have blocks in common that are full for each of them.
    """
    require_step([*SHARED, ROWS], BOUNDS)
    assert encode_step(SHARED)["block_indices"].tolist() == [9, 1, 9, 2]


@pytest.mark.parametrize(
    "changed",
    [
        replace(SHARED[1], question=None),
        replace(SHARED[1], question="another"),
        replace(SHARED[1], blocks=[9, 1]),
        replace(SHARED[1], past=31, blocks=[9, 2]),
        replace(SHARED[1], past=0, tokens=[3], blocks=[5, 9], wanted=1),
        replace(SHARED[1], past=64, blocks=[3, 9, 2]),
    ],
    ids=[
        "of no question", "of another question", "open in both", "open in one",
        "lent ahead in one", "at another place",
    ],
)  # fmt: skip
def test_blocks_that_must_not_be_shared(changed: Rows) -> None:
    """
    No other block is: one that either writes to, now or later, or that lies elsewhere in its text.
    """
    for batch in ([SHARED[0], changed], [changed, SHARED[0]]):
        with pytest.raises(EngineError):
            require_step(batch, BOUNDS)


@given(steps(), st.data())
def test_one_thing_wrong(batch: list[Rows], data: st.DataObject) -> None:
    """
    One number out of its bounds, anywhere in a step, is found.
    """
    at = data.draw(st.integers(0, len(batch) - 1))
    rows = batch[at]
    outside = data.draw(st.one_of(st.integers(max_value=-1), st.integers(min_value=200)))
    place = data.draw(st.integers(0, len(rows.tokens) - 1))
    tokens = [outside if n == place else token for n, token in enumerate(rows.tokens)]
    field = data.draw(st.sampled_from(("tokens", "past", "blocks", "wanted")))
    wrong = {
        "tokens": replace(rows, tokens=tokens),
        "past": replace(rows, past=outside),
        "blocks": replace(rows, blocks=[*rows.blocks, outside]),
        "wanted": replace(rows, wanted=outside),
    }[field]
    with pytest.raises(EngineError):
        require_step([*batch[:at], wrong, *batch[at + 1 :]], BOUNDS)


@pytest.mark.parametrize("blocks", [[-1], [40], [3, 3]])
def test_blocks(blocks: list[int]) -> None:
    """
    Blocks that are none of the model's, or named twice, are refused; none at all are fine.
    """
    require_blocks([], BOUNDS)
    require_blocks([39, 0], BOUNDS)
    with pytest.raises(EngineError):
        require_blocks(blocks, BOUNDS)


def test_messages_have_no_content() -> None:
    """
    What is said of a step that is refused names no token and no number of it.
    """
    for batch in ([replace(ROWS, tokens=[77777])], [replace(ROWS, blocks=[77777, 77778])]):
        with pytest.raises(EngineError) as caught:
            require_step(batch, BOUNDS)
        assert "7777" not in str(caught.value)


def test_block_size() -> None:
    """
    A step's last token may fill its last block.
    """
    require_step([Rows([1], BLOCK_TOKENS - 1, [0], 1)], BOUNDS)
    with pytest.raises(EngineError):
        require_step([Rows([1], BLOCK_TOKENS, [0], 1)], BOUNDS)
