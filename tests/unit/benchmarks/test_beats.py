import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.beats.classifier import find_auc, judge

LONG = np.random.default_rng(1).integers(0, 2, 400).astype(bool)


def beats(late: NDArray[np.float64], noise: float = 0.0005) -> NDArray[np.float64]:
    """Give intervals of 50 ms of which those of long answers are *late* by so many seconds."""
    intervals = np.random.default_rng(2).normal(0.05, noise, (len(LONG), 31))
    intervals[LONG] += late
    return intervals


def test_auc() -> None:
    """
    It is the share of pairs in order, equal ones counting half.
    """
    long = np.array([True, True, False, False])
    assert find_auc(np.array([2.0, 3.0, 0.0, 1.0]), long) == 1
    assert find_auc(np.array([0.0, 1.0, 2.0, 3.0]), long) == 0
    assert find_auc(np.array([0.0, 0.0, 0.0, 0.0]), long) == 0.5
    assert find_auc(np.array([1.0, 3.0, 0.0, 2.0]), long) == 0.75


def test_times_that_tell_nothing() -> None:
    """
    Times that do not depend on the length leave the classifier near chance, within its spread.
    """
    verdict = judge(beats(np.zeros(31)), LONG)
    assert verdict.low < 0.52
    assert verdict.auc < 0.58
    assert 0.05 < verdict.high - verdict.low < 0.15


@pytest.mark.parametrize("kind", ["late", "uneven"])
def test_times_that_tell(kind: str) -> None:
    """
    Beats that are later, or less even, by half of what they vary anyway give a length away.
    """
    intervals = beats(np.where(np.arange(31) < 15, 0.0003 if kind == "late" else 0, 0))
    if kind == "uneven":
        more = np.random.default_rng(3).normal(0, 0.0005, (int(LONG.sum()), 15))
        intervals[LONG, :15] += more
    verdict = judge(intervals, LONG)
    assert verdict.low > 0.6
