import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.enclave.engine.sampling import choose_token
from app.protocol.errors import EngineError
from app.protocol.question import Options


def choose(logits: NDArray[np.float32], count: int, **options: float) -> list[int]:
    """Choose *count* times with one seed."""
    generator = np.random.default_rng(1)
    chosen = Options(**options)  # type: ignore[arg-type]  # whatever is asked for
    return [choose_token(logits, chosen, generator) for _ in range(count)]


def spread(size: int = 1000, scale: float = 2.0) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(0, scale, size).astype(np.float32)


def test_greedy() -> None:
    """
    Without temperature the likeliest token is chosen, the first of equal ones.
    """
    assert choose(np.array([0, 3, 3, 1], np.float32), 3) == [1, 1, 1]


def test_shares() -> None:
    """
    Tokens are chosen as often as the softmax of their logits over the temperature says.
    """
    logits = np.array([0.0, 1.0, 2.0], np.float32)
    counts = np.bincount(choose(logits, 20_000, temperature=0.5), minlength=3) / 20_000
    expected = np.exp(logits / 0.5) / np.exp(logits / 0.5).sum()
    assert counts == pytest.approx(expected, abs=0.015)


@pytest.mark.parametrize("top_k", [1, 5, 999])
def test_top_k(top_k: int) -> None:
    """
    Only the k likeliest are chosen, and in time each of them.
    """
    logits = spread()
    allowed = set(np.argsort(-logits)[:top_k].tolist())
    chosen = set(choose(logits, 4000, temperature=2.0, top_k=top_k))
    assert chosen <= allowed
    assert top_k > 5 or chosen == allowed


@pytest.mark.parametrize("scale", [0.01, 2.0])
@pytest.mark.parametrize("top_k", [0, 600])
@pytest.mark.parametrize("top_p", [0.3, 0.9])
def test_top_p(top_p: float, top_k: int, scale: float) -> None:
    """
    Only the fewest tokens that make up the mass are chosen, of what top_k leaves; so it is
    where they are few and where they are nearly all.
    """
    logits = spread(scale=scale)
    chances = np.exp(logits.astype(np.float64))
    order = np.argsort(-chances)[: top_k or 1000]
    sums = np.cumsum(chances[order]) / chances[order].sum()
    allowed = set(order[: int((sums < top_p).sum()) + 1].tolist())
    chosen = set(choose(logits, 3000, temperature=1.0, top_p=top_p, top_k=top_k))
    assert chosen <= allowed
    assert len(chosen) > len(allowed) / 2


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_no_number(odd: float, temperature: float) -> None:
    """
    Logits that are no numbers choose nothing.
    """
    with pytest.raises(EngineError):
        choose(np.array([0, odd, 1], np.float32), 1, temperature=temperature)


@given(seed=st.integers(0, 2**63 - 1))
def test_seed(seed: int) -> None:
    """
    A seed makes the same choices again.
    """
    options = Options(temperature=1.5, top_p=0.95)
    logits = spread()
    one, two = (
        [choose_token(logits, options, generator) for _ in range(5)]
        for generator in (np.random.default_rng(seed), np.random.default_rng(seed))
    )
    assert one == two
