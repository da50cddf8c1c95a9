import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import cast

import pytest

from app.enclave import connection
from app.enclave.connection import Connection
from app.protocol.constants import MAX_WRITE_BYTES
from app.protocol.errors import ProtocolError
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.messages import Kind, encode_message
from tests.patience import PATIENCE_SECONDS

ATTEST = encode_message(Kind.ATTEST, b"\x11" * 32)


def test_messages_sent_together_are_one_write() -> None:
    """
    Messages that are there at the same time cost one system call, in writes of at most 32 KiB.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # a write a packet
    with ours, theirs:
        messages = [bytes([number]) * 1041 for number in range(40)]
        Connection(ours).send(*messages)
        packets = [theirs.recv(MAX_WRITE_BYTES + 1) for _ in range(2)]
    assert [len(packet) for packet in packets] == [MAX_WRITE_BYTES, 40 * 1045 - MAX_WRITE_BYTES]
    assert list(FrameReader().feed(b"".join(packets))) == messages


class NotingSocket(socket.socket):
    """Notes how much is written at once."""

    def __init__(self, fileno: int) -> None:
        super().__init__(fileno=fileno)
        self.writes: list[int] = []

    def sendall(self, data: object, flags: int = 0) -> None:
        piece = bytes(cast("bytes", data))
        self.writes.append(len(piece))
        super().sendall(piece, flags)


def pair() -> tuple[NotingSocket, socket.socket]:
    """Give the enclave's end and the peer's."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(PATIENCE_SECONDS)
    return NotingSocket(ours.detach()), theirs


@pytest.mark.parametrize("size", [1, MAX_WRITE_BYTES - 4, MAX_WRITE_BYTES, 300_000, 1024 * 1024])
def test_short_writes(size: int) -> None:
    """
    No write exceeds what old kernels carry over vsock unharmed, and the frame arrives whole.
    """
    message = bytes([7]) * size
    ours, theirs = pair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        sent = pool.submit(Connection(ours).send, message)
        data = b""
        while len(data) < size + 4:
            data += theirs.recv(1024 * 1024)
        sent.result(PATIENCE_SECONDS)
        assert data == encode_frame(message)
        assert max(ours.writes) <= MAX_WRITE_BYTES
        assert sum(ours.writes) == size + 4


def drip(peer: socket.socket, stop: threading.Event, seconds: float) -> None:
    """Send one byte of a large frame at a time."""
    with suppress(OSError):
        peer.sendall((1024 * 1024).to_bytes(4))
        while not stop.wait(seconds):
            peer.sendall(b"\2")


@pytest.mark.parametrize("seconds", [0.0, 0.0001, 0.05])
def test_slow_request(seconds: float) -> None:
    """
    A request that comes byte by byte is cut off when its time is over, at whatever pace.
    """
    ours, theirs = pair()
    stop = threading.Event()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        pool.submit(drip, theirs, stop, seconds)
        started = time.monotonic()
        try:
            with pytest.raises(TimeoutError):
                Connection(ours).receive(0.3)
            assert 0.25 < time.monotonic() - started < PATIENCE_SECONDS
        finally:
            stop.set()


class DrippingSocket(socket.socket):
    """Has one more byte of a large frame whenever it is asked, and never lets anybody wait."""

    def recv(self, size: int, flags: int = 0) -> bytes:
        del size, flags
        time.sleep(0.0001)
        return b"\2"


def test_request_that_never_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A peer that always has one more byte ready is cut off when its time is over, too.
    """
    monkeypatch.setattr(FrameReader, "feed", lambda *_: iter(()))
    with DrippingSocket() as stream:
        started = time.monotonic()
        with pytest.raises(TimeoutError):
            Connection(stream).receive(0.2)
        assert time.monotonic() - started < PATIENCE_SECONDS


def test_silent_peer() -> None:
    """
    A peer that says nothing is cut off, too.
    """
    ours, theirs = pair()
    with ours, theirs, pytest.raises(TimeoutError):
        Connection(ours).receive(0.05)


def test_request_in_pieces() -> None:
    """
    A request may come in any pieces; with a byte too many it is refused.
    """
    ours, theirs = pair()
    with ours, theirs, ThreadPoolExecutor(1) as pool:
        received = pool.submit(Connection(ours).receive, PATIENCE_SECONDS)
        for byte in encode_frame(ATTEST):
            theirs.sendall(bytes([byte]))
        assert received.result(PATIENCE_SECONDS) == ATTEST
        theirs.sendall(encode_frame(ATTEST) + b"\0")
        peer = Connection(ours)
        assert peer.receive(PATIENCE_SECONDS) == ATTEST
        with pytest.raises(ProtocolError):
            peer.require_end()


def test_messages_one_after_the_other() -> None:
    """
    What comes together is received one by one; what nobody received is no end.
    """
    ours, theirs = pair()
    with ours, theirs:
        theirs.sendall(encode_frame(b"one") + encode_frame(b"two"))
        peer = Connection(ours)
        assert peer.receive(PATIENCE_SECONDS) == b"one"
        with pytest.raises(ProtocolError):
            peer.require_end()
        assert peer.receive(PATIENCE_SECONDS) == b"two"
        peer.require_end()


def test_reader_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A peer that reads nothing is hung up on.
    """
    monkeypatch.setattr(connection, "_SEND_SECONDS", 0.1)
    ours, theirs = pair()
    with ours, theirs:
        peer = Connection(ours)
        assert not peer.gone()
        with pytest.raises(TimeoutError):
            peer.send(bytes(1024 * 1024))


def test_gone() -> None:
    """
    A peer has gone when it has hung up, or says what it has no business to say.
    """
    ours, theirs = pair()
    with ours:
        peer = Connection(ours)
        assert not peer.gone()
        theirs.sendall(b"more")
        assert peer.gone()
        theirs.close()
        assert peer.gone()


def test_slow_reader() -> None:
    """
    A peer that reads just fast enough to stay is hung up on when its time is over.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = Connection(ours, 1)
        peer.send(ATTEST)
        time.sleep(1.05)
        with pytest.raises(TimeoutError):
            peer.send(ATTEST)
