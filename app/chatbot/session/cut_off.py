"""
A cut-off: the end of a connection's time as a whole.

urllib3 limits each read, and a peer that sends a byte now and then can make any number of those.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

Hold = Callable[[socket.socket | None], None]


class Stop:
    """
    A wish to end one exchange, made from any thread, at any time.

    It is told to whatever works on the exchange then, or takes up work on it later.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._end: Callable[[], None] | None = None
        self.requested = False

    def request(self) -> None:
        """Wish it."""
        with self._lock:
            self.requested = True
            if self._end is not None:
                self._end()

    @contextmanager
    def ending(self, end: Callable[[], None]) -> Iterator[None]:
        """Call *end* when the wish is made within the block, or was before it."""
        self._bind(end)
        try:
            yield
        finally:
            self._bind(None)

    def _bind(self, end: Callable[[], None] | None) -> None:
        with self._lock:
            self._end = end
            if end is not None and self.requested:
                end()


class CutOff:
    """Ends the connection that it holds when the time is over, also one that it gets later."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: socket.socket | None = None
        self._over = False

    @contextmanager
    def after(self, seconds: float) -> Iterator[None]:
        """Limit what happens on the connection within the block to *seconds*."""
        self._held, self._over = None, False
        timer = threading.Timer(seconds, self.end)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def hold(self, stream: socket.socket | None) -> None:
        """Take the connection on which the answer will come."""
        with self._lock:
            self._held = stream
            self._end()

    def end(self) -> None:
        """End the connection that is held now, or the one that comes."""
        with self._lock:
            self._over = True
            self._end()

    def _end(self) -> None:
        if self._over and self._held is not None:
            with suppress(OSError):
                # Not the method of `SSLSocket`, which has TLS to see to first.
                socket.socket.shutdown(self._held, socket.SHUT_RDWR)


def make_pools(hold: Hold) -> dict[str, type[HTTPConnectionPool]]:
    """Give urllib3's pools by scheme, with connections that show themselves to *hold*."""

    class Plain(HTTPConnection):
        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
            hold(self.sock)
            return super().getresponse()

    class Tls(HTTPSConnection):
        def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
            hold(self.sock)
            return super().getresponse()

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}
