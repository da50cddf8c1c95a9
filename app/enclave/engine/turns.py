"""
Turns: work that threads do one after the other, so that no conversation holds up the others.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from app.protocol.errors import DeadlineError

_BYTES_PER_SECOND: Final = 128 * 1024  # by which work is put off: so much, a second
_LEAST_BYTES: Final = 1024  # that any work counts


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
    """

    def __init__(self, *, rest: float = 0) -> None:
        self._rest = rest
        self._rested = 0.0  # when
        self._changed = threading.Condition()
        self._waiting: list[_Ticket] = []
        self._works = False

    @contextmanager
    def turn(self, conversation: object, size_bytes: int, *, deadline: float) -> Iterator[None]:
        """
        Wait for this thread's turn, and have it.

        Raises:
            DeadlineError: `time.monotonic()` came to *deadline* first.
        """
        self._wait(conversation, size_bytes, deadline)
        began = time.monotonic()
        try:
            time.sleep(max(0, self._rested - began))
            began = time.monotonic()
            yield
        finally:
            ended = time.monotonic()
            with self._changed:
                self._rested = ended + self._rest * (ended - began)
                self._works = False
                self._changed.notify_all()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def _wait(self, conversation: object, size_bytes: int, deadline: float) -> None:
        with self._changed:
            now = time.monotonic()
            own = [one.due for one in self._waiting if one.conversation == conversation]
            put_off = max(_LEAST_BYTES, size_bytes) / _BYTES_PER_SECOND
            ticket = _Ticket(conversation, max([now, *own]) + put_off)
            self._waiting.append(ticket)
            try:
                if not self._changed.wait_for(lambda: self._is_next(ticket), deadline - now):
                    raise DeadlineError
                self._works = True
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _is_next(self, ticket: _Ticket) -> bool:
        return not self._works and min(self._waiting, key=lambda one: one.due) is ticket
