import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.cache import BLOCK_TOKENS, CachedTokens, KvCache, PrefixName, blocks_for
from app.protocol.errors import EngineError

A, B = PrefixName(b"a", 100.0), PrefixName(b"b", 200.0)
PROMPT = list(range(100))


def lend(cache: KvCache, prompt: list[int], tokens: int, prefix: PrefixName | None) -> CachedTokens:
    """Lend blocks for *tokens*, those of *prompt* among them."""
    cached = cache.lend(prompt, prefix)
    cache.grow(cached, tokens)
    return cached


def leave(cache: KvCache, tokens: list[int], prefix: PrefixName | None) -> None:
    """Let an answer of *tokens* come and go."""
    cached = lend(cache, tokens, len(tokens), prefix)
    cached.tokens = list(tokens)
    cache.note_written(cached.blocks)
    cache.give_back(cached, prefix)


def test_own_prefix() -> None:
    """
    A conversation's next prompt finds what it has in common with the last, in the same blocks.
    """
    cache = KvCache(16)
    first = lend(cache, PROMPT, 120, A)
    assert first.tokens == []
    blocks = list(first.blocks)
    first.tokens = [*PROMPT, 7, 8, 9]
    cache.give_back(first, A)
    second = lend(cache, [*PROMPT, 7, 8, 1, 2, 3], 200, A)
    assert second.tokens == [*PROMPT, 7, 8]
    used = blocks_for(len(PROMPT) + 2)
    assert second.blocks[:used] == blocks[:used]
    assert len(second.blocks) == blocks_for(200)


def test_foreign_prefix() -> None:
    """
    The same prompt under another name, or under none, finds nothing.
    """
    cache = KvCache(16)
    leave(cache, PROMPT, A)
    assert lend(cache, PROMPT, 100, B).tokens == []
    assert lend(cache, PROMPT, 100, None).tokens == []


def test_last_token_is_computed() -> None:
    """
    Though a whole prompt is cached, its last token is left for the model to see.
    """
    cache = KvCache(16)
    leave(cache, PROMPT, A)
    assert lend(cache, PROMPT, 100, A).tokens == PROMPT[:-1]


def test_prefix_is_lent_once() -> None:
    """
    Two questions of one conversation at once never share blocks.
    """
    cache = KvCache(16)
    leave(cache, PROMPT, A)
    one, two = (lend(cache, PROMPT, 100, A) for _ in range(2))
    assert two.tokens == []
    assert not set(one.blocks) & set(two.blocks)


def test_expiry() -> None:
    """
    A prefix dies with its key, and its blocks are listed to be wiped.
    """
    cache = KvCache(16)
    leave(cache, PROMPT, A)
    leave(cache, PROMPT, B)
    cache.freed.clear()
    assert cache.next_end == 100
    cache.expire(99.9)
    assert cache.freed == []
    cache.expire(100)
    assert len(cache.freed) == blocks_for(100)
    assert cache.next_end == 200
    assert lend(cache, PROMPT, 100, A).tokens == []


def test_only_what_was_written_is_wiped() -> None:
    """
    Blocks that an answer was lent and never reached are not listed.
    """
    cache = KvCache(16)
    cached = lend(cache, PROMPT, 400, None)
    cached.tokens = list(PROMPT)
    cache.note_written(cached.blocks[:4])
    written = set(cached.blocks[:4])
    cache.give_back(cached, None)
    assert set(cache.freed) == written
    cache.freed.clear()
    cache.give_back(lend(cache, PROMPT, 400, None), None)
    assert cache.freed == []


def test_room() -> None:
    """
    Kept prefixes give way to answers, the longest unused first, and of each its end first.
    """
    cache = KvCache(9)
    leave(cache, PROMPT, A)
    leave(cache, PROMPT, B)
    assert cache.available == 9
    lend(cache, PROMPT, BLOCK_TOKENS * 3, None)
    assert len(cache.freed) == 2
    assert lend(cache, PROMPT, 100, B).tokens == PROMPT[:-1]
    assert lend(cache, PROMPT, BLOCK_TOKENS, A).tokens == PROMPT[: 2 * BLOCK_TOKENS]


def test_shared_blocks() -> None:
    """
    Answers to one question hold the blocks that its prompt fills once, and they are listed to be
    wiped once, when the last has left.
    """
    cache = KvCache(16)
    first = lend(cache, PROMPT, 101, None)
    cache.note_written(first.blocks)
    first.tokens = list(PROMPT)
    others = [cache.share(first, PROMPT) for _ in range(3)]
    for other in others:
        assert other.tokens == PROMPT[: 3 * BLOCK_TOKENS]
        assert other.blocks == first.blocks[:3]
        cache.grow(other, 101)
        other.tokens = list(PROMPT)
    assert cache.available == 16 - 4 - 3
    written = list(first.blocks)
    for cached in (first, *others):
        assert not set(written[:3]) & set(cache.freed)
        cache.give_back(cached)
    assert sorted(cache.freed) == sorted(written)
    assert cache.available == 16


def test_a_shared_block_is_not_written() -> None:
    """
    A step that would write to a block of several answers, or of none, is refused before it is
    taken.
    """
    cache = KvCache(8)
    first = lend(cache, PROMPT, 101, None)
    cache.note_written(first.blocks)
    first.tokens = list(PROMPT)
    other = cache.share(first, PROMPT)
    with pytest.raises(EngineError):
        cache.note_written(other.blocks[-1:])
    cache.note_written(first.blocks[3:])
    cache.give_back(other)
    cache.note_written(first.blocks)
    with pytest.raises(EngineError):
        cache.note_written([7])


def test_next_turn_beside_another_answer() -> None:
    """
    A conversation's next question takes no block that another answer to the last one still holds.
    """
    cache = KvCache(16)
    first = lend(cache, PROMPT, 100, A)
    first.tokens = list(PROMPT)
    other = cache.share(first, PROMPT)
    cache.give_back(first, A)
    assert cache.available == 16 - 3
    following = lend(cache, [*PROMPT, 1, 2], 110, A)
    assert following.tokens == []
    assert not set(following.blocks) & set(other.blocks)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=120), st.booleans()
        ),
        max_size=40,
    )
)
def test_every_block_has_one_owner(answers: list[tuple[int, list[int], bool]]) -> None:
    """
    Whatever comes and goes, no block is lent twice or lost, and freed ones are all listed.
    """
    cache = KvCache(24)
    lent = []
    for name, prompt, keep in answers:
        prefix = PrefixName(bytes([name]), 1.0) if keep else None
        if blocks_for(len(prompt) + 8) <= cache.available:
            cached = lend(cache, prompt, len(prompt) + 8, prefix)
            assert cached.tokens == prompt[: len(cached.tokens)]
            lent.append((cached, prompt, prefix))
        elif lent:
            cached, seen, prefix = lent.pop(0)
            cached.tokens = list(seen)
            cache.give_back(cached, prefix)
        owned = [block for cached, _, _ in lent for block in cached.blocks]
        assert len(owned) == len(set(owned)) == 24 - cache.available
        assert not set(owned) & set(cache._free)
    for cached, _, _ in lent:
        cache.give_back(cached, None)
    cache.expire(1.0)
    assert cache.available == 24
    assert cache.next_end is None
