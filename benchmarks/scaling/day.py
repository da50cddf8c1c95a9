"""
A day of questions, simulated second by second: how a fleet that scales keeps up.

Nothing of it was measured in AWS. An enclave shares its speed as the engine's benchmark found; how
soon CloudWatch, Auto Scaling and a boot act is as their guides and the boot script have it, on the
slow side.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise
from random import Random
from typing import Final

from app.protocol.constants import MAX_ACTIVE_ANSWERS

HOURS: Final = 24
# Questions in each hour, of those in the busiest: an office's day, with a lunch break.
_SHAPE: Final = (
    2,
    1,
    1,
    1,
    1,
    2,
    5,
    20,
    60,
    95,
    100,
    85,
    55,
    80,
    95,
    90,
    70,
    40,
    18,
    10,
    7,
    5,
    4,
    3,
)
TOKENS: Final = 250  # of a middling answer; they spread about it exponentially
# Tokens a second of one answer alone with 8 GB of weights on r5.8xlarge (docs/deploy.md), and how
# many times that n answers at once get together (goals of benchmarks/engine).
ALONE: Final = 12.0
_TOGETHER: Final = ((1, 1.0), (4, 3.0), (8, 5.0), (16, 6.5))
# Target tracking: alarms after three minutes above the target, after fifteen below nine tenths.
# Source: Auto Scaling user guide, "Target tracking scaling policies".
_OUT_MINUTES: Final = 3
_IN_MINUTES: Final = 15
_IN_SHARE: Final = 0.9
BOOT_MINUTES: Final = 12  # packages, an EIF of 10 GB, its checks, its boot and the model's loading


@dataclass
class Answer:
    """One answer under way."""

    asked_at: int
    left: float


@dataclass
class Enclave:
    """One enclave: what it works on, and what waits in it."""

    active: list[Answer] = field(default_factory=list)
    waiting: list[Answer] = field(default_factory=list)
    leaving: bool = False

    @property
    def load(self) -> int:
        """How many answers are under way and wait."""
        return len(self.active) + len(self.waiting)


@dataclass
class Day:
    """What happened, minute by minute."""

    arrivals: list[int] = field(default_factory=list)
    waiting: list[int] = field(default_factory=list)
    hosts: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)  # of each answer before it began, in seconds

    @property
    def host_hours(self) -> float:
        """How many hours of hosts the day took."""
        return sum(self.hosts) / 60

    def waited(self, share: float) -> int:
        """Give the seconds that *share* of all answers waited at most."""
        return sorted(self.waits)[int(share * (len(self.waits) - 1))]


def speed(answers: int) -> float:
    """Give the tokens a second that *answers* at once make together in one enclave."""
    for (few, slow), (many, fast) in pairwise(_TOGETHER):
        if answers <= many:
            share = max(0.0, (answers - few) / (many - few))
            return ALONE * (slow + share * (fast - slow))
    return ALONE * _TOGETHER[-1][1]


class Fleet:
    """A group that scales on answers at once."""

    def __init__(self, least: int, most: int, target: float, random: Random) -> None:
        self._least, self._most, self._target = least, most, target
        self._random = random
        self.enclaves = [Enclave() for _ in range(least)]
        self.booting: list[int] = []  # the minutes at which they will be ready
        self._loads: list[float] = []

    def ask(self, answer: Answer) -> None:
        """Bring *answer* to any host in service: a balancer of connections knows no loads."""
        self._random.choice(self._serving()).waiting.append(answer)

    def work(self, now: int, day: Day) -> None:
        """Let a second go by in each enclave."""
        for enclave in self.enclaves:
            while enclave.waiting and len(enclave.active) < MAX_ACTIVE_ANSWERS:
                answer = enclave.waiting.pop(0)
                day.waits.append(now - answer.asked_at)
                enclave.active.append(answer)
            count = len(enclave.active)
            for answer in enclave.active:
                answer.left -= speed(count) / count
            enclave.active = [answer for answer in enclave.active if answer.left > 0]
        self.enclaves = [one for one in self.enclaves if not one.leaving or one.load]

    def scale(self, minute: int) -> None:
        """Start or end hosts as target tracking would after this minute."""
        self.enclaves += [Enclave() for ready in self.booting if ready <= minute]
        self.booting = [ready for ready in self.booting if ready > minute]
        serving = self._serving()
        self._loads.append(sum(enclave.load for enclave in serving) / len(serving))
        count = len(serving) + len(self.booting)
        if min(self._loads[-_OUT_MINUTES:]) > self._target and not self.booting:
            wanted = min(self._most, math.ceil(len(serving) * self._loads[-1] / self._target))
            self.booting += [minute + BOOT_MINUTES] * (wanted - count)
        recent = self._loads[-_IN_MINUTES:]
        if len(recent) == _IN_MINUTES and max(recent) < _IN_SHARE * self._target:
            wanted = max(self._least, math.ceil(len(serving) * self._loads[-1] / self._target))
            for enclave in serving[max(wanted, self._least) :][:1]:  # one at a time
                enclave.leaving = True
                self._loads.clear()

    def _serving(self) -> list[Enclave]:
        return [enclave for enclave in self.enclaves if not enclave.leaving]


def simulate(busiest: int, least: int, most: int, target: float, *, seed: int = 1) -> Day:
    """
    Simulate a day whose busiest hour brings *busiest* questions.

    Args:
        target: Answers at once, of an enclave on average, that the fleet scales by.
    """
    random = Random(seed)  # noqa: S311 - a day is drawn, no secret
    fleet, day = Fleet(least, most, target, random), Day()
    for minute in range(60 * HOURS):
        rate = busiest * _SHAPE[minute // 60] / max(_SHAPE) / 3600  # questions a second
        arrived = 0
        for second in range(60 * minute, 60 * minute + 60):
            if random.random() < rate:  # at most one a second, of a few thousand an hour
                fleet.ask(Answer(second, random.expovariate(1 / TOKENS)))
                arrived += 1
            fleet.work(second, day)
        fleet.scale(minute)
        day.arrivals.append(arrived)
        day.waiting.append(sum(len(enclave.waiting) for enclave in fleet.enclaves))
        day.hosts.append(len(fleet.enclaves) + len(fleet.booting))
    return day
