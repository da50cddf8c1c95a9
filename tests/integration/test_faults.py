import gzip
import json
import random
import select
import socket
import struct
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import Final, Literal

import pytest
import urllib3

from app.chatbot.evidence.advice import advise
from app.chatbot.session import transport as chatbot_transport
from app.chatbot.session.cut_off import Stop
from app.chatbot.session.exchange import Exchange
from app.chatbot.session.sealed import SealedQuestion
from app.chatbot.session.session import Session, connect
from app.chatbot.session.transport import Transport
from app.protocol.errors import (
    AppError,
    AttestationError,
    KmsError,
    ProtocolError,
    TruncatedError,
    UnavailableError,
    UnknownKeyError,
)
from app.protocol.frames import encode_frame
from app.protocol.messages import Kind, encode_message
from app.protocol.question import Message, Options, Question
from local.aws.http_endpoint import HttpResponse
from local.aws.sigv4 import HttpRequest
from local.twin.parties import image_weights, start_enclave
from local.twin.twin import DEMO_WEIGHTS, Twin, run_twin
from tests.patience import PATIENCE_SECONDS, wait_until

FAST: Final = Options(padding="off")
PADDED: Final = Options(padding="constant")  # 32 frames or more, whatever the machine does
QUESTION: Final = "How do I book leave?"
BOUND_SECONDS: Final = 100  # for any failure to be told, however slow the machine
READ_SECONDS: Final = 1.5  # instead of the chatbot's 30: its patience, shortened
HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nConnection: close\r\n"
Reply = Callable[[socket.socket], None]
Framing = Literal["length", "shorter length", "chunked", "until close"]


def ask(session: Session) -> str:
    return "".join(session.ask(QUESTION, FAST))


def fail(session: Session, options: Options = FAST) -> tuple[AppError, str]:
    """Ask, and give the error that must come in time, with the text that came before it."""
    started, text = time.monotonic(), ""
    try:
        for piece in session.ask(QUESTION, options):
            text += piece
    except AppError as raised:
        error = raised
    else:
        pytest.fail("what came was taken for whole")
    assert time.monotonic() - started < BOUND_SECONDS
    assert session.evidence is None
    assert session.history == ()
    return error, text


@contextmanager
def serving(converse: Reply) -> Iterator[int]:
    """Let *converse* have each connection to a port of its own, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):
                while True:
                    stream, _ = listener.accept()
                    with stream, suppress(OSError):
                        stream.settimeout(BOUND_SECONDS)
                        converse(stream)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# A parent that answers with any bytes at all.


@dataclass(slots=True)
class Recorded:
    """One request, and the whole answer that it got."""

    sealed: SealedQuestion
    answer: bytes
    ends: tuple[int, ...]  # of its frames
    text: str


@dataclass(slots=True)
class AnyParent:
    """Has one recorded request asked again, and answers it as a test says."""

    session: Session
    recorded: Recorded
    reply: Reply = field(default=lambda _: None)

    def converse(self, stream: socket.socket) -> None:
        """Read the whole request, then reply."""
        got = b""
        while not got.endswith(self.recorded.sealed.request):
            data = stream.recv(65536)
            if not data:
                return
            got += data
        self.reply(stream)

    def answer(self, body: bytes, framing: Framing) -> None:
        """Reply with *body*, which may be a part of the answer, and hang up."""
        whole = len(self.recorded.answer)
        heads: dict[Framing, bytes] = {
            "length": b"Content-Length: %d\r\n\r\n" % whole,
            "shorter length": b"Content-Length: %d\r\n\r\n" % len(body),
            "chunked": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % whole,
            "until close": b"\r\n",
        }
        self.send(HEAD + heads[framing] + body)

    def send(self, *pieces: bytes, then: Reply = lambda _: None) -> None:
        """Reply with bytes of any kind, then do what else is to be done."""

        def reply(stream: socket.socket) -> None:
            for piece in pieces:
                stream.sendall(piece)
            then(stream)

        self.reply = reply


@pytest.fixture(scope="module")
def recorded(twin: Twin) -> Iterator[tuple[Session, Recorded]]:
    """A session and one exchange of it with the true parent."""
    session = twin.connect()
    sealed = session._seal(Question((Message("user", QUESTION),), FAST))
    messages = list(session._transport.post_chat(sealed.request))
    frames = [encode_frame(encode_message(kind, body)) for kind, body in messages]
    ends = tuple(sum(map(len, frames[: number + 1])) for number in range(len(frames)))
    coming = iter(messages)
    header = sealed.open_header(next(coming))
    exchange = Exchange(time.monotonic())
    list(session._open(header, coming, sealed, exchange))
    yield session, Recorded(sealed, b"".join(frames), ends, exchange.text)
    session.close()


@pytest.fixture
def any_parent(
    recorded: tuple[Session, Recorded], monkeypatch: pytest.MonkeyPatch
) -> Iterator[AnyParent]:
    """The recorded request's session, talking to a parent that answers as the test says."""
    session, exchange = recorded
    parent = AnyParent(session, exchange)
    with serving(parent.converse) as port:
        monkeypatch.setattr(chatbot_transport, "_READ_SECONDS", READ_SECONDS)
        transport = Transport(f"http://127.0.0.1:{port}")
        monkeypatch.setattr(session, "_transport", transport)
        monkeypatch.setattr(session, "_seal", lambda _: exchange.sealed)
        session.history = ()
        yield parent
        transport.close()


def test_whole_answer_is_taken(any_parent: AnyParent) -> None:
    """Of all these answers, the one that is whole opens: the tests below cut a good one."""
    for framing in ("length", "shorter length", "until close"):
        any_parent.session.history = ()
        any_parent.answer(any_parent.recorded.answer, framing)
        assert ask(any_parent.session) == any_parent.recorded.text
        assert any_parent.session.evidence is not None


@pytest.mark.parametrize("framing", ["length", "shorter length", "chunked", "until close"])
def test_cut_at_any_byte(any_parent: AnyParent, framing: Framing) -> None:
    """An answer that ends early, wherever and however, is incomplete, and never taken for whole."""
    whole = len(any_parent.recorded.answer)
    places = {0, 1, 3, 4, 5, whole - 1, *random.sample(range(whole), 40)}
    places |= {end + near for end in any_parent.recorded.ends[:-1:4] for near in (-1, 0, 1, 4, 5)}
    for place in sorted(places):
        any_parent.answer(any_parent.recorded.answer[:place], framing)
        error, text = fail(any_parent.session)
        assert isinstance(error, TruncatedError)
        assert any_parent.recorded.text.startswith(text)


@pytest.mark.parametrize("size", [1, 3, 4, 5, 100])
def test_bytes_after_the_final_frame(any_parent: AnyParent, size: int) -> None:
    """Whatever follows the final frame is refused, be it less than a frame."""
    any_parent.answer(any_parent.recorded.answer + bytes([0, 0, 1, 0] * 25)[:size], "until close")
    fail(any_parent.session)


@pytest.mark.parametrize("place", [0, 40, 4000])
def test_silence(any_parent: AnyParent, place: int) -> None:
    """A parent that says nothing more, before the answer or in it, is waited for in bounds."""
    body = HEAD + b"\r\n" + any_parent.recorded.answer[:place]
    any_parent.send(body if place else b"", then=_wait_for_end)
    error, _ = fail(any_parent.session)
    assert isinstance(error, TruncatedError if place else UnavailableError)


@pytest.mark.parametrize("place", [0, 40])
def test_dripping(any_parent: AnyParent, monkeypatch: pytest.MonkeyPatch, place: int) -> None:
    """A parent that sends a byte now and then, in the headers or in the answer, is cut off."""
    monkeypatch.setattr(chatbot_transport, "_ANSWER_SECONDS", 0.7)
    whole = HEAD + b"X-Drip: " if not place else HEAD + b"\r\n" + any_parent.recorded.answer[:place]

    def drip(stream: socket.socket) -> None:
        with suppress(OSError):
            for _ in range(600):
                stream.sendall(b"\0" if place else b"x")
                time.sleep(READ_SECONDS / 10)

    any_parent.send(whole, then=drip)
    error, _ = fail(any_parent.session)
    assert isinstance(error, TruncatedError)


def _wait_for_end(stream: socket.socket) -> None:
    while stream.recv(4096):
        pass


def _reset(stream: socket.socket) -> None:
    """Hang up with a reset in place of an end."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def test_reset(any_parent: AnyParent) -> None:
    """A reset connection is as good as a closed one."""
    any_parent.send(HEAD + b"\r\n" + any_parent.recorded.answer[:9000], then=_reset)
    error, _ = fail(any_parent.session)
    assert isinstance(error, TruncatedError)
    any_parent.send(then=_reset)
    error, _ = fail(any_parent.session)
    assert isinstance(error, UnavailableError)


NOT_HTTP: Final = {
    "nothing": b"",
    "no status": b"\r\n\r\n",
    "noise": bytes(range(256)) * 8,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a status line without end": b"HTTP/1.1 200 " + b"O" * 100_000,
    "too many headers": HEAD + b"".join(b"x-%d: 1\r\n" % n for n in range(300)) + b"\r\n",
    "a long header": HEAD + b"x: " + b"y" * 100_000 + b"\r\n\r\n",
    "a header that is none": HEAD + b"no colon here\r\n\r\n",
    "a negative length": HEAD + b"Content-Length: -1\r\n\r\n",
    "a length that is none": HEAD + b"Content-Length: many\r\n\r\nx",
    "chunks that are none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a negative chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n",
    "an endless chunk size": HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"1" * 100_000,
    "too much in gzip": HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(10**7)),
    "gzip that is none": HEAD + b"Content-Encoding: gzip\r\n\r\nnot gzip at all",
    "deflate that is none": HEAD + b"Content-Encoding: deflate\r\n\r\nnot deflate at all",
    "another encoding": HEAD + b"Content-Encoding: zebra\r\n\r\nwhatever",
    "frames of no length": HEAD + b"\r\n" + bytes(8),
    "frames too long": HEAD + b"\r\n" + b"\xff" * 8,
    "a redirection": b"HTTP/1.1 307 x\r\nLocation: http://127.0.0.1:1/\r\n\r\n",
    "a redirection to nowhere": b"HTTP/1.1 307 x\r\nLocation: http://[\r\n\r\n",
    "no content": b"HTTP/1.1 204 x\r\n\r\n",
    "only continuing": b"HTTP/1.1 100 Continue\r\n\r\n" * 20,
    "an error without JSON": b"HTTP/1.1 500 x\r\n\r\n<h1>Oops</h1>",
    "an error with odd JSON": b'HTTP/1.1 500 x\r\n\r\n{"code": [1]}',
    "an error with deep JSON": b"HTTP/1.1 500 x\r\n\r\n" + b"[" * 1000,
    "an error with half a surrogate": b'HTTP/1.1 500 x\r\n\r\n{"code": "\\ud800"}',
    "an error with a made up code": b'HTTP/1.1 500 x\r\n\r\n{"code": "zebra"}',
    "an error of half a code": b'HTTP/1.1 503 x\r\nContent-Length: 99\r\n\r\n{"code": "bu',
    "an error in bad gzip": b"HTTP/1.1 503 x\r\nContent-Encoding: gzip\r\n\r\nnone",
}


@pytest.mark.parametrize("name", NOT_HTTP)
def test_any_bytes_for_an_answer(any_parent: AnyParent, name: str) -> None:
    """Whatever a parent says in place of an answer becomes an error of ours with advice."""
    any_parent.send(NOT_HTTP[name])
    error, text = fail(any_parent.session)
    assert text == ""
    assert advise(error)


@pytest.mark.parametrize("name", NOT_HTTP)
def test_any_bytes_for_an_attestation(
    twin: Twin, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Whatever a parent says in place of an attestation, nobody gets a session."""

    def converse(stream: socket.socket) -> None:
        stream.recv(65536)
        stream.sendall(NOT_HTTP[name])

    monkeypatch.setattr(chatbot_transport, "_READ_SECONDS", READ_SECONDS)
    access = twin.access()
    with serving(converse) as port:
        transport = Transport(f"http://127.0.0.1:{port}")
        with pytest.raises(AppError):
            connect(transport, access, key_arn=twin.config.key_arn, trust=twin.trust)
        transport.close()
    access.close()


# A network between chatbot and parent that has faults, in bytes of TLS.


@dataclass(slots=True)
class Fault:
    """
    What happens to a connection.

    Attributes:
        up, down: Bytes after which it happens, of those to the parent or of those from it.

        kind: The connection is closed both ways, or reset, or its direction ends alone; or bytes
            are lost from there on; or one is changed.
    """

    kind: Literal["close", "reset", "half-close", "lose", "alter"] = "close"
    up: int | None = None
    down: int | None = None

    @property
    def options(self) -> Options:
        """
        Give what to ask with, so that the fault is reached.

        Without padding, tokens that are made while a frame waits share the next one: a busy
        machine sends 20 frames where an idle one sends 30.
        """
        return PADDED if self.down is not None and self.down >= 9000 else FAST


@dataclass(slots=True)
class Network:
    """Carries each connection to the parent, with one fault or none."""

    port: int
    fault: Fault | None = None

    def converse(self, client: socket.socket) -> None:
        """Carry bytes both ways until one side has ended, or the fault happens."""
        with socket.create_connection(("127.0.0.1", self.port)) as parent:
            pairs = {client: parent, parent: client}
            left = {client: self.fault.up, parent: self.fault.down} if self.fault else {}
            while True:
                for source in select.select(list(pairs), [], [], BOUND_SECONDS)[0]:
                    data = source.recv(1000)
                    if not data or not self._carry(source, pairs[source], data, left):
                        return

    def _carry(
        self,
        source: socket.socket,
        target: socket.socket,
        data: bytes,
        left: dict[socket.socket, int | None],
    ) -> bool:
        room = left.get(source)
        if self.fault is None or room is None or len(data) <= room:
            left[source] = None if room is None else room - len(data)
            target.sendall(data)
            return True
        match self.fault.kind:
            case "alter":
                left[source] = None
                target.sendall(data[:room] + bytes([data[room] ^ 1]) + data[room + 1 :])
                return True
            case "lose":
                target.sendall(data[:room])
                left[source] = 0
                return True
        target.sendall(data[:room])
        if self.fault.kind == "reset":
            _reset(target)
        elif self.fault.kind == "half-close":
            target.shutdown(socket.SHUT_WR)
            target.settimeout(READ_SECONDS)
            with suppress(TimeoutError):
                _wait_for_end(target)
        return False


FAULTS: Final = [
    *(Fault("close", down=place) for place in (0, 1, 90, 1500, 3000, 9000, 30_000)),
    *(Fault("reset", down=place) for place in (0, 1500, 9000)),
    *(Fault("half-close", down=place) for place in (0, 1500, 9000)),
    *(Fault("lose", down=place) for place in (1500, 9000)),
    *(Fault("alter", down=place) for place in (0, 100, 1500, 9000)),
    *(Fault("close", up=place) for place in (0, 1, 300, 700, 5000, 9000)),
    *(Fault("reset", up=place) for place in (300, 5000)),
    *(Fault("half-close", up=place) for place in (300, 5000)),
    *(Fault("lose", up=place) for place in (5000,)),
    *(Fault("alter", up=place) for place in (0, 300, 5000)),
]


@pytest.fixture(scope="module")
def network(twin: Twin) -> Iterator[tuple[Network, Session]]:
    """A session with the true parent over a network whose faults tests choose."""
    network = Network(int(twin.config.url.rpartition(":")[2]))
    with pytest.MonkeyPatch.context() as patch, serving(network.converse) as port:
        patch.setattr(chatbot_transport, "_READ_SECONDS", 3 * READ_SECONDS)
        transport = Transport(f"https://127.0.0.1:{port}", tls_ca=twin.config.tls_ca)
        patch.undo()
        access = twin.access()
        session = connect(transport, access, key_arn=twin.config.key_arn, trust=twin.trust)
        ask(session)
        yield network, session
        session.close()


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_faults_of_the_network(network: tuple[Network, Session], fault: Fault) -> None:
    """A fault at any place is an error in time; the next question on the session is answered."""
    carrier, session = network
    session.history = ()
    session._transport.close()  # the next question comes on a connection of its own
    carrier.fault = fault
    error, _ = fail(session, fault.options)
    assert isinstance(error, TruncatedError | UnavailableError | ProtocolError)
    session._transport.close()
    carrier.fault = None
    assert ask(session)
    assert session.evidence is not None


def test_slow_network(network: tuple[Network, Session], monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that comes in small pieces, each late, is an answer."""
    _, session = network
    session.history = ()
    session._transport.close()
    monkeypatch.setattr(Network, "_carry", _carry_slowly)
    assert ask(session)
    assert session.evidence is not None


def _carry_slowly(
    _: Network, __: socket.socket, target: socket.socket, data: bytes, ___: object
) -> bool:
    for start in range(0, len(data), 400):
        time.sleep(0.002)
        target.sendall(data[start : start + 400])
    return True


# KMS that fails, seen from the enclave.


@contextmanager
def failing_kms(twin: Twin, *responses: HttpResponse | None) -> Iterator[list[str]]:
    """
    Answer the enclave's calls to KMS with *responses*, one after the other, None being the truth.

    Gives a list of the actions that it called, growing.
    """
    truth = twin.aws._respond_kms
    coming = iter(responses)
    called: list[str] = []

    def respond(request: HttpRequest) -> HttpResponse:
        if b'"Recipient"' not in request.body:
            return truth(request)
        called.append(request.headers["x-amz-target"].rpartition(".")[2])
        return next(coming, None) or truth(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twin.aws, "_respond_kms", respond)
        yield called


def _error(status: int, code: str) -> HttpResponse:
    body = json.dumps({"__type": code, "message": "zebra"}).encode()
    return HttpResponse(status, "application/x-amz-json-1.1", body)


THROTTLED: Final = _error(400, "ThrottlingException")
BROKEN: Final = _error(500, "KMSInternalException")
UNREADABLE: Final = HttpResponse(200, "application/x-amz-json-1.1", b"{")
EMPTY: Final = HttpResponse(200, "application/x-amz-json-1.1", b"")
LACKING: Final = HttpResponse(200, "application/x-amz-json-1.1", b"{}")


@pytest.mark.parametrize("response", [THROTTLED, BROKEN], ids=["throttled", "broken"])
def test_kms_that_fails_once(twin: Twin, session: Session, response: HttpResponse) -> None:
    """A call that KMS throttles or breaks is tried again, and the asker notices nothing."""
    with failing_kms(twin, response) as called:
        assert ask(session)
    assert called == ["Decrypt", "Decrypt", "GenerateDataKey"]


@pytest.mark.parametrize(
    "responses",
    [[THROTTLED] * 3, [BROKEN] * 3, [EMPTY] * 3, [UNREADABLE], [LACKING], [None, LACKING]],
    ids=["throttled", "broken", "empty", "unreadable", "lacking", "lacking an answer key"],
)
def test_kms_that_fails(
    twin: Twin, session: Session, responses: Sequence[HttpResponse | None]
) -> None:
    """A KMS that keeps failing is named as such, in time; the next question is answered."""
    with failing_kms(twin, *responses) as called:
        error, text = fail(session)
        assert len(called) == len(responses)
    assert isinstance(error, KmsError)
    assert text == ""
    assert ask(session)


# Clocks that disagree.


@pytest.mark.parametrize("hours", [-1, 1])
def test_clock_skew_is_named(twin: Twin, monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """A document dated an hour off is refused, and the advice is to set the clock."""
    monkeypatch.setattr(twin.nsm, "_timestamp_offset", timedelta(hours=hours))
    access, transport = twin.access(), twin.transport()
    with pytest.raises(AttestationError, match="clock") as raised:
        connect(transport, access, key_arn=twin.config.key_arn, trust=twin.trust)
    assert "NTP" in advise(raised.value)
    transport.close()
    access.close()


# An enclave that dies and comes back.


@dataclass(slots=True)
class Forgetful:
    """A parent that says of every request that its key is gone, and counts."""

    asked: int = 0
    posted: list[bytes] = field(default_factory=list)

    def transport(self, twin: Twin) -> Transport:
        """Give a transport through this parent."""
        counts = self

        class Counting(Transport):
            def get_attestation(self, nonce: bytes) -> bytes:
                counts.asked += 1
                return super().get_attestation(nonce)

            def post_chat(
                self, sealed: bytes, stop: Stop | None = None
            ) -> Generator[tuple[Kind, bytes]]:
                del stop
                counts.posted.append(sealed)
                yield Kind.HINT, UnknownKeyError.code.encode()

        return Counting(twin.config.url, tls_ca=twin.config.tls_ca)


def test_key_that_is_always_unknown(twin: Twin) -> None:
    """A client attests and seals anew three times, each time to a fresh document, then gives up."""
    parent, access = Forgetful(), twin.access()
    transport = parent.transport(twin)
    session = connect(transport, access, key_arn=twin.config.key_arn, trust=twin.trust)
    error, _ = fail(session)
    session.close()
    assert isinstance(error, UnknownKeyError)
    assert parent.asked == 3
    assert len(set(parent.posted)) == 3


def _get(twin: Twin, path: str) -> urllib3.BaseHTTPResponse:
    with urllib3.PoolManager(
        ca_certs=twin.config.tls_ca, retries=False, timeout=PATIENCE_SECONDS
    ) as pool:
        return pool.request("GET", twin.config.url + path)


def test_enclave_dies_and_comes_back(tmp_path_factory: pytest.TempPathFactory) -> None:
    """
    While it is away the parent says 503 and when to retry; then the same session goes on.

    It goes on after another full verification only, since the new enclave has another key.
    """
    with run_twin(tmp_path_factory.mktemp("dies")) as twin, ExitStack() as stack:
        session = twin.connect()
        assert ask(session)
        before = session.enclave
        twin.enclave.kill()
        for path in ("/readyz", f"/v1/attestation?nonce={bytes(32).hex()}"):
            response = _get(twin, path)
            assert response.status == HTTPStatus.SERVICE_UNAVAILABLE
            assert int(response.headers["Retry-After"]) > 0
        session.history = ()
        error, _ = fail(session)
        assert isinstance(error, UnavailableError)
        held = image_weights(twin.folder, DEMO_WEIGHTS, inside=False)
        start_enclave(stack, twin.folder, twin.sockets, held)
        wait_until(lambda: _get(twin, "/readyz").status == HTTPStatus.OK)
        seen = len(list(twin.parent_saw.glob("*.request")))
        assert ask(session)
        assert session.enclave.public_key != before.public_key
        assert session.enclave.verified_at > before.verified_at
        assert len(list(twin.parent_saw.glob("*.request"))) == seen + 2
        session.close()
