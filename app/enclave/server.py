"""
The server: one listener, one request a connection, a bounded number at once.

Whoever connects is hostile until a sealed request has opened. SPEC.md section 2.1.
"""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from app.enclave.answering import Answerer, Outcome
from app.enclave.connection import Connection
from app.enclave.events import Event, report
from app.protocol.attestation import encode_user_data
from app.protocol.constants import MAX_ACTIVE_ANSWERS, MAX_CONNECTIONS, REQUEST_READ_SECONDS
from app.protocol.errors import AppError, BusyError, EngineError, ProtocolError
from app.protocol.frames import encode_frame
from app.protocol.manifest import Manifest
from app.protocol.messages import (
    HealthReport,
    Kind,
    encode_attestation,
    encode_health,
    encode_hint,
    encode_message,
    parse_message,
    parse_nonce,
)

_ACCEPT_SECONDS: Final = 0.2  # how soon a stop is noticed


class Server:
    """
    Answers attest, chat and health requests on a listening socket until stopped.

    Args:
        manifest: Attested in every document of kind `attest`.

        loading: Gives how many bytes of the weights have come, and how many there are.

    Attributes:
        answerer: Answers chat requests. None while the weights come in: health is answered then,
            and nothing else.
    """

    def __init__(self, manifest: Manifest, loading: Callable[[], tuple[int, int]]) -> None:
        self.answerer: Answerer | None = None
        self._manifest = manifest
        self._loading = loading
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._counts = _Counts()

    def serve(self, listener: socket.socket, stop: threading.Event) -> None:
        """
        Accept connections, a thread each, until *stop* is set; closes *listener*.

        Raises:
            EngineError: The engine has died; only a new process can answer.
        """
        listener.settimeout(_ACCEPT_SECONDS)
        with listener:
            while not stop.is_set() and (not self.answerer or self.answerer.engine.is_alive()):
                try:
                    stream, _ = listener.accept()
                except (TimeoutError, ConnectionError):
                    continue  # nobody came, or hung up before being let in
                except OSError:  # out of descriptors; some come back as connections end
                    time.sleep(_ACCEPT_SECONDS)
                    continue
                self._dispatch(stream)
        if not stop.is_set():
            raise EngineError

    def _dispatch(self, stream: socket.socket) -> None:
        if self._free.acquire(blocking=False):
            try:
                threading.Thread(target=self._converse, args=(stream,), daemon=True).start()
            except RuntimeError:  # no thread to be had; the next connection may find one
                self._free.release()
            else:
                return
        with stream, suppress(OSError):
            stream.settimeout(0)  # nobody waits for a peer that there is no room for
            stream.send(encode_frame(encode_hint(BusyError())))

    def _converse(self, stream: socket.socket) -> None:
        try:
            with stream:
                self._handle(Connection(stream))
        except OSError:
            report(Event.HUNG_UP)
        finally:
            self._free.release()

    def _handle(self, peer: Connection) -> None:
        try:
            kind, body = parse_message(peer.receive(REQUEST_READ_SECONDS))
            peer.require_end()
            self._answer(kind, body, peer)
        except AppError as error:
            report(Event.FAILED)
            peer.send(encode_hint(error))

    def _answer(self, kind: Kind, body: bytes, peer: Connection) -> None:
        answerer = self.answerer
        if kind is Kind.HEALTH:
            loading = None if answerer else self._loading()
            peer.send(encode_health(self._counts.report(loading)))
        elif answerer is None:
            raise BusyError
        elif kind is Kind.ATTEST:
            peer.send(self._attest(answerer, parse_nonce(body)))
        elif kind is Kind.CHAT:
            # Without the counts of tokens: padding hides them.
            report(Event(self._counts.count(lambda: answerer.answer(body, peer))))
        else:
            raise ProtocolError("not a request")

    def _attest(self, answerer: Answerer, nonce: bytes) -> bytes:
        document = answerer.nsm.attest(
            user_data=encode_user_data("attest", self._manifest.digest),
            nonce=nonce,
            public_key=answerer.key_ring.public_key(),
        )
        body = encode_attestation(document, self._manifest.encode())
        return encode_message(Kind.ATTESTATION, body)


class _Counts:
    """How many chat requests are under way and how the others ended."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._active = 0
        self._ended: dict[Outcome, int] = {"answered": 0, "failed": 0, "refused": 0}

    def count(self, answer: Callable[[], Outcome]) -> Outcome:
        """Count one chat request while it lasts, then as what it came to."""
        outcome: Outcome = "failed"
        with self._lock:
            self._active += 1
        try:
            outcome = answer()
        except OSError:  # whoever asked has gone: nothing failed here
            outcome = "refused"
            raise
        finally:
            with self._lock:
                self._active -= 1
                self._ended[outcome] += 1
        return outcome

    def report(self, loading: tuple[int, int] | None) -> HealthReport:
        """Give the counts; requests beyond the engine's slots are waiting."""
        with self._lock:
            active = min(self._active, MAX_ACTIVE_ANSWERS)
            return HealthReport(active, self._active - active, loading=loading, **self._ended)
