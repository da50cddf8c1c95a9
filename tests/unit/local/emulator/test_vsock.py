"""
The vsock of the emulated enclave, without one: packets, credit, streams, the hub.
"""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.emulator.vsock_hub import Hub
from local.emulator.vsock_packet import Done, Op, Packet, parse_packet
from local.emulator.vsock_stream import BUFFER_BYTES, MAX_IN_FLIGHT, Credit, Stream
from tests.patience import PATIENCE_SECONDS

GUEST = 16
U32 = st.integers(0, 2**32 - 1)


def from_guest(op: int, *, flags: int = 0, data: bytes = b"", fwd: int = 0) -> Packet:
    """Make a packet of the guest's from its port 5000 to our port 8000."""
    return Packet(GUEST, 3, 5000, 8000, op, flags, BUFFER_BYTES, fwd, data)


@given(data=st.binary(max_size=70_000), ports=st.tuples(U32, U32), fwd_cnt=U32)
def test_packets_round_trip(data: bytes, ports: tuple[int, int], fwd_cnt: int) -> None:
    """
    What is encoded is parsed to the same.
    """
    packet = Packet(3, 16, *ports, Op.RW, 0, 1, fwd_cnt, data)
    assert parse_packet(packet.encode()) == packet


@given(data=st.binary(max_size=100))
def test_any_bytes_parse_or_are_refused(data: bytes) -> None:
    """
    Any bytes are a packet or a ValueError.
    """
    with suppress(ValueError):
        parse_packet(data)


@given(steps=st.lists(st.tuples(st.integers(1, 5000), st.booleans()), max_size=200))
def test_credit_is_never_exceeded(steps: list[tuple[int, bool]]) -> None:
    """
    Whatever the guest takes and when, no more is on its way than it has room for, in bytes and in
    packets; when it has taken all, all may be sent again.
    """
    credit = Credit()
    allocated, taken = 20_000, 0
    credit.sent = 2**32 - 10_000  # the counters wrap
    taken = credit.sent
    credit.update(Packet(0, 0, 0, 0, Op.CREDIT_UPDATE, 0, allocated, taken % 2**32))
    sent, packets = credit.sent, 0
    for wanted, takes in steps:
        count = min(wanted, credit.room())
        if count:
            credit.send(count)
            sent, packets = sent + count, packets + 1
        assert sent - taken <= allocated
        assert packets <= MAX_IN_FLIGHT
        if takes:
            taken, packets = sent, 0
            credit.update(Packet(0, 0, 0, 0, Op.CREDIT_UPDATE, 0, allocated, taken % 2**32))
            assert credit.room() == allocated


@pytest.fixture
def pair() -> Iterator[tuple[Stream, socket.socket, list[Packet]]]:
    """An established stream, the host's other end, and what went to the guest."""
    ours, theirs = socket.socketpair()
    sent: list[Packet] = []
    stream = Stream((3, 8000, 5000), GUEST, ours, sent.append)
    stream.receive(from_guest(Op.RESPONSE))
    theirs.settimeout(PATIENCE_SECONDS)
    with theirs:
        yield stream, theirs, sent
    stream.end()


Pair = tuple[Stream, socket.socket, list[Packet]]


def test_data_reaches_the_host(pair: Pair) -> None:
    """
    The guest's data comes out at the host, and the guest hears in time that it was taken.
    """
    stream, host, sent = pair
    data = bytes(range(256)) * 16
    for _ in range(BUFFER_BYTES // len(data)):
        stream.receive(from_guest(Op.RW, data=data))
        assert host.recv(len(data)) == data
    updates = [packet for packet in sent if packet.op == Op.CREDIT_UPDATE]
    assert 1 <= len(updates) <= 3
    assert updates[-1].fwd_cnt >= BUFFER_BYTES // 2


def test_half_close_waits_for_the_data_before_it(pair: Pair) -> None:
    """
    The guest's end comes after all of its data, however slowly the host takes it.
    """
    stream, host, _ = pair
    data = bytes(BUFFER_BYTES)
    stream.receive(from_guest(Op.RW, data=data))
    stream.receive(from_guest(Op.SHUTDOWN, flags=Done.SEND))
    got = 0
    while piece := host.recv(65536):
        got += len(piece)
        stream.flush()
    assert got == len(data)
    assert not stream.over
    host.sendall(b"still open")
    assert stream.read(100)


def test_full_close_is_answered_with_a_reset(pair: Pair) -> None:
    """
    A guest that is done both ways is told that so are we.
    """
    stream, host, sent = pair
    stream.receive(from_guest(Op.SHUTDOWN, flags=Done.SEND | Done.RECEIVE))
    assert sent[-1].op == Op.RST
    assert stream.over
    assert host.recv(1) == b""


def test_hosts_end_is_passed_on(pair: Pair) -> None:
    """
    The host's half-close becomes the guest's; its close, one both ways.
    """
    stream, host, sent = pair
    host.shutdown(socket.SHUT_WR)
    assert stream.read(100)
    assert (sent[-1].op, sent[-1].flags) == (Op.SHUTDOWN, Done.SEND)
    host.close()
    stream.hang_up_if_gone()
    assert (sent[-1].op, sent[-1].flags) == (Op.SHUTDOWN, Done.SEND | Done.RECEIVE)
    assert stream.events(queued=False) is None


def test_nothing_is_read_without_credit(pair: Pair) -> None:
    """
    Without room at the guest's the host is left waiting; the guest is asked, once at a time.
    """
    stream, host, sent = pair
    host.sendall(bytes(MAX_IN_FLIGHT + 1))
    for _ in range(MAX_IN_FLIGHT):
        assert stream.read(1)
    assert not stream.wants_host()
    assert not stream.wants_host()
    assert [packet.op for packet in sent].count(Op.CREDIT_REQUEST) == 1
    stream.rest()
    assert not stream.wants_host()
    assert [packet.op for packet in sent].count(Op.CREDIT_REQUEST) == 2
    stream.receive(from_guest(Op.CREDIT_UPDATE, fwd=MAX_IN_FLIGHT))
    assert stream.wants_host()


def test_guest_that_sends_too_much_is_reset(pair: Pair) -> None:
    """
    More than the buffer promised ends the stream.
    """
    stream, _, sent = pair
    for _ in range(8):
        stream.receive(from_guest(Op.RW, data=bytes(BUFFER_BYTES)))
    assert sent[-1].op == Op.RST
    assert stream.over


def test_unknown_operation_is_reset(pair: Pair) -> None:
    """
    What we do not know ends the stream.
    """
    stream, _, sent = pair
    stream.receive(from_guest(99))
    assert sent[-1].op == Op.RST


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """A hub that listens for the guest's port 5000."""
    hub = Hub(tmp_path, guest_cid=GUEST, ports=(5000,))
    yield hub
    hub.close()


def poll_until(hub: Hub, op: Op) -> Packet:
    """Poll until a packet of *op* is for the guest."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        hub.poll()
        hub.feed(4000)
        hub.settle()
        while hub.outbox:
            packet = hub.outbox.popleft()
            if packet.op == op:
                return packet
    raise AssertionError(op)


def test_hub_refuses_where_nobody_listens(hub: Hub) -> None:
    """
    A request to a port without a socket, and data of no stream, get a reset; a reset gets nothing.
    """
    hub.receive(from_guest(Op.REQUEST))
    hub.receive(from_guest(Op.RW, data=b"x"))
    assert [packet.op for packet in hub.outbox] == [Op.RST, Op.RST]
    assert (hub.outbox[0].src_port, hub.outbox[0].dst_port) == (8000, 5000)
    hub.outbox.clear()
    hub.receive(from_guest(Op.RST))
    assert not hub.outbox


def test_hub_connects_the_guest(hub: Hub, tmp_path: Path) -> None:
    """
    A request becomes a connection to the socket of its port; data goes both ways.
    """
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "parent_8000"))
        listener.listen()
        hub.receive(from_guest(Op.REQUEST))
        host, _ = listener.accept()
    with host:
        assert hub.outbox.popleft().op == Op.RESPONSE
        hub.receive(from_guest(Op.RW, data=b"hello"))
        assert host.recv(5) == b"hello"
        host.sendall(b"answer")
        assert poll_until(hub, Op.RW).data == b"answer"
        hub.receive(from_guest(Op.REQUEST))  # the same port again: a guest that lost count
        assert poll_until(hub, Op.RST).dst_port == 5000


def test_hub_connects_the_host(hub: Hub, tmp_path: Path) -> None:
    """
    Who connects to the guest's socket is announced to the guest, and read only once it accepts.
    """
    with socket.socket(socket.AF_UNIX) as host:
        host.connect(str(tmp_path / "enclave_5000"))
        host.sendall(b"early")
        request = poll_until(hub, Op.REQUEST)
        assert (request.src_cid, request.dst_cid, request.dst_port) == (3, GUEST, 5000)
        hub.poll()
        hub.feed(4000)
        assert not hub.outbox
        response = Packet(GUEST, 3, 5000, request.src_port, Op.RESPONSE, 0, BUFFER_BYTES, 0)
        hub.receive(response)
        assert poll_until(hub, Op.RW).data == b"early"
