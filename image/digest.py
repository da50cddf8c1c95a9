"""
Digesting: one pass over bytes that several hashes see, each in a thread of its own.

A piece is read while the one before it is hashed; hashlib and zlib let other threads run.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

Update = Callable[[bytes], object]


class Crc32:
    """A CRC32 under way."""

    def __init__(self, value: int = 0) -> None:
        self.value = value

    def update(self, piece: bytes) -> None:
        """Go on over *piece*."""
        self.value = zlib.crc32(piece, self.value)


class Pump:
    """Shows pieces to hashes; made by `pumping`."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool

    def show(self, pieces: Iterable[bytes], updates: Iterable[Update]) -> None:
        """Show every piece to each of *updates*, in order, and return when all have seen all."""
        seen = tuple(updates)
        under_way: list[Future[object]] = []
        for piece in pieces:
            for future in under_way:
                future.result()
            under_way = [self._pool.submit(update, piece) for update in seen]
        for future in under_way:
            future.result()


@contextmanager
def pumping() -> Iterator[Pump]:
    """Give a pump; its threads end with the block."""
    with ThreadPoolExecutor(max_workers=4, thread_name_prefix="digest") as pool:
        yield Pump(pool)
