import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.enclave.engine.turns import Turns
from app.protocol.errors import BusyError, DeadlineError
from tests.patience import PATIENCE_SECONDS

FOREVER = time.monotonic() + 3600
KIB = 1024


class Room:
    """Threads that wait for turns while one works, and the order in which they had theirs."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.order: list[str] = []
        self.threads: list[threading.Thread] = []
        self.together = self.most_together = 0

    def enter(self, name: str, conversation: object, size: int, work: Callable[[], object]) -> None:
        def run() -> None:
            with self.turns.turn(conversation, size, deadline=FOREVER):
                self.together += 1
                self.most_together = max(self.most_together, self.together)
                self.order.append(name)
                work()
                self.together -= 1

        waiting = self.turns.waiting
        thread = threading.Thread(target=run)
        thread.start()
        self.threads.append(thread)
        while self.turns.waiting == waiting and not self.order:
            time.sleep(0.001)

    def take_in_turn(self, *tickets: tuple[str, object, int]) -> list[str]:
        """Let a first one work until all of *tickets* wait; give the order of these."""
        gate = threading.Event()
        self.enter("first", "first", 1, gate.wait)
        while not self.order:  # while it waits itself, it would be counted among the others
            time.sleep(0.001)
        for at, ticket in enumerate(tickets):
            self.enter(*ticket, work=lambda: None)
            while self.turns.waiting <= at:
                time.sleep(0.001)
        gate.set()
        for thread in self.threads:
            thread.join()
        return self.order[1:]


def test_small_before_large() -> None:
    """
    A short text waits for the one under way alone, however many large ones came before it.
    """
    large = [(f"large {n}", f"conversation {n}", 256 * KIB) for n in range(16)]
    order = Room().take_in_turn(*large, ("short", "mine", 200))
    assert order[0] == "short"
    assert order[1:] == [name for name, _, _ in large]


def test_conversations_in_turn() -> None:
    """
    Whatever one conversation has waiting, another's first comes after its first at the latest.
    """
    greedy = [(f"greedy {n}", "greedy", 4 * KIB) for n in range(8)]
    order = Room().take_in_turn(*greedy, ("other", "other", 4 * KIB))
    assert order.index("other") <= 1
    assert [name for name in order if name != "other"] == [name for name, _, _ in greedy]


def test_nothing_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A large text that has waited long enough comes before short ones that come later.
    """
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    room = Room()
    gate = threading.Event()
    room.enter("first", "first", 1, gate.wait)
    while not room.order:
        time.sleep(0.001)
    room.enter("large", "large", 256 * KIB, lambda: None)
    while room.turns.waiting < 1:
        time.sleep(0.001)
    now += 2.1
    room.enter("short", "short", 1, lambda: None)
    while room.turns.waiting < 2:
        time.sleep(0.001)
    gate.set()
    for thread in room.threads:
        thread.join()
    assert room.order == ["first", "large", "short"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 300_000)), min_size=1, max_size=12))
def test_all_have_theirs(pieces: list[tuple[int, int]]) -> None:
    """
    Every thread gets its turn once, and never two at a time.
    """
    room = Room()
    order = room.take_in_turn(*((str(at), *piece) for at, piece in enumerate(pieces)))
    assert sorted(order, key=int) == [str(at) for at in range(len(pieces))]
    assert room.most_together == 1


def test_deadline() -> None:
    """
    Whose turn does not come in time gives up its place, and holds up nobody.
    """
    turns = Turns()
    with turns.turn("one", 1, deadline=FOREVER):
        with pytest.raises(DeadlineError), turns.turn("two", 1, deadline=time.monotonic() + 0.02):
            pytest.fail("it was not its turn")
        with pytest.raises(DeadlineError), turns.turn("two", 1, deadline=time.monotonic() - 1):
            pytest.fail("it was not its turn")
        assert turns.waiting == 0
    with turns.turn("three", 1, deadline=FOREVER):
        pass


def test_given_up_while_it_waits() -> None:
    """
    Who is not wanted any more gives up its place soon, long before its deadline.
    """
    turns, looks = Turns(), 0

    def require_wanted() -> None:
        nonlocal looks
        looks += 1
        if looks == 3:
            raise BrokenPipeError

    started = time.monotonic()
    with turns.turn("one", 1, deadline=FOREVER):
        with (
            pytest.raises(BrokenPipeError),
            turns.turn("two", 1, deadline=FOREVER, require_wanted=require_wanted),
        ):
            pytest.fail("it was not its turn")
        assert turns.waiting == 0
    assert time.monotonic() - started < PATIENCE_SECONDS


def test_places() -> None:
    """
    Those who wait or work take so many places together, and more are refused at once; a turn that
    ends, in whatever way, makes room.
    """
    turns = Turns(most_places=16)
    for _ in range(2):
        with turns.turn("one", 1, deadline=FOREVER, places=15):
            with pytest.raises(BusyError), turns.turn("two", 1, deadline=FOREVER, places=2):
                pytest.fail("there was no room")
            with pytest.raises(DeadlineError), turns.turn("two", 1, deadline=0):
                pytest.fail("it was not its turn")
    with suppress(ValueError), turns.turn("one", 1, deadline=FOREVER, places=16):
        raise ValueError
    with turns.turn("one", 1, deadline=FOREVER, places=16):
        pass


def test_failure_ends_a_turn() -> None:
    """
    Work that fails lets the next one come.
    """
    turns = Turns()
    with suppress(ValueError), turns.turn("one", 1, deadline=FOREVER):
        raise ValueError
    with turns.turn("one", 1, deadline=time.monotonic() + 1):
        pass


def test_rest() -> None:
    """
    After a piece of work the next one begins when a multiple of its time has passed; the first
    begins at once.
    """
    turns = Turns(rest=3)
    began = []
    for _ in range(2):
        with turns.turn("one", 1, deadline=FOREVER):
            began.append(time.monotonic())
            time.sleep(0.02)
    assert began[1] - began[0] >= 0.08


def test_a_small_text_comes_first_after_a_rest() -> None:
    """
    Whoever comes during a rest and is due earlier is not held up by who waits for its end.
    """
    turns, order = Turns(rest=10), list[str]()

    def work(name: str, size: int) -> None:
        with turns.turn(name, size, deadline=FOREVER):
            order.append(name)
            time.sleep(0.02)

    work("first", 1)
    threads = [
        threading.Thread(target=work, args=named) for named in (("large", 256 * KIB), ("small", 1))
    ]
    for waiting, thread in enumerate(threads, 1):
        thread.start()
        while turns.waiting < waiting:
            time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == ["first", "small", "large"]
