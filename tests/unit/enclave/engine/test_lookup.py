import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.lookup import MOST_GUESSED, Lookup


def test_what_followed_before() -> None:
    """
    What followed the last tokens when they stood there last is guessed to follow again.
    """
    assert Lookup([1, 2, 3, 4, 5, 6, 7, 8, 1, 2]).guess(9) == [3, 4, 5, 6]
    assert Lookup([1, 2, 3, 1, 2, 4, 1, 2]).guess(1) == [4]
    assert Lookup([9, 1, 2, 3, 8, 1, 2, 4, 9, 1, 2]).guess(1) == [3]  # more of it is the same


def test_what_repeats_itself() -> None:
    """
    A text that repeats itself is guessed to go on so.
    """
    assert Lookup([7, 5, 6, 5, 6]).guess(4) == [5, 6, 5, 6]


@pytest.mark.parametrize("tokens", [[], [1], [1, 1], [1, 2, 3, 4, 5]])
def test_nothing_to_guess(tokens: list[int]) -> None:
    """
    Where the last tokens have not stood before, nothing is guessed.
    """
    assert Lookup(tokens).guess(9) == []


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(0, 60), st.integers(0, 20))
def test_a_guess_has_followed(tokens: list[int], at: int, most: int) -> None:
    """
    Whatever is guessed has followed the last two tokens before, is no longer than wanted, and is
    the same however the text has come.
    """
    whole, grown = Lookup(tokens), Lookup(tokens[:at])
    grown.extend(tokens[at:])
    guess = whole.guess(most)
    assert grown.guess(most) == guess
    assert len(guess) <= min(most, MOST_GUESSED)
    if guess:
        run = [*tokens[-2:], guess[0]]
        assert any(tokens[n : n + 3] == run for n in range(len(tokens) - 2))


def follow(text: list[int], prompt: list[int]) -> tuple[int, int]:
    """Give in how many steps *text* is made, and how many tokens were guessed in vain."""
    lookup, made, steps, vain = Lookup(prompt), 0, 0, 0
    while made < len(text):
        guess = lookup.guess(len(text) - made - 1)
        ahead = text[made:]
        right = next((n for n, token in enumerate(guess) if token != ahead[n]), len(guess))
        if guess:
            lookup.note(len(guess), right)
        lookup.extend(text[made : made + right + 1])
        made += right + 1
        steps += 1
        vain += len(guess) - right
    return steps, vain


def test_a_copy_is_quick() -> None:
    """
    A text of which the prompt has all but some words takes a third of the steps, and one it has
    whole a tenth.
    """
    chance = random.Random(5)  # noqa: S311 - nothing is secret here
    text = [chance.randrange(1000) for _ in range(400)]
    letter = [chance.randrange(1000) if n % 23 == 0 else token for n, token in enumerate(text)]
    assert follow(text, [*letter, *text[:0]])[0] < len(text) / 3
    assert follow(text[3:], [*text, *text[:3]])[0] < len(text) / 10


def test_what_misleads_is_left_alone() -> None:
    """
    Where every two tokens have stood before, and what followed them never follows again, few are
    guessed in vain.
    """
    text = list(range(400))
    prompt = [token for n in range(399) for token in (n, n + 1, n + 1000)]
    steps, vain = follow(text, prompt)
    assert steps == len(text)
    assert vain < len(text) / 10
