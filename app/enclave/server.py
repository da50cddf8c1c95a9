"""
The server: one listener, one request a connection, a bounded number at once.

Whoever connects is hostile until a sealed request has opened. SPEC.md section 2.1.
"""

import select
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from app.enclave.answering import Answerer, Outcome
from app.enclave.events import Event, report
from app.protocol.attestation import encode_user_data
from app.protocol.constants import (
    MAX_ACTIVE_ANSWERS,
    MAX_CONNECTION_SECONDS,
    MAX_CONNECTIONS,
    MAX_WRITE_BYTES,
    REQUEST_READ_SECONDS,
)
from app.protocol.errors import AppError, BusyError, EngineError, ProtocolError
from app.protocol.frames import FrameReader, encode_frame
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

_SEND_SECONDS: Final = 10  # a peer that reads nothing for this long is hung up on
_READ_BYTES: Final = 64 * 1024
_ACCEPT_SECONDS: Final = 0.2  # how soon a stop is noticed


class Connection:
    """A connected peer, seen as messages in frames."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream
        self._end = time.monotonic() + MAX_CONNECTION_SECONDS
        stream.settimeout(_SEND_SECONDS)

    def send(self, *messages: bytes) -> None:
        """
        Send *messages* as if they were one, at most `MAX_WRITE_BYTES` a write.

        Raises:
            OSError: The peer has gone, or reads nothing.
        """
        if time.monotonic() > self._end:
            raise TimeoutError  # a peer that reads just fast enough holds its place no longer
        frames = memoryview(b"".join(map(encode_frame, messages)))
        for start in range(0, len(frames), MAX_WRITE_BYTES):
            self._stream.sendall(frames[start : start + MAX_WRITE_BYTES])

    def gone(self) -> bool:
        """Say whether the peer has hung up; after its one request it has nothing to send."""
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self, seconds: float = REQUEST_READ_SECONDS) -> bytes:
        """
        Read the one request message, all of it within *seconds*.

        Raises:
            ProtocolError: It is no frame, or more than one.

            OSError: The peer has gone, or was too slow.
        """
        reader = FrameReader()
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._stream.settimeout(left)
            data = self._stream.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError
            for message in reader.feed(data):
                reader.finish()
                self._stream.settimeout(_SEND_SECONDS)
                return message
        raise TimeoutError


class Server:
    """
    Answers attest, chat and health requests on a listening socket until stopped.

    Args:
        answerer: Answers chat requests.

        manifest: Attested in every document of kind `attest`.
    """

    def __init__(self, answerer: Answerer, manifest: Manifest) -> None:
        self._answerer = answerer
        self._manifest = manifest
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
            while not stop.is_set() and self._answerer.engine.is_alive():
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
            kind, body = parse_message(peer.receive())
            self._answer(kind, body, peer)
        except AppError as error:
            report(Event.FAILED)
            peer.send(encode_hint(error))

    def _answer(self, kind: Kind, body: bytes, peer: Connection) -> None:
        match kind:
            case Kind.ATTEST:
                peer.send(self._attest(parse_nonce(body)))
            case Kind.CHAT:
                self._chat(body, peer)
            case Kind.HEALTH:
                peer.send(encode_health(self._counts.report()))
            case _:
                raise ProtocolError("not a request")

    def _attest(self, nonce: bytes) -> bytes:
        document = self._answerer.nsm.attest(
            user_data=encode_user_data("attest", self._manifest.digest),
            nonce=nonce,
            public_key=self._answerer.key_ring.public_key(),
        )
        body = encode_attestation(document, self._manifest.encode())
        return encode_message(Kind.ATTESTATION, body)

    def _chat(self, body: bytes, peer: Connection) -> None:
        # Without the counts of tokens: padding hides them.
        report(Event(self._counts.count(lambda: self._answerer.answer(body, peer))))


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

    def report(self) -> HealthReport:
        """Give the counts; requests beyond the engine's slots are waiting."""
        with self._lock:
            active = min(self._active, MAX_ACTIVE_ANSWERS)
            return HealthReport(active, self._active - active, loading=None, **self._ended)
