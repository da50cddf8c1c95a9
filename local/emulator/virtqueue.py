"""
A virtqueue: the ring in guest memory by which the guest lends buffers to a device.

Source: OASIS virtio 1.2, section 2.7, Split Virtqueues. Without event indices: the guest tells of
every buffer and is told of every one used.
"""

import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_DESCRIPTOR: Final = struct.Struct("<QIHH")
_USED: Final = struct.Struct("<II")
_U16: Final = struct.Struct("<H")
_NEXT: Final = 1
_WRITE: Final = 2
_RING: Final = 4  # bytes before the rings of `avail` and `used`


class QueueError(Exception):
    """The guest's ring makes no sense."""


@dataclass(frozen=True, slots=True)
class Region:
    """
    A piece of the guest's memory.

    Attributes:
        guest: Its address as the guest sees it.

        user: Its address as QEMU sees it.
    """

    guest: int
    size: int
    user: int
    data: memoryview


class GuestMemory:
    """The guest's memory, as far as QEMU shares it."""

    def __init__(self) -> None:
        self._regions: list[Region] = []

    def add(self, descriptor: int, *, guest: int, size: int, user: int, offset: int) -> None:
        """Map *size* bytes of the file *descriptor* from *offset* on, and close it."""
        try:
            mapped = mmap.mmap(descriptor, size + offset)
        finally:
            os.close(descriptor)
        data = memoryview(mapped)[offset : offset + size]
        self._regions.append(Region(guest, size, user, data))

    def clear(self) -> None:
        """Forget all of it."""
        self._regions.clear()

    def at_guest(self, address: int, size: int) -> memoryview:
        """
        Give *size* bytes at an address of the guest's.

        Raises:
            QueueError: They are not shared.
        """
        for region in self._regions:
            start = address - region.guest
            if start >= 0 and start + size <= region.size:
                return region.data[start : start + size]
        raise QueueError("an address of the guest's is outside its memory")

    def at_user(self, address: int, size: int) -> memoryview:
        """
        Give *size* bytes at an address of QEMU's.

        Raises:
            QueueError: They are not shared.
        """
        for region in self._regions:
            if region.user <= address < region.user + region.size:
                return self.at_guest(region.guest + address - region.user, size)
        raise QueueError("a ring is outside the guest's memory")


@dataclass(frozen=True, slots=True)
class Chain:
    """
    Buffers that the guest lends together.

    Attributes:
        readable: What it says.

        writable: What may be filled.
    """

    head: int
    readable: tuple[memoryview, ...]
    writable: tuple[memoryview, ...]

    @property
    def room(self) -> int:
        """How many bytes may be filled."""
        return sum(len(part) for part in self.writable)

    def read(self) -> bytes:
        """Give all that the guest says."""
        return b"".join(self.readable)

    def write(self, data: bytes) -> None:
        """Fill it with *data*, which has room."""
        start = 0
        for part in self.writable:
            piece = data[start : start + len(part)]
            part[: len(piece)] = piece
            start += len(piece)


class Virtqueue:
    """
    One ring.

    Args:
        size: How many descriptors it has.

        base: Where to begin, as the last owner left it.
    """

    def __init__(
        self, memory: GuestMemory, *, size: int, base: int, addresses: tuple[int, int, int]
    ) -> None:
        descriptors, used, available = addresses
        self._memory = memory
        self._size = size
        self._descriptors = memory.at_user(descriptors, size * _DESCRIPTOR.size)
        self._available = memory.at_user(available, _RING + size * _U16.size)
        self._used = memory.at_user(used, _RING + size * _USED.size)
        self.next = base
        self._next_used = _U16.unpack_from(self._used, 2)[0]

    def pop(self) -> Chain | None:
        """
        Give the next buffers that the guest lends, if any.

        Raises:
            QueueError: The guest's ring makes no sense.
        """
        if self.next == _U16.unpack_from(self._available, 2)[0]:
            return None
        slot = self.next % self._size
        head = _U16.unpack_from(self._available, _RING + slot * _U16.size)[0]
        self.next = (self.next + 1) % 2**16
        readable: list[memoryview] = []
        writable: list[memoryview] = []
        for part, may_write in self._walk(head):
            (writable if may_write else readable).append(part)
        return Chain(head, tuple(readable), tuple(writable))

    def push(self, chain: Chain, written: int) -> None:
        """Give the buffers back, *written* bytes of them filled."""
        slot = self._next_used % self._size
        _USED.pack_into(self._used, _RING + slot * _USED.size, chain.head, written)
        self._next_used = (self._next_used + 1) % 2**16
        _U16.pack_into(self._used, 2, self._next_used)  # last: this is what the guest looks at

    def _walk(self, head: int) -> Iterator[tuple[memoryview, bool]]:
        index = head
        for _ in range(self._size):
            if index >= self._size:
                raise QueueError(f"descriptor {index} of {self._size}")
            address, length, flags, index = _DESCRIPTOR.unpack_from(
                self._descriptors, index * _DESCRIPTOR.size
            )
            yield self._memory.at_guest(address, length), bool(flags & _WRITE)
            if not flags & _NEXT:
                return
        raise QueueError("a chain of descriptors has no end")
