"""
The emulated enclave's vsock, through a guest that runs: every size, both directions, ends of all
kinds.
"""

import errno
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from local.emulator.machine import parent_socket
from tests.image.conftest import RunningProbe
from tests.image.probe import read_all, read_exactly
from tests.patience import PATIENCE_SECONDS

PORT = 7000
SIZES = (0, 1, 4051, 4052, 4053, 20_000, 60_000, 65_536, 300_001, 2 * 1024 * 1024)


@contextmanager
def serving(running: RunningProbe, answer: Callable[[socket.socket], None]) -> Iterator[None]:
    """Serve one connection of the guest's at `PORT` with *answer*."""
    path = parent_socket(running.place.sockets, PORT)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.settimeout(PATIENCE_SECONDS)

        def serve() -> None:
            stream, _ = listener.accept()
            with stream:
                stream.settimeout(PATIENCE_SECONDS)
                answer(stream)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(PATIENCE_SECONDS)
            path.unlink()
    assert not thread.is_alive()


def exchange(stream: socket.socket, data: bytes) -> bytes:
    """Send *data*, end our half, and give what comes until the other ends its own."""

    def send() -> None:
        stream.sendall(data)
        stream.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    with stream:
        answer = read_all(stream)
        thread.join()
    return answer


@pytest.mark.parametrize("size", SIZES)
def test_host_to_guest_and_back(running: RunningProbe, size: int) -> None:
    """
    Whatever the size, what the host sends comes back whole, and both halves end.
    """
    data = os.urandom(size)
    assert exchange(running.probe.connect(b"e"), data) == data


@pytest.mark.parametrize("cid", [2, 3, 77])
@pytest.mark.parametrize("write", [100, 32 * 1024, 60_000, 1024 * 1024])
def test_guest_to_host_and_back(running: RunningProbe, cid: int, write: int) -> None:
    """
    Whichever CID the guest names and however much it writes at once, the host gets all of it.

    The host answers only after the guest's half has ended: that end is passed on.
    """
    data = os.urandom(3 * write + 1)

    def answer(host: socket.socket) -> None:
        host.sendall(read_all(host))

    with serving(running, answer):
        stream, outcome = running.probe.dial(cid, PORT, size=write)
        assert outcome == 0
        assert exchange(stream, data) == data


def test_nobody_listens(running: RunningProbe) -> None:
    """
    A port without a listener refuses: that is another error than an end to waiting.
    """
    stream, outcome = running.probe.dial(3, 9999, size=1)
    stream.close()
    assert outcome == errno.ECONNRESET


def test_host_goes_away(running: RunningProbe) -> None:
    """
    A host that closes in the middle ends the guest's stream, in both directions.
    """

    def answer(host: socket.socket) -> None:
        read_exactly(host, 10)

    with serving(running, answer):
        stream, outcome = running.probe.dial(3, PORT, size=4096)
        assert outcome == 0
        stream.sendall(bytes(10))
        with stream:
            assert read_all(stream) == b""


def test_guest_is_slow(running: RunningProbe) -> None:
    """
    A stream whose end does not read holds up itself and no other, and loses nothing.
    """
    data = os.urandom(3 * 1024 * 1024)
    slow = running.probe.connect(b"e")
    thread = threading.Thread(target=slow.sendall, args=(data,))
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive()  # 3 MiB fit into no buffer on the way
    for _ in range(5):
        assert exchange(running.probe.connect(b"e"), b"meanwhile") == b"meanwhile"
    got = read_exactly(slow, len(data))
    thread.join()
    slow.close()
    assert got == data


def test_many_tiny_packets(running: RunningProbe) -> None:
    """
    Thousands of packets of a byte or two reach a guest that is slow to read them.
    """
    data = os.urandom(6000)
    with running.probe.connect(b"e") as stream:
        for start in range(0, len(data), 2):
            stream.sendall(data[start : start + 2])
        assert read_exactly(stream, len(data)) == data


def test_many_streams(running: RunningProbe) -> None:
    """
    A hundred streams at once keep their bytes apart.
    """
    contents = [os.urandom(20_000) for _ in range(100)]
    with ThreadPoolExecutor(20) as pool:
        answers = pool.map(lambda data: exchange(running.probe.connect(b"e"), data), contents)
        assert list(answers) == contents


def test_speed(running: RunningProbe) -> None:
    """
    8 MiB there and back take seconds: a packet of 4 KiB that had to wait for a timer of a tenth
    of a second each time would take minutes.
    """
    data = os.urandom(8 * 1024 * 1024)
    started = time.monotonic()
    assert exchange(running.probe.connect(b"e"), data) == data
    assert time.monotonic() - started < 60
