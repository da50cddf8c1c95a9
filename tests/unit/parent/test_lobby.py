import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from app.parent import lobby
from app.parent.lobby import Lobby

HEAD = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


class Door:
    """A lobby, and what has become of who came."""

    def __init__(self, stack: ExitStack, seconds: float = 10) -> None:
        self.stack = stack
        self.poller = stack.enter_context(selectors.DefaultSelector())
        self.served: list[TConn] = []
        self.closed: list[TConn] = []
        self.lobby = Lobby(
            self.poller,
            wrap=None,
            serve=self.served.append,
            close=self._close,
            refusal=b"no",
            seconds=seconds,
        )

    def _close(self, conn: TConn) -> None:
        conn.close()
        self.closed.append(conn)

    def come(self) -> tuple[TConn, socket.socket]:
        """A peer connects."""
        ours, theirs = socket.socketpair()
        self.stack.callback(ours.close)
        self.stack.enter_context(theirs)
        theirs.settimeout(5)
        return TConn(Config(), ours, ("", 0), ("", 0)), theirs

    def turn(self) -> None:
        """What the worker's loop does with what has come."""
        for key, _ in self.poller.select(0):
            key.data(key.fileobj)


@pytest.fixture
def door() -> Iterator[Door]:
    with ExitStack() as stack:
        yield Door(stack)


def test_whole_headers_are_served(door: Door) -> None:
    """
    A connection is served once its headers are whole, however they come, and nothing is lost.
    """
    conn, peer = door.come()
    door.lobby.admit(conn)
    for byte in HEAD:
        assert door.served == []
        peer.send(bytes([byte]))
        door.turn()
    assert door.served == [conn]
    request = next(conn.parser)
    assert (request.method, request.path) == ("GET", "/healthz")
    assert door.poller.get_map() == {}


def test_headers_that_are_there_are_served_at_once(door: Door) -> None:
    """
    So are those that came with the request before.
    """
    conn, peer = door.come()
    peer.send(HEAD * 2)
    door.lobby.admit(conn)
    assert next(conn.parser).path == "/healthz"
    door.lobby.admit(conn)
    assert door.served == [conn, conn]
    assert next(conn.parser).path == "/healthz"


def test_who_hangs_up_leaves(door: Door) -> None:
    """
    A peer that closes before its headers are whole is let go.
    """
    conn, peer = door.come()
    door.lobby.admit(conn)
    peer.send(b"GET /")
    peer.close()
    door.turn()
    door.turn()
    assert (door.served, door.closed) == ([], [conn])


def test_headers_without_end_are_refused(door: Door) -> None:
    """
    Headers of over 32 KiB are refused, and what follows is read by nobody.
    """
    conn, peer = door.come()
    peer.send(b"G" * 40_000)
    door.lobby.admit(conn)
    assert peer.recv(10) == b"no"
    assert door.served == []


def test_waiting_ends(door: Door) -> None:
    """
    A peer that says nothing whole is closed when its time is over.
    """
    door.lobby._seconds = 0.05
    conn, _ = door.come()
    door.lobby.admit(conn)
    door.lobby.expire()
    assert door.closed == []
    time.sleep(0.06)
    door.lobby.expire()
    assert door.closed == [conn]


def test_who_waits_longest_leaves(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When places run out, those who wait longest leave; no event of theirs is heeded any more.
    """
    monkeypatch.setattr(lobby, "PLACES", 2)
    guests = [door.come() for _ in range(3)]
    for conn, _ in guests:
        door.lobby.admit(conn)
    assert door.closed == [guests[0][0]]
    for _, peer in guests[1:]:
        peer.send(HEAD)
    door.turn()
    assert door.served == [conn for conn, _ in guests[1:]]


def test_who_leaves_may_read_what_was_sent(door: Door) -> None:
    """
    What a peer still sends is read away until it closes, so that it can read its answer.
    """
    conn, peer = door.come()
    conn.sock.send(b"the answer")
    peer.send(b"more" * 1000)
    door.lobby.see_out(conn)
    door.turn()
    assert door.closed == []
    assert peer.recv(100) == b"the answer"
    assert peer.recv(100) == b""
    peer.close()
    door.turn()
    assert door.closed == [conn]


def test_leaving_is_short(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A peer that neither reads nor closes is not waited for long; one that has gone not at all.
    """
    monkeypatch.setattr(lobby, "_LINGER_SECONDS", 0)
    conn, _ = door.come()
    door.lobby.see_out(conn)
    door.lobby.expire()
    assert door.closed == [conn]
    door.lobby.see_out(conn)
    assert door.closed == [conn, conn]
