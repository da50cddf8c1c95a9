"""
The relay: one connection to the enclave for each request, and what comes back on it.

Everything that passes here is sealed or public; kinds and lengths are all that is looked at.
SPEC.md section 2.1.
"""

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final, Self

from app.protocol.asker.messages import parse_health, parse_hint
from app.protocol.constants import MAX_WRITE_BYTES
from app.protocol.errors import DeadlineError, ProtocolError, TruncatedError, UnavailableError
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.messages import HealthReport, Kind, encode_message, parse_message

Connect = Callable[[], socket.socket]

CONNECT_SECONDS: Final = 5
_ATTEST_SECONDS: Final = 10  # the NSM signs a document in milliseconds
_HEALTH_SECONDS: Final = 3
_READ_BYTES: Final = 64 * 1024
_GOING_ON: Final = frozenset({Kind.ANSWER_HEADER, Kind.ANSWER_FRAME})
_LAST: Final = frozenset({Kind.FINAL_FRAME, Kind.SEALED_ERROR, Kind.HINT})


def attest(connect: Connect, nonce: bytes) -> bytes:
    """
    Ask the enclave for an attestation over *nonce*; give the message's body, unread.

    Raises:
        UnavailableError: The enclave cannot be reached, or breaks the wire format.

        DeadlineError: It takes too long.

        AppError: The error that its hint names.
    """
    return _ask(connect, Kind.ATTEST, nonce, Kind.ATTESTATION, _ATTEST_SECONDS)


def health(connect: Connect) -> HealthReport:
    """
    Ask the enclave for its counts.

    Raises:
        UnavailableError: The enclave cannot be reached, or breaks the wire format.

        DeadlineError: It takes too long.

        AppError: The error that its hint names.
    """
    body = _ask(connect, Kind.HEALTH, b"", Kind.HEALTH_REPORT, _HEALTH_SECONDS)
    with _wire_format():
        return parse_health(body)


def _ask(connect: Connect, kind: Kind, body: bytes, expected: Kind, seconds: float) -> bytes:
    with _Exchange(connect, encode_message(kind, body), seconds=seconds) as exchange:
        payload = exchange.first()[0]
        if payload[0] != expected:
            raise UnavailableError(f"enclave answered with kind {payload[0]:#x}")
        return payload[1:]


def open_chat(
    connect: Connect, sealed: bytes, *, seconds: float, client: socket.socket | None = None
) -> "Answer":
    """
    Send the enclave a sealed request and wait for the first message of its answer.

    Args:
        connect: Gives a connected socket to the enclave.

        sealed: The sealed request, 1 to `MAX_FRAME_BYTES` - 1 bytes.

        seconds: For the whole answer, to its last frame.

        client: Who asked, watched for hanging up while there is nothing to send.

    Raises:
        UnavailableError: The enclave cannot be reached, or breaks the wire format.

        DeadlineError: *seconds* are over.

        ConnectionAbortedError: *client* has hung up.

        AppError: The error that the enclave's hint names.
    """
    message = encode_message(Kind.CHAT, sealed)
    exchange = _Exchange(connect, message, seconds=seconds, client=client)
    try:
        return Answer(exchange, exchange.first())
    except BaseException:
        exchange.close()
        raise


class Answer:
    """
    An answer under way: raw frames, as soon as they are there; those that come together in one.

    Closing it hangs up on the enclave, which stops answering.
    """

    def __init__(self, exchange: "_Exchange", first: list[bytes]) -> None:
        self._exchange = exchange
        self._first = first

    def __iter__(self) -> Iterator[bytes]:
        """
        Give the frames up to the last.

        Raises:
            TruncatedError: The enclave hung up or broke the wire format before that.

            DeadlineError: Time is over.

            ConnectionAbortedError: The client has hung up.
        """
        payloads = self._first
        while True:
            kind, frames = _join(payloads)
            if frames:
                yield frames
            if kind in _LAST:
                return
            if kind not in _GOING_ON:
                raise TruncatedError(f"kind {kind:#x} in an answer")
            try:
                payloads = self._exchange.next()
            except UnavailableError as error:
                raise TruncatedError(str(error)) from None

    def close(self) -> None:
        """Hang up on the enclave; closing again does nothing."""
        self._exchange.close()


def _join(payloads: list[bytes]) -> tuple[int, bytes]:
    """Give the kind of the last payload that belongs to the answer, and the frames up to it."""
    frames, kind = bytearray(), 0
    for payload in payloads:
        kind = payload[0]
        if kind in _GOING_ON or kind in _LAST:
            frames += encode_frame(payload)
        if kind not in _GOING_ON:
            break
    return kind, bytes(frames)


class _Exchange:
    """One connection to the enclave: a request out, payloads back, all within a time."""

    def __init__(
        self,
        connect: Connect,
        message: bytes,
        *,
        seconds: float,
        client: socket.socket | None = None,
    ) -> None:
        self._end = time.monotonic() + seconds
        with _reachable():
            self._stream = connect()
        self._poll = select.poll()
        self._poll.register(self._stream, select.POLLIN)
        if client is not None:
            # A hang-up shows whether or not the client has sent more, and under TLS, too.
            self._poll.register(client, select.POLLRDHUP)
        self._received = self._receive()
        try:
            self._send(encode_frame(message))
            self._stream.settimeout(0)  # `_read` waits, for the client, too
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._stream.close()

    def first(self) -> list[bytes]:
        """Give the first payload, of a known kind, and those with it; a hint is raised as error."""
        payloads = self.next()
        with _wire_format():
            kind, body = parse_message(payloads[0])
        if kind == Kind.HINT:
            raise parse_hint(body)
        return payloads

    def next(self) -> list[bytes]:
        """Give the payloads that come together next, one or more."""
        with _reachable(), _wire_format():
            for payloads in self._received:
                return payloads
        raise UnavailableError("enclave hung up")

    def _send(self, frame: bytes) -> None:
        view = memoryview(frame)
        # An enclave without room answers and hangs up before it has read: its hint is there.
        with _reachable(), suppress(BrokenPipeError, ConnectionResetError):
            for start in range(0, len(view), MAX_WRITE_BYTES):
                self._stream.settimeout(self._left())
                self._stream.sendall(view[start : start + MAX_WRITE_BYTES])

    def _receive(self) -> Iterator[list[bytes]]:
        reader = FrameReader()
        while data := self._read():
            payloads: list[bytes] = []
            try:
                payloads.extend(reader.feed(data))
            finally:  # what came whole before a frame that is broken is given first
                if payloads:
                    yield payloads

    def _read(self) -> bytes:
        ready = dict(self._poll.poll(self._left() * 1000))
        if not ready:
            raise DeadlineError("the enclave said nothing while there was time")
        if self._stream.fileno() not in ready:
            raise ConnectionAbortedError("the client hung up")
        return self._stream.recv(_READ_BYTES)

    def _left(self) -> float:
        """Give the seconds left, never 0, which would mean not to block."""
        if (left := self._end - time.monotonic()) <= 0:
            raise DeadlineError("the time for one answer ran out")
        return left


@contextmanager
def _reachable() -> Iterator[None]:
    """Say of any trouble with the socket that the enclave is unavailable."""
    try:
        yield
    except ConnectionAbortedError:
        raise
    except OSError as error:
        raise UnavailableError(f"enclave is out of reach: {type(error).__name__}") from None


@contextmanager
def _wire_format() -> Iterator[None]:
    """Tell an enclave that breaks the wire format from one that says the client did."""
    try:
        yield
    except ProtocolError as error:
        raise UnavailableError(f"enclave breaks the wire format: {error}") from None
