import socket
import threading
from collections import deque
from contextlib import closing
from functools import partial

import pytest

from app.parent.relay import attest, health, open_chat
from app.protocol.constants import MAX_FRAME_BYTES, MAX_WRITE_BYTES
from app.protocol.errors import (
    AppError,
    BusyError,
    DeadlineError,
    ProtocolError,
    TruncatedError,
    UnavailableError,
)
from app.protocol.frames import encode_frame
from app.protocol.messages import Kind, encode_hint, encode_message
from tests.fake_enclave import FRAME, HEADER, REPORT, SEALED_ERROR, FakeEnclave, encode_answer
from tests.patience import PATIENCE_SECONDS

NONCE = bytes(range(32))
TINY_FRAMES = {
    "an unknown kind": "00000001ff",
    "a frame of no bytes": "00000000",
    "a frame too long": "00100001",
    "half a frame": "000000108e",
}


@pytest.fixture
def enclave() -> FakeEnclave:
    return FakeEnclave()


def refuse() -> socket.socket:
    raise ConnectionRefusedError


def answer_with(data: bytes) -> socket.socket:
    """A socket whose peer sends *data* whatever is asked, and hangs up."""
    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(data)
    return theirs


def test_attest(enclave: FakeEnclave) -> None:
    """
    The nonce goes in, the attestation's body comes out as it is.
    """
    assert attest(enclave.connect, NONCE) == enclave.attestation
    assert enclave.requests == [encode_message(Kind.ATTEST, NONCE)]


def test_health(enclave: FakeEnclave) -> None:
    """
    The enclave's counts come out.
    """
    assert health(enclave.connect) == REPORT


def test_malformed_health() -> None:
    """
    Counts that are none mean that there is no enclave worth the name.
    """
    message = encode_frame(encode_message(Kind.HEALTH_REPORT, b"\xa0"))
    with pytest.raises(UnavailableError, match="wire format"):
        health(lambda: answer_with(message))


def test_another_kind() -> None:
    """
    An answer to another question is none.
    """
    with pytest.raises(UnavailableError, match="kind 0x82"):
        attest(lambda: answer_with(encode_frame(HEADER)), NONCE)


def test_nobody_there() -> None:
    """
    Whatever keeps the connector from connecting, the enclave is unavailable.
    """
    with pytest.raises(UnavailableError, match="ConnectionRefusedError"):
        attest(refuse, NONCE)


def test_hang_up_without_answer() -> None:
    """
    An enclave that hangs up before it answers is unavailable.
    """
    with pytest.raises(UnavailableError, match="hung up"):
        attest(lambda: answer_with(b""), NONCE)


def test_hint_before_reading() -> None:
    """
    An enclave without room answers and hangs up at once; its hint is not lost.
    """
    hint = encode_frame(encode_hint(BusyError()))
    with pytest.raises(BusyError):
        open_chat(lambda: answer_with(hint), bytes(MAX_FRAME_BYTES - 1), seconds=60)


@pytest.mark.parametrize("frames", [1, 2, 32])
def test_answer(enclave: FakeEnclave, frames: int) -> None:
    """
    All frames come, byte for byte, and then the answer ends.
    """
    request = f"frames {frames} 0".encode()
    with closing(open_chat(enclave.connect, request, seconds=60)) as answer:
        assert b"".join(answer) == encode_answer(frames)


def test_frames_come_as_sent(enclave: FakeEnclave) -> None:
    """
    A frame is given while the enclave still works on the next.
    """
    with closing(open_chat(enclave.connect, b"silent 2", seconds=60)) as answer:
        frames, came = iter(answer), b""
        while len(came) < 2 * len(encode_frame(HEADER)):
            came += next(frames)
        assert came == encode_frame(HEADER) * 2
    assert enclave.hung_up.wait(PATIENCE_SECONDS)


def test_frames_that_come_together_are_given_together() -> None:
    """
    What one read brings leaves in one write, up to the end of the answer and no further.
    """
    whole = encode_answer(20)
    stream = answer_with(whole + encode_frame(HEADER))
    with closing(open_chat(lambda: stream, b"any", seconds=60)) as answer:
        assert list(answer) == [whole]


def test_what_came_whole_before_a_broken_frame_is_given() -> None:
    """
    A frame that breaks the wire format takes none with it that came in the same read.
    """
    good = encode_frame(HEADER) + encode_frame(FRAME)
    for bad in (*TINY_FRAMES.values(), "0000000101"):
        stream, received = answer_with(good + bytes.fromhex(bad)), list[bytes]()
        with (
            closing(open_chat(partial(_same, stream), b"any", seconds=60)) as answer,
            pytest.raises(TruncatedError),
        ):
            received.extend(answer)
        assert b"".join(received) == good


def _same(stream: socket.socket) -> socket.socket:
    return stream


def test_sealed_error(enclave: FakeEnclave) -> None:
    """
    A sealed error is the whole answer; whether it is one, only the client can tell.
    """
    with closing(open_chat(enclave.connect, b"error", seconds=60)) as answer:
        assert list(answer) == [encode_frame(SEALED_ERROR)]


@pytest.mark.parametrize("code", ["busy", "unknown_key", "bad_request", "internal"])
def test_hint(enclave: FakeEnclave, code: str) -> None:
    """
    A hint in place of an answer is raised as the error it names.
    """
    with pytest.raises(AppError) as caught:
        open_chat(enclave.connect, f"hint {code}".encode(), seconds=60)
    assert caught.value.code == code


def test_broken_off(enclave: FakeEnclave) -> None:
    """
    An answer without a last frame is truncated, and what came before is given.
    """
    received: list[bytes] = []
    with (
        closing(open_chat(enclave.connect, b"cut", seconds=60)) as answer,
        pytest.raises(TruncatedError),
    ):
        received.extend(answer)
    assert b"".join(received) == encode_frame(HEADER) + encode_frame(FRAME)


@pytest.mark.parametrize("what", TINY_FRAMES)
def test_broken_wire_format(enclave: FakeEnclave, what: str) -> None:
    """
    An enclave that breaks the wire format is unavailable; that isn't the client's bad request.
    """
    with pytest.raises(UnavailableError) as caught:
        open_chat(enclave.connect, b"raw " + TINY_FRAMES[what].encode(), seconds=60)
    assert not isinstance(caught.value, ProtocolError)


def test_request_within_an_answer(enclave: FakeEnclave) -> None:
    """
    A kind that has no place in an answer truncates it.
    """
    with (
        closing(open_chat(enclave.connect, b"raw 0000000101", seconds=60)) as answer,
        pytest.raises(TruncatedError, match="kind 0x1"),
    ):
        list(answer)


def test_deadline(enclave: FakeEnclave) -> None:
    """
    Time runs out over the whole answer, and the enclave is hung up on.
    """
    with pytest.raises(DeadlineError):
        open_chat(enclave.connect, b"silent", seconds=0.5)
    assert enclave.hung_up.wait(PATIENCE_SECONDS)


def test_deadline_while_sending() -> None:
    """
    An enclave that reads nothing is unavailable when time is up.
    """
    ours, theirs = socket.socketpair()
    with ours, pytest.raises(UnavailableError, match="TimeoutError"):
        open_chat(lambda: theirs, bytes(MAX_FRAME_BYTES - 1), seconds=0.5)


def test_deadline_of_a_busy_answer(enclave: FakeEnclave) -> None:
    """
    Frames that keep coming do not put off the deadline.
    """
    with (
        closing(open_chat(enclave.connect, b"flood", seconds=0.2)) as answer,
        pytest.raises(DeadlineError),
    ):
        deque(answer, maxlen=0)


@pytest.mark.parametrize("parting", [b"", b"more than was asked for"])
def test_client_hangs_up_while_waiting(enclave: FakeEnclave, parting: bytes) -> None:
    """
    With nothing to send to it, a client's hang-up is noticed, and ends the enclave's work.
    """
    ours, client = socket.socketpair()
    client.sendall(parting)
    threading.Timer(0.1, client.close).start()
    with ours, pytest.raises(ConnectionAbortedError):
        open_chat(enclave.connect, b"silent", seconds=5, client=ours)
    assert enclave.hung_up.wait(PATIENCE_SECONDS)


def test_client_hangs_up_between_frames(enclave: FakeEnclave) -> None:
    """
    The same holds after the answer has begun.
    """
    ours, client = socket.socketpair()
    with ours:
        answer = open_chat(enclave.connect, b"silent 1", seconds=5, client=ours)
        client.close()
        with pytest.raises(ConnectionAbortedError):
            list(answer)
        answer.close()
    assert enclave.hung_up.wait(PATIENCE_SECONDS)


def test_writes_are_cut(enclave: FakeEnclave) -> None:
    """
    No write to the enclave is longer than old kernels can take.
    """
    writes: list[int] = []

    class Recording(socket.socket):
        def sendall(self, data: object, *_: object) -> None:
            assert isinstance(data, memoryview)
            writes.append(len(data))
            super().sendall(data)

    def connect() -> socket.socket:
        plain = enclave.connect()
        return Recording(fileno=plain.detach())

    body = b"frames 1 0\n" + bytes(100_000)
    open_chat(connect, body, seconds=60).close()
    assert max(writes) == MAX_WRITE_BYTES
    assert sum(writes) == len(body) + 5
    assert enclave.requests == [encode_message(Kind.CHAT, body)]
