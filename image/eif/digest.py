"""
Digesting: one pass over bytes that several hashes see, each in a thread of its own.

Pieces are read while others are hashed; hashlib and zlib let other threads run.
"""

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Final

Update = Callable[[bytes], object]

MAX_HASHES: Final = 4  # that see the same bytes: two PCRs, a checksum, a digest of the file
_MAX_AHEAD: Final = 8  # pieces read and not yet seen by all


class Crc32:
    """A CRC32 under way."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def update(self, piece: bytes) -> None:
        """Go on over *piece*."""
        self.value = zlib.crc32(piece, self.value)


class Pump:
    """Shows pieces to hashes; made by `pumping`."""

    def __init__(self, lanes: Sequence[Executor]) -> None:
        self._lanes = lanes

    def show(self, pieces: Iterable[bytes], updates: Sequence[Update]) -> None:
        """
        Show every piece to each of *updates*, in order, and return when all have seen all.

        Args:
            updates: At most `MAX_HASHES`.
        """
        under_way: deque[list[Future[object]]] = deque()
        for piece in pieces:
            lanes = zip(self._lanes, updates, strict=False)
            under_way.append([lane.submit(update, piece) for lane, update in lanes])
            if len(under_way) > _MAX_AHEAD:
                _wait(under_way.popleft())
        for seen in under_way:
            _wait(seen)


def _wait(seen: Iterable[Future[object]]) -> None:
    for future in seen:
        future.result()


@contextmanager
def pumping() -> Iterator[Pump]:
    """Give a pump; its threads end with the block."""
    with ExitStack() as threads:
        lanes = [ThreadPoolExecutor(1, thread_name_prefix="digest") for _ in range(MAX_HASHES)]
        for lane in lanes:
            threads.enter_context(lane)
        yield Pump(lanes)
