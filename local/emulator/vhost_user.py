"""
A vhost-user device: how QEMU hands the guest's queues and memory to another process.

Source: QEMU, docs/interop/vhost-user.rst.
"""

import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum
from typing import Final

from local.emulator.virtqueue import GuestMemory, Virtqueue

_HEADER: Final = struct.Struct("<III")
_U64: Final = struct.Struct("<Q")
_STATE: Final = struct.Struct("<II")
_ADDRESSES: Final = struct.Struct("<IIQQQQ")
_REGION: Final = struct.Struct("<QQQQ")
_CONFIG: Final = struct.Struct("<III")
_VERSION: Final = 1
_REPLY: Final = 4
_NEEDS_REPLY: Final = 8
_MAX_BYTES: Final = 4096
_MAX_DESCRIPTORS: Final = 8
_NO_DESCRIPTOR: Final = 0x100
_VIRTIO_F_VERSION_1: Final = 1 << 32
_F_PROTOCOL_FEATURES: Final = 1 << 30
_PROTOCOL_REPLY_ACK: Final = 1 << 3
_PROTOCOL_CONFIG: Final = 1 << 9


class Ask(IntEnum):
    """What QEMU asks."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    SET_VRING_ENABLE = 18
    GET_CONFIG = 24
    SET_CONFIG = 25


class GoneError(Exception):
    """QEMU has gone, or asks what no device of ours can do."""


class Ring:
    """
    One queue and how each side tells the other.

    Attributes:
        queue: None until QEMU has started it.

        kick: Descriptor that becomes readable when the guest has lent something.
    """

    def __init__(self) -> None:
        self.queue: Virtqueue | None = None
        self.kick: int | None = None
        self.size = self.base = 0
        self.addresses = (0, 0, 0)
        self._call: int | None = None

    def set_call(self, descriptor: int | None) -> None:
        """Set what tells the guest, closing what did before."""
        if self._call is not None:
            os.close(self._call)
        self._call = descriptor

    def notify(self) -> None:
        """Tell the guest that something was used."""
        if self._call is not None:
            with suppress(BlockingIOError):
                os.eventfd_write(self._call, 1)


class VhostUser:
    """
    The device's end of QEMU's connection.

    Args:
        config: What the guest reads of the device's configuration space.

        changed: Called when a ring is started or stopped.
    """

    def __init__(
        self,
        connection: socket.socket,
        *,
        queues: int,
        config: bytes,
        changed: Callable[[], None],
    ) -> None:
        self.connection = connection
        self.rings = tuple(Ring() for _ in range(queues))
        self._memory = GuestMemory()
        self._config = config
        self._changed = changed

    def serve(self) -> None:
        """
        Answer one message, which is there.

        Raises:
            GoneError: QEMU has gone, or sends what we cannot answer.
        """
        header, descriptors, _, _ = socket.recv_fds(self.connection, _HEADER.size, _MAX_DESCRIPTORS)
        if len(header) != _HEADER.size:
            raise GoneError("QEMU has closed the connection")
        asked, flags, size = _HEADER.unpack(header)
        if size > _MAX_BYTES:
            raise GoneError(f"message has {size} bytes, at most {_MAX_BYTES}")
        payload = self.connection.recv(size, socket.MSG_WAITALL) if size else b""
        answer = self._answer(asked, payload, descriptors)
        if answer is None and flags & _NEEDS_REPLY:
            answer = _U64.pack(0)
        if answer is not None:
            head = _HEADER.pack(asked, _VERSION | _REPLY, len(answer))
            self.connection.sendall(head + answer)

    def _answer(self, asked: int, payload: bytes, descriptors: list[int]) -> bytes | None:
        match asked:
            case Ask.GET_FEATURES:
                return _U64.pack(_VIRTIO_F_VERSION_1 | _F_PROTOCOL_FEATURES)
            case Ask.GET_PROTOCOL_FEATURES:
                return _U64.pack(_PROTOCOL_CONFIG | _PROTOCOL_REPLY_ACK)
            case Ask.GET_CONFIG:
                return self._give_config(payload)
            case Ask.SET_MEM_TABLE:
                self._map(payload, descriptors)
            case Ask.SET_VRING_ADDR:
                index, _, table, used, available, _ = _ADDRESSES.unpack(payload)
                self.rings[index].addresses = (table, used, available)
            case Ask.SET_VRING_KICK | Ask.SET_VRING_CALL | Ask.SET_VRING_ERR:
                self._set_descriptor(asked, payload, descriptors)
            case Ask.SET_VRING_NUM | Ask.SET_VRING_BASE | Ask.SET_VRING_ENABLE:
                self._set_state(asked, *_STATE.unpack(payload))
            case Ask.GET_VRING_BASE:
                index, _ = _STATE.unpack(payload)
                return _STATE.pack(index, self._stop(self.rings[index]))
            case (
                Ask.SET_FEATURES
                | Ask.SET_PROTOCOL_FEATURES
                | Ask.SET_OWNER
                | Ask.RESET_OWNER
                | Ask.SET_CONFIG
            ):
                pass
            case _:
                raise GoneError(f"QEMU asks {asked}, which is not offered")
        return None

    def _give_config(self, payload: bytes) -> bytes:
        offset, size, flags = _CONFIG.unpack_from(payload)
        part = self._config[offset : offset + size].ljust(size, b"\0")
        return _CONFIG.pack(offset, size, flags) + part

    def _map(self, payload: bytes, descriptors: list[int]) -> None:
        self._memory.clear()
        count, _ = _STATE.unpack_from(payload)
        if count != len(descriptors):
            raise GoneError(f"{count} regions of memory with {len(descriptors)} descriptors")
        for number, descriptor in enumerate(descriptors):
            place = _STATE.size + number * _REGION.size
            guest, size, user, offset = _REGION.unpack_from(payload, place)
            self._memory.add(descriptor, guest=guest, size=size, user=user, offset=offset)
        for ring in self.rings:
            if ring.queue is not None:  # its addresses are in the new mapping now
                ring.base = ring.queue.next
                self._start(ring)

    def _set_state(self, asked: int, index: int, number: int) -> None:
        ring = self.rings[index]
        if asked == Ask.SET_VRING_NUM:
            ring.size = number
        elif asked == Ask.SET_VRING_BASE:
            ring.base = number
        elif not number and ring.queue is not None:
            ring.base = ring.queue.next
            ring.queue = None
            self._changed()
        elif number and ring.queue is None and ring.kick is not None:
            self._start(ring)

    def _set_descriptor(self, asked: int, payload: bytes, descriptors: list[int]) -> None:
        (value,) = _U64.unpack(payload)
        ring = self.rings[value & 0xFF]
        descriptor = None if value & _NO_DESCRIPTOR or not descriptors else descriptors[0]
        if asked == Ask.SET_VRING_CALL:
            ring.set_call(descriptor)
        elif asked == Ask.SET_VRING_KICK:
            ring.kick = descriptor
            self._start(ring)
        elif descriptor is not None:
            os.close(descriptor)

    def _start(self, ring: Ring) -> None:
        ring.queue = Virtqueue(
            self._memory, size=ring.size, base=ring.base, addresses=ring.addresses
        )
        self._changed()

    def _stop(self, ring: Ring) -> int:
        """Stop it and give where it stands."""
        if ring.queue is not None:
            ring.base = ring.queue.next
        ring.queue = None
        self._changed()
        if ring.kick is not None:
            os.close(ring.kick)
            ring.kick = None
        return ring.base
