import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from app.enclave.engine import sampling
from app.enclave.engine.sampling import Sampler
from app.protocol.errors import EngineError
from app.protocol.question import SCALE, Options

NEAR = 1e-5  # of a limit, where rounding may decide
ROUNDINGS = 4  # of a logit to 32 bits, on its way through biases and penalties


def make(
    prompt: Sequence[int] = (), random: np.random.Generator | None = None, **options: object
) -> Sampler:
    return Sampler(
        Options(**options),  # type: ignore[arg-type]  # whatever is asked for
        prompt=prompt,
        random=random or np.random.default_rng(1),
        spell=lambda token: str(token).encode(),
    )


def choose(logits: NDArray[np.float32], count: int, **options: object) -> list[int]:
    """Choose *count* times with one seed."""
    sampler = make(**options)  # type: ignore[arg-type]  # options alone
    return [sampler.choose(logits).token for _ in range(count)]


def spread(size: int = 1000, scale: float = 2.0) -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(0, scale, size).astype(np.float32)


def bits(allowed: Sequence[bool]) -> NDArray[np.int32]:
    """Give a mask as grammars give it, 32 bits at once."""
    packed = np.packbits(np.array(allowed), bitorder="little")
    return np.pad(packed, (0, -len(packed) % 4)).view(np.int32)


@dataclass
class Fixed(np.random.Generator):
    """Randomness that is none."""

    share: float = 0.0

    def __init__(self, share: float) -> None:
        super().__init__(np.random.PCG64(1))
        self.share = share

    def random(self, *_: object, **__: object) -> float:  # type: ignore[override]
        return self.share


# The plain reference: a loop for each thing, in Python's floats.


@dataclass
class Reference:
    """What the options mean, token by token."""

    options: Options
    prompt: list[int]
    made: list[int] = field(default_factory=list)

    def adjust(self, logits: Sequence[float], allowed: Sequence[bool]) -> list[float]:
        o, counts = self.options, Counter(self.made)
        biases = dict(zip(o.logit_bias[::2], o.logit_bias[1::2], strict=True))
        adjusted = []
        for token, logit in enumerate(logits):
            value = logit + biases.get(token, 0) / SCALE
            if token in counts or token in self.prompt:
                p = o.repetition_penalty
                value = value / p if value > 0 else value * p
            value -= o.frequency_penalty * counts[token]
            value -= o.presence_penalty * (counts[token] > 0)
            adjusted.append(value if allowed[token] else -math.inf)
        return adjusted

    def near(self, adjusted: Sequence[float]) -> float:
        """Give how far rounding may take a chance, as a share of it: at low temperatures, far."""
        largest = np.float32(max(abs(value) for value in adjusted if value > -math.inf))
        return NEAR + ROUNDINGS * float(np.spacing(largest)) / self.options.temperature

    def chances(self, adjusted: Sequence[float]) -> list[float]:
        """Give what each token's chance is; raises where rounding may decide."""
        o, highest, near = self.options, max(adjusted), self.near(adjusted)
        chances = [math.exp((value - highest) / o.temperature) for value in adjusted]
        chances = self._keep(chances, o.min_p, near)
        if 0 < o.top_k < len(chances):
            least = sorted(adjusted)[-o.top_k]
            assume(all(v == least or abs(v - least) > near * o.temperature for v in adjusted))
            chances = [c if v >= least else 0 for c, v in zip(chances, adjusted, strict=True)]
        if o.top_p < 1:
            mass, before = o.top_p * sum(chances), 0.0
            for chance in sorted(chances, reverse=True):
                assume(abs(before - mass) > near * mass)
                if before < mass:
                    least = chance
                before += chance
            chances = self._keep(chances, least, near)
        return [chance / sum(chances) for chance in chances]

    def _keep(self, chances: list[float], least: float, near: float) -> list[float]:
        assume(all(c == least or abs(c - least) > near * least for c in chances))
        return [chance if chance >= least else 0 for chance in chances]

    def logprob(self, logits: Sequence[float], allowed: Sequence[bool], token: int) -> float:
        kept = [math.exp(v) for v, may in zip(logits, allowed, strict=True) if may]
        return logits[token] - math.log(sum(kept)) if allowed[token] else -math.inf


millionths = st.integers(1, 2_000_000).map(lambda value: value / SCALE)
penalty = st.sampled_from([0.0, -2.0, 1.5]) | millionths


@st.composite
def cases(draw: st.DrawFn) -> tuple[Options, list[float], list[bool], list[int]]:
    size = draw(st.integers(2, 40))
    logits = draw(
        st.lists(st.integers(-160, 160).map(lambda n: n / 8), min_size=size, max_size=size)
    )
    allowed = draw(st.lists(st.booleans(), min_size=size, max_size=size).filter(any))
    tokens = st.integers(0, size - 1)
    biases = draw(st.dictionaries(tokens, st.integers(-100 * SCALE, 100 * SCALE), max_size=4))
    options = Options(
        temperature=draw(st.just(0.0) | st.integers(50_000, 2_000_000).map(lambda n: n / SCALE)),
        top_p=draw(st.just(1.0) | st.integers(1, SCALE).map(lambda n: n / SCALE)),
        top_k=draw(st.just(0) | st.integers(1, 50)),
        min_p=draw(st.just(0.0) | st.integers(0, SCALE).map(lambda n: n / SCALE)),
        presence_penalty=draw(penalty),
        frequency_penalty=draw(penalty),
        repetition_penalty=draw(st.just(1.0) | millionths),
        logit_bias=tuple(n for pair in sorted(biases.items()) for n in pair),
        logprobs=draw(st.none() | st.integers(0, 20)),
    )
    return options, logits, allowed, draw(st.lists(tokens, max_size=6))


@given(cases(), st.lists(st.floats(0, 1, exclude_max=True), min_size=1, max_size=4))
def test_as_the_plain_reference(
    case: tuple[Options, list[float], list[bool], list[int]], shares: list[float]
) -> None:
    """
    With any options, each token is one that a plain reading of them gives, in its share of the
    draws, and what is told of it is its logarithm.
    """
    options, logits, allowed, prompt = case
    reference = Reference(options, prompt)
    random = Fixed(0.0)
    sampler = Sampler(options, prompt=prompt, random=random, spell=lambda n: str(n).encode())
    for random.share in shares:
        adjusted = reference.adjust(logits, allowed)
        choice = sampler.choose(np.array(logits, np.float32), bits(allowed))
        token = choice.token
        if options.temperature == 0:
            assert adjusted[token] == pytest.approx(max(adjusted), abs=1e-4)
        else:
            assume(max(adjusted) - min(a for a in adjusted if a > -math.inf) < 80)
            chances = reference.chances(adjusted)
            before = sum(chances[:token])
            assert chances[token] > 0
            near = reference.near(adjusted)
            assert before - near <= random.share <= before + chances[token] + near
        told = choice.logprob
        assert (told is None) == (options.logprobs is None)
        if told is not None:
            expected = reference.logprob(logits, allowed, token)
            assert told.token == str(token).encode()
            assert told.logprob == pytest.approx(expected, abs=1e-4)
            every = [reference.logprob(logits, allowed, n) for n in range(len(logits))]
            likeliest = sorted(range(len(logits)), key=lambda n: (-every[n], n))
            others = [int(other.token) for other in told.alternatives]
            assert others == likeliest[: options.logprobs]
        reference.made.append(token)


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


def test_shares_of_a_large_vocabulary() -> None:
    """
    So it is where chances are summed in parts, and at both ends of them.
    """
    logits = spread(5 * sampling._SUMMED + 3, scale=0.5)
    chances = np.exp(logits.astype(np.float64))
    ends = np.cumsum(chances) / chances.sum()
    for share in (0.0, *np.linspace(0.001, 0.999, 200), 1 - 2**-53):
        token = make(random=Fixed(share), temperature=1.0).choose(logits).token
        assert (ends[token - 1] if token else 0) - NEAR <= share <= ends[token] + NEAR


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


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [2, 2, 2, 2]),
        ({"frequency_penalty": 0.5}, [2, 2, 1, 2]),
        ({"presence_penalty": 1.5}, [2, 1, 2, 2]),
        ({"repetition_penalty": 2.0}, [2, 1, 2, 2]),
        ({"presence_penalty": -1.0}, [2, 2, 2, 2]),
        ({"logit_bias": (0, 3 * SCALE)}, [0, 0, 0, 0]),
        ({"logit_bias": (2, -100 * SCALE)}, [1, 1, 1, 1]),
        ({"logit_bias": (0, 3 * SCALE), "presence_penalty": 2.0}, [0, 2, 0, 0]),
    ],
    ids=["none", "frequency", "presence", "repetition", "reward", "bias", "ban", "both"],
)
def test_biases_and_penalties(options: dict[str, object], expected: list[int]) -> None:
    """
    Biases and penalties change what is likeliest, by what was made before.
    """
    assert choose(np.array([0.0, 1.0, 1.875], np.float32), 4, **options) == expected


def test_repetition_counts_the_prompt() -> None:
    """
    The repetition penalty is for tokens of the prompt, too, the others are for the answer's alone.
    """
    logits = np.array([0.0, 1.0, 1.5], np.float32)
    assert make([2], repetition_penalty=2.0).choose(logits).token == 1
    assert make([2], presence_penalty=2.0, frequency_penalty=2.0).choose(logits).token == 2


def test_logprobs_are_the_model_s() -> None:
    """
    What is told is what the model gives, whatever temperature, biases, penalties and limits do.
    """
    logits = spread()
    plain = make(logprobs=5).choose(logits).logprob
    bent = make(
        logprobs=5, temperature=2.0, top_k=1, logit_bias=(3, 100 * SCALE), presence_penalty=1.0
    ).choose(logits)
    assert plain is not None
    assert bent.logprob is not None
    assert bent.token == 3
    assert bent.logprob.alternatives == plain.alternatives
    total = np.exp(logits.astype(np.float64)).sum()
    assert bent.logprob.logprob == pytest.approx(float(logits[3]) - math.log(total), abs=1e-5)


def test_mask_comes_first() -> None:
    """
    A token that may not come never does, and no bias brings it; what is told is of those that may.
    """
    logits = np.array([5.0, 1.0, 0.0], np.float32)
    sampler = make(logit_bias=(0, 100 * SCALE), logprobs=3)
    choice = sampler.choose(logits, bits([False, True, True]))
    assert choice.token == 1
    assert choice.logprob is not None
    assert choice.logprob.logprob == pytest.approx(1 - math.log(math.e + 1), abs=1e-6)
    assert choice.logprob.alternatives[2].logprob == -math.inf
    assert logits.tolist() == [5.0, 1.0, 0.0]


def test_tokens_beyond_the_mask_may_not_come() -> None:
    """
    A mask that is shorter than the model's vocabulary allows none of the rest.
    """
    logits = np.zeros(70, np.float32)
    logits[69] = 5
    assert make().choose(logits, bits([False] * 9 + [True])).token == 9


def test_nothing_may_come() -> None:
    """
    Where no token may come, that is an error.
    """
    with pytest.raises(EngineError):
        make().choose(np.zeros(9, np.float32), bits([False] * 9))


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
    logits = spread()
    one, two = (
        [sampler.choose(logits).token for _ in range(5)]
        for sampler in (
            make(random=np.random.default_rng(seed), temperature=1.5, top_p=0.95) for _ in range(2)
        )
    )
    assert one == two
