"""
The lobby: where connections wait that have nothing whole to say yet, or nothing more.

A connection is given a thread only once all headers of a request are there; TLS, too, is agreed on
here. Waiting costs no thread and ends after a time. When places run out, whoever has waited longest
leaves. So connections that say nothing keep nobody from being served.
"""

import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn

from app.parent.observe import log

PLACES: Final = 512
_MAX_HEAD_BYTES: Final = 32 * 1024  # an honest client sends under 2 KiB
_READ_BYTES: Final = 4096
_LINGER_SECONDS: Final = 1
_END_OF_HEAD: Final = b"\r\n\r\n"

Wrap = Callable[[socket.socket], socket.socket]


@dataclass(slots=True, eq=False)
class _Guest:
    """A connection that waits."""

    conn: TConn
    ends: float
    agreed: bool = True  # on TLS, where there is TLS
    head: bytearray = field(default_factory=bytearray)
    waits: bool = True


class Lobby:
    """
    The connections that wait, all of them looked after by the thread that polls.

    Args:
        poller: Tells when one has something to say.

        wrap: Puts TLS around a socket, its handshake still to come; None where there is none.

        serve: Is given a connection, its socket blocking, whose next request's headers are whole.

        close: Is given a connection that has left.

        refusal: What is said to one whose headers are too long.

        seconds: For TLS and all headers together.
    """

    def __init__(
        self,
        poller: selectors.BaseSelector,
        *,
        wrap: Wrap | None,
        serve: Callable[[TConn], None],
        close: Callable[[TConn], None],
        refusal: bytes,
        seconds: float,
    ) -> None:
        self._poller = poller
        self._wrap = wrap
        self._serve = serve
        self._close = close
        self._refusal = refusal
        self._seconds = seconds
        self._guests: dict[_Guest, None] = {}  # those that came first stand first

    def admit(self, conn: TConn) -> None:
        """Let *conn* wait for its next request, new or kept alive, and have that served."""
        guest = _Guest(conn, time.monotonic() + self._seconds)
        try:
            if conn.initialized:
                guest.head += conn.parser.unreader.take_buffered()
            else:
                guest.agreed = self._begin(conn)
            self._enter(guest, self._hear)
        except (OSError, ValueError):  # it has hung up already
            self._close(conn)
            return
        self._hear(guest)

    def see_out(self, conn: TConn) -> None:
        """Let the peer of *conn* read what was sent before its connection is closed."""
        guest = _Guest(conn, time.monotonic() + _LINGER_SECONDS)
        try:
            # Not the method of the same name of `SSLSocket`, which has no more to say.
            socket.socket.shutdown(conn.sock, socket.SHUT_WR)
            self._enter(guest, self._drain)
        except (OSError, ValueError):
            self._close(conn)

    def expire(self) -> None:
        """Close what has waited too long."""
        now = time.monotonic()
        for guest in [guest for guest in self._guests if guest.ends <= now]:
            self._drop(guest)

    def _begin(self, conn: TConn) -> bool:
        """Make *conn* ready to be parsed; say whether it has no TLS to agree on."""
        if self._wrap is not None:
            conn.sock = self._wrap(conn.sock)
        conn.parser = get_parser(conn.cfg, conn.sock, conn.client)
        conn.initialized = True
        return self._wrap is None

    def _enter(self, guest: _Guest, turn: Callable[[_Guest], None]) -> None:
        guest.conn.sock.settimeout(0)
        self._poller.register(
            guest.conn.sock, selectors.EVENT_READ, lambda _: turn(guest) if guest.waits else None
        )
        self._guests[guest] = None
        if len(self._guests) > PLACES:
            self._drop(next(iter(self._guests)))

    def _leave(self, guest: _Guest) -> None:
        guest.waits = False
        self._guests.pop(guest, None)
        with suppress(OSError, KeyError, ValueError):
            self._poller.unregister(guest.conn.sock)

    def _drop(self, guest: _Guest) -> None:
        self._leave(guest)
        self._close(guest.conn)

    def _hear(self, guest: _Guest) -> None:
        """Take what has come; have the request served once its headers are whole."""
        try:
            whole = self._read_head(guest)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except ssl.SSLError as error:
            log("malformed", error=type(error).__name__)
            whole = False
        except OSError:
            self._drop(guest)
            return
        self._leave(guest)
        if whole:
            guest.conn.parser.unreader.unread(bytes(guest.head))
            self._serve(guest.conn)
        else:
            self.see_out(guest.conn)

    def _read_head(self, guest: _Guest) -> bool:
        """Read until headers are whole; false when they never will be."""
        stream = guest.conn.sock
        if not guest.agreed:
            stream.do_handshake()
            guest.agreed = True
        while _END_OF_HEAD not in guest.head:
            if len(guest.head) > _MAX_HEAD_BYTES:
                stream.send(self._refusal)
                return False
            data = stream.recv(_READ_BYTES)
            if not data:
                return False
            guest.head += data
        return True

    def _drain(self, guest: _Guest) -> None:
        """Read away what still comes, a piece at a time; close when the peer has."""
        try:
            more = bool(socket.socket.recv(guest.conn.sock, _READ_BYTES))
        except BlockingIOError:
            more = True
        except OSError:
            more = False
        if not more:
            self._drop(guest)
