"""
Rings in a guest's memory, and QEMU's messages about them: a driver of the tests' own lends buffers.
"""

import mmap
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from local.emulator.vhost_user import Ask, GoneError, VhostUser
from local.emulator.virtqueue import GuestMemory, QueueError, Virtqueue
from tests.patience import PATIENCE_SECONDS

SIZE = 4  # descriptors
GUEST, USER = 0x1000_0000, 0x7F00_0000_0000
TABLE, AVAILABLE, USED, BUFFERS = 0, 0x100, 0x200, 0x1000
MEMORY = 0x4000
ADDRESSES = (USER + TABLE, USER + USED, USER + AVAILABLE)


class Driver:
    """The guest's side of one ring."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("guest")
        os.ftruncate(self.descriptor, MEMORY)
        self.data = mmap.mmap(self.descriptor, MEMORY)
        self.lent = 0

    def describe(self, index: int, *, offset: int, size: int, flags: int, following: int) -> None:
        """Write one descriptor."""
        struct.pack_into(
            "<QIHH", self.data, TABLE + 16 * index, GUEST + offset, size, flags, following
        )

    def lend(self, head: int) -> None:
        """Lend the chain that begins at *head*."""
        struct.pack_into("<H", self.data, AVAILABLE + 4 + 2 * (self.lent % SIZE), head)
        self.lent = (self.lent + 1) % 2**16
        struct.pack_into("<H", self.data, AVAILABLE + 2, self.lent)

    def used(self) -> int:
        """How many chains came back."""
        return int(struct.unpack_from("<H", self.data, USED + 2)[0])


@pytest.fixture
def driver() -> Driver:
    return Driver()


@pytest.fixture
def queue(driver: Driver) -> Virtqueue:
    memory = GuestMemory()
    memory.add(os.dup(driver.descriptor), guest=GUEST, size=MEMORY, user=USER, offset=0)
    return Virtqueue(memory, size=SIZE, base=0, addresses=ADDRESSES)


def test_chains_go_there_and_back(driver: Driver, queue: Virtqueue) -> None:
    """
    Chains of two readable buffers and a writable one, many times around the ring.
    """
    for turn in range(3 * SIZE):
        text = f"turn {turn:4}".encode()
        driver.data[BUFFERS : BUFFERS + len(text)] = text
        driver.describe(2, offset=BUFFERS, size=4, flags=1, following=0)
        driver.describe(0, offset=BUFFERS + 4, size=len(text) - 4, flags=1, following=3)
        driver.describe(3, offset=BUFFERS + 256, size=100, flags=2, following=0)
        assert queue.pop() is None
        driver.lend(2)
        chain = queue.pop()
        assert chain is not None
        assert (chain.read(), chain.room) == (text, 100)
        chain.write(text.upper())
        queue.push(chain, len(text))
        assert driver.used() == turn + 1
        assert driver.data[BUFFERS + 256 : BUFFERS + 256 + len(text)] == text.upper()
        slot = USED + 4 + 8 * (turn % SIZE)
        assert struct.unpack_from("<II", driver.data, slot) == (2, len(text))


@pytest.mark.parametrize(
    ("offset", "size", "flags", "following"),
    [(MEMORY, 1, 0, 0), (MEMORY - 1, 2, 0, 0), (-1, 1, 0, 0), (0, 1, 1, 0), (0, 1, 1, SIZE)],
    ids=["beyond", "across the end", "before", "endless", "no such descriptor"],
)
def test_senseless_rings_are_refused(
    driver: Driver, queue: Virtqueue, offset: int, size: int, flags: int, following: int
) -> None:
    """
    Nothing outside the guest's memory is touched, and no chain is followed for ever.
    """
    driver.describe(0, offset=offset, size=size, flags=flags, following=following)
    driver.lend(0)
    with pytest.raises(QueueError):
        queue.pop()


@pytest.fixture
def qemu() -> Iterator[tuple[VhostUser, socket.socket, list[int]]]:
    """A device, QEMU's end of its connection, and how often rings changed."""
    ours, theirs = socket.socketpair()
    changes: list[int] = []
    config = struct.pack("<Q", 16)
    device = VhostUser(ours, queues=2, config=config, changed=lambda: changes.append(1))
    theirs.settimeout(PATIENCE_SECONDS)
    with ours, theirs:
        yield device, theirs, changes


Qemu = tuple[VhostUser, socket.socket, list[int]]


def tell(qemu: Qemu, ask: int, payload: bytes = b"", descriptors: tuple[int, ...] = ()) -> None:
    """Send a message that has no answer, and have it served."""
    device, theirs, _ = qemu
    header = struct.pack("<III", ask, 1, len(payload))
    socket.send_fds(theirs, [header], list(descriptors))
    if payload:
        theirs.sendall(payload)
    device.serve()


def ask(qemu: Qemu, ask: int, payload: bytes = b"") -> bytes:
    """Send a message and give its answer's payload."""
    tell(qemu, ask, payload)
    _, theirs, _ = qemu
    asked, flags, size = struct.unpack("<III", theirs.recv(12, socket.MSG_WAITALL))
    assert (asked, flags & 7) == (ask, 5)
    return theirs.recv(size, socket.MSG_WAITALL) if size else b""


def test_features_and_configuration(qemu: Qemu) -> None:
    """
    QEMU hears of virtio 1, of the protocol's features, and the guest's CID.
    """
    (features,) = struct.unpack("<Q", ask(qemu, Ask.GET_FEATURES))
    assert features == 1 << 32 | 1 << 30
    assert ask(qemu, Ask.GET_PROTOCOL_FEATURES) == struct.pack("<Q", 1 << 9 | 1 << 3)
    wanted = struct.pack("<III", 0, 8, 0) + bytes(8)
    assert ask(qemu, Ask.GET_CONFIG, wanted)[12:] == struct.pack("<Q", 16)


def test_ring_is_started_and_stopped(qemu: Qemu, driver: Driver) -> None:
    """
    With memory, size, addresses and a kick a ring runs, moves buffers and tells of it; stopped,
    it says how far it came.
    """
    device, _, changes = qemu
    region = struct.pack("<IIQQQQ", 1, 0, GUEST, MEMORY, USER, 0)
    tell(qemu, Ask.SET_MEM_TABLE, region, (driver.descriptor,))
    tell(qemu, Ask.SET_VRING_NUM, struct.pack("<II", 1, SIZE))
    tell(qemu, Ask.SET_VRING_BASE, struct.pack("<II", 1, 0))
    table, used, available = ADDRESSES
    addresses = struct.pack("<IIQQQQ", 1, 0, table, used, available, 0)
    tell(qemu, Ask.SET_VRING_ADDR, addresses)
    call, kick = os.eventfd(0), os.eventfd(0)
    tell(qemu, Ask.SET_VRING_CALL, struct.pack("<Q", 1), (call,))
    tell(qemu, Ask.SET_VRING_KICK, struct.pack("<Q", 1), (kick,))
    ring = device.rings[1]
    assert ring.queue is not None
    assert ring.kick is not None
    assert len(changes) == 1
    driver.describe(0, offset=BUFFERS, size=3, flags=0, following=0)
    driver.lend(0)
    chain = ring.queue.pop()
    assert chain is not None
    tell(qemu, Ask.SET_VRING_ENABLE, struct.pack("<II", 1, 1))
    assert ring.queue.pop() is None  # what is enabled while it runs does not begin anew
    ring.queue.push(chain, 0)
    ring.notify()
    assert os.eventfd_read(call) == 1
    assert ask(qemu, Ask.GET_VRING_BASE, struct.pack("<II", 1, 0)) == struct.pack("<II", 1, 1)
    assert device.rings[1].queue is None
    os.close(call)
    os.close(kick)


def test_qemu_goes_or_asks_too_much(qemu: Qemu) -> None:
    """
    The end of the connection and unknown or huge messages end the device.
    """
    device, theirs, _ = qemu
    with pytest.raises(GoneError, match="asks 40"):
        tell(qemu, 40)
    theirs.sendall(struct.pack("<III", Ask.GET_CONFIG, 1, 10**6))
    with pytest.raises(GoneError, match="1000000 bytes"):
        device.serve()
    theirs.close()
    with pytest.raises(GoneError, match="closed"):
        device.serve()
