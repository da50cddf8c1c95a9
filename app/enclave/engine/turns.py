"""
Turns: work that threads do one after the other, so that no conversation holds up the others.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from app.protocol.errors import BusyError, DeadlineError

_BYTES_PER_SECOND: Final = 128 * 1024  # by which work is put off: so much, a second
_LEAST_BYTES: Final = 1024  # that any work counts
_LOOK_SECONDS: Final = 0.1  # between two looks at whether it is wanted


@dataclass(eq=False, slots=True)
class _Ticket:
    """
    A thread that waits.

    Attributes:
        due: Whoever is due first comes first.
    """

    conversation: object
    due: float


class Turns:
    """
    One piece of work at a time, each conversation in turn, small work before large.

    Work is due the later the larger it is, and after all of its own conversation that waits. So it
    waits for one piece of others' at most, and for what is due earlier; and since a time comes when
    it is due first itself, nothing waits for ever.

    Args:
        rest: Between two pieces of work, by how long the first has taken; so that however many
            wait, all of it together takes a share of a processor's time alone.

        most_places: That those who wait or work may take together; None for any number.
    """

    def __init__(self, *, rest: float = 0, most_places: int | None = None) -> None:
        self._rest = rest
        self._most_places = most_places
        self._places = 0
        self._rested = 0.0  # when
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._works = False

    @contextmanager
    def turn(
        self,
        conversation: object,
        size_bytes: int,
        *,
        deadline: float,
        places: int = 1,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """
        Wait for this thread's turn, and have it.

        Args:
            require_wanted: Called now and then meanwhile; what it raises gives the turn up.

        Raises:
            BusyError: With *places* of it, those who wait would take more than may be.

            DeadlineError: `time.monotonic()` came to *deadline* first.
        """
        with self._changed:
            if self._most_places is not None and self._places + places > self._most_places:
                raise BusyError(f"{self._places} wait that long ones may take")
            self._places += places
        try:
            self._wait(conversation, size_bytes, deadline, require_wanted)
            yield from self._work()
        finally:
            with self._changed:
                self._places -= places

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def _work(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            ended = time.monotonic()
            with self._changed:
                self._rested = ended + self._rest * (ended - began)
                self._works = False
                self._changed.notify_all()

    def _wait(
        self,
        conversation: object,
        size_bytes: int,
        deadline: float,
        require_wanted: Callable[[], None],
    ) -> None:
        with self._changed:
            now = time.monotonic()
            own = [one.due for one in self._waiting if one.conversation == conversation]
            put_off = max(_LEAST_BYTES, size_bytes) / _BYTES_PER_SECOND
            ticket = _Ticket(conversation, max([now, *own]) + put_off)
            self._waiting.append(ticket)
            try:
                while not self._is_next(ticket, now):
                    if now >= deadline:
                        raise DeadlineError
                    require_wanted()
                    rest = self._rested - now
                    self._changed.wait(
                        min(deadline - now, _LOOK_SECONDS, rest if rest > 0 else _LOOK_SECONDS)
                    )
                    now = time.monotonic()
                self._works = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _is_next(self, ticket: _Ticket, now: float) -> bool:
        if self._works or now < self._rested:
            return False
        return min(self._waiting, key=lambda one: one.due) is ticket
