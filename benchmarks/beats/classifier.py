"""
A classifier over beat times: how well they tell long answers from short ones.

Logistic regression over the intervals between an answer's frames, judged on answers that it was not
fitted to. Its measure is the AUC: the share of pairs of a long and a short answer that it puts in
order, 0.5 where the times tell nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

_FOLDS: Final = 5
_REPEATS: Final = 2  # of the folds, cut otherwise each time
_PENALTY: Final = 10.0  # on weights, so that few answers are not learnt by heart
_STEPS: Final = 8  # of Newton's method
_RESAMPLED: Final = 500

Floats = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    What a classifier could tell.

    Attributes:
        auc: Of answers that it was not fitted to.

        low, high: Between which it lies in 95 of 100 draws of as many answers.
    """

    auc: float
    low: float
    high: float
    answers: int


def judge(intervals: Floats, long: Labels, *, seed: int = 1) -> Verdict:
    """Judge how well *intervals*, a row an answer, tell which answers are *long*."""
    random = np.random.default_rng(seed)
    features = _features(intervals)
    scores = np.mean([_score(features, long, random) for _ in range(_REPEATS)], axis=0)
    drawn = []
    for _ in range(_RESAMPLED):
        some = random.integers(0, len(long), len(long))
        if 0 < long[some].sum() < len(some):
            drawn.append(find_auc(scores[some], long[some]))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Verdict(find_auc(scores, long), float(low), float(high), len(long))


def find_auc(scores: Floats, long: Labels) -> float:
    """Give the share of pairs that *scores* put in order; equal ones count half."""
    ones, others = scores[long], np.sort(scores[~long])
    below = np.searchsorted(others, ones, "left") + np.searchsorted(others, ones, "right")
    return float(below.sum() / (2 * len(ones) * len(others)))


def _features(intervals: Floats) -> Floats:
    """
    Give what may tell: each interval, how far off the usual it is, and both over all.

    Where long answers make beats late, or more even, either shows.
    """
    usual = intervals - np.median(intervals)
    off = np.log(np.abs(usual) + 1e-5)
    whole = np.stack([usual.std(axis=1), off.mean(axis=1), usual.max(axis=1)], axis=1)
    features = np.concatenate([usual, off, whole], axis=1)
    scaled: Floats = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-12)
    return scaled


def _score(features: Floats, long: Labels, random: np.random.Generator) -> Floats:
    """Give each answer's score, by a model that was fitted to the others' folds."""
    scores = np.zeros(len(long))
    for part in _cut(len(long), random):
        rest = np.setdiff1d(np.arange(len(long)), part)
        scores[part] = features[part] @ _fit(features[rest], long[rest])
    return scores


def _cut(count: int, random: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    yield from np.array_split(random.permutation(count), _FOLDS)


def _fit(features: Floats, long: Labels) -> Floats:
    """Fit the weights of a logistic regression; its constant orders nothing, and is left out."""
    weights = np.zeros(features.shape[1])
    bias = 0.0
    for _ in range(_STEPS):
        chances = 1 / (1 + np.exp(-np.clip(features @ weights + bias, -30, 30)))
        spread = chances * (1 - chances) + 1e-6
        slope = features.T @ (long - chances) - _PENALTY * weights
        curve = (features * spread[:, None]).T @ features + _PENALTY * np.eye(len(weights))
        weights = weights + np.linalg.solve(curve, slope)
        bias += float((long - chances).sum() / spread.sum())
    return weights
