"""
Held responses: what a request may go on from by an id, in this process's memory and nowhere else.

Bounded in number, in bytes and in time: what was not used for longest goes first. For one thread.
"""

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from app.chatbot.openai.responses.items import Item, Json, parse_held

MOST_RESPONSES: Final = 1024
MOST_BYTES: Final = 64 * 1024 * 1024
HELD_SECONDS: Final = 8 * 3600  # a working day, since it was last used
_OVERHEAD_BYTES: Final = 1024  # Python's own, of a response and of each item in its output


@dataclass(slots=True)
class _Held:
    """One response as JSON, whose length is the memory that it takes."""

    head: bytes = field(repr=False)  # all but its output
    items: bytes = field(repr=False)  # the conversation before its output
    output: Mapping[str, bytes] = field(repr=False)
    used: float

    @property
    def size(self) -> int:
        pieces = (self.head, self.items, *self.output.values())
        return sum(map(len, pieces)) + _OVERHEAD_BYTES * (1 + len(self.output))


class HeldResponses:
    """
    The responses that are held.

    Args:
        most: How many.

        most_bytes: How much memory they take.

        seconds: How long after it was last used each of them goes.

        clock: Gives seconds that never go back.
    """

    def __init__(
        self,
        *,
        most: int = MOST_RESPONSES,
        most_bytes: int = MOST_BYTES,
        seconds: float = HELD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._seconds = seconds
        self._clock = clock
        self._held: OrderedDict[str, _Held] = OrderedDict()  # the one last used last
        self._owners: dict[str, str] = {}  # of an item of an output: its response
        self._bytes = 0

    def put(self, response: Json, items: Sequence[Item]) -> None:
        """Hold *response*, which goes on after *items*."""
        name, output = str(response["id"]), response["output"]
        assert isinstance(output, list)  # noqa: S101 - made here
        held = _Held(
            _encode({**response, "output": []}),
            _encode([item.to_json() for item in items]),
            {item["id"]: _encode(item) for item in output},
            self._clock(),
        )
        self._held[name] = held
        self._owners.update(dict.fromkeys(held.output, name))
        self._bytes += held.size
        while len(self._held) > self._most or self._bytes > self._most_bytes:
            self.drop(next(iter(self._held)))
        self.expire()

    def expire(self) -> float | None:
        """Drop what was held long enough; give the seconds until the next goes, if one is left."""
        now = self._clock()
        for name, held in list(self._held.items()):
            if (left := held.used + self._seconds - now) > 0:
                return left
            self.drop(name)
        return None

    def drop(self, name: str) -> bool:
        """Hold the response *name* no longer; tell whether it was held."""
        held = self._held.pop(name, None)
        if held is None:
            return False
        self._bytes -= held.size
        for item in held.output:
            del self._owners[item]
        return True

    def response(self, name: str) -> Json | None:
        """Give the response *name*, None where it is not held."""
        held = self._use(name)
        if held is None:
            return None
        return {**json.loads(held.head), "output": [*map(json.loads, held.output.values())]}

    def input_items(self, name: str) -> list[Json] | None:
        """Give the conversation before the response *name*, None where that is not held."""
        held = self._use(name)
        return None if held is None else list(json.loads(held.items))

    def conversation(self, name: str) -> list[Item] | None:
        """Give the conversation with the response *name*, None where that is not held."""
        held = self._use(name)
        if held is None:
            return None
        return parse_held(held.items) + parse_held(_join(held.output.values()))

    def item(self, name: str) -> Item | None:
        """Give the item *name* of an output, None where its response is not held."""
        held = self._use(self._owners.get(name, ""))
        return None if held is None else parse_held(_join([held.output[name]]))[0]

    def _use(self, name: str) -> _Held | None:
        self.expire()
        held = self._held.get(name)
        if held is not None:
            held.used = self._clock()
            self._held.move_to_end(name)
        return held


def _encode(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _join(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"
