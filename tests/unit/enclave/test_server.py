import errno
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from app.enclave import answering, server
from app.enclave.answering import Answerer
from app.enclave.server import Server
from app.protocol.asker.attestation import require_user_data, verify_attestation
from app.protocol.asker.manifest import parse_manifest
from app.protocol.asker.messages import parse_attestation, parse_health
from app.protocol.constants import FRAME_COUNT_BUCKETS, MAX_QUESTION_BYTES
from app.protocol.errors import BusyError, EngineError, NsmError
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.manifest import Manifest
from app.protocol.messages import HealthReport, Kind, encode_hint, encode_message, parse_message
from app.protocol.question import Options, Padding
from tests.patience import PATIENCE_SECONDS, wait_until
from tests.samples import make_question
from tests.scripted import (
    MANIFEST,
    Asker,
    ScriptedEngine,
    ScriptedGeneration,
    ScriptedKms,
    make_answerer,
)
from tests.support import make_nsm_client, twin_root

NONCE = b"\x11" * 32
ATTEST = encode_message(Kind.ATTEST, NONCE)
HEALTH = encode_message(Kind.HEALTH)


def make_server(answerer: Answerer, manifest: Manifest) -> Server:
    """Give a server whose model is loaded."""
    made = Server(manifest, lambda: (5, 7))
    made.answerer = answerer
    return made


class Enclave:
    """A server on a Unix socket, and its peers."""

    def __init__(self, path: Path, engine: ScriptedEngine, answerer: Answerer) -> None:
        self.path, self.engine, self.answerer = path, engine, answerer
        self.server = make_server(answerer, MANIFEST)
        self.stop = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(128)
        self.thread = threading.Thread(
            target=self.server.serve, args=(self.listener, self.stop), daemon=True
        )

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.settimeout(PATIENCE_SECONDS)
            peer.connect(str(self.path))
        except OSError:
            peer.close()
            raise
        return peer

    def ask(self, message: bytes) -> list[bytes]:
        """Send one message and give all that comes back before the enclave hangs up."""
        with self.connect() as peer:
            with suppress(BrokenPipeError, ConnectionResetError):  # who has no room reads nothing
                peer.sendall(encode_frame(message))
            return read_all(peer)

    def health(self) -> HealthReport:
        [message] = self.ask(HEALTH)
        kind, body = parse_message(message)
        assert kind is Kind.HEALTH_REPORT
        return parse_health(body)

    def asker(self, *, text: str = "Who reads this?", padding: Padding = "constant") -> Asker:
        """Seal a question to the key that serves now."""
        question = make_question(text, Options(padding=padding))
        return Asker(self.answerer.key_ring.public_key(), question)

    def started(self) -> ScriptedGeneration:
        """Wait for the first answer to begin."""
        wait_until(lambda: self.engine.generations)
        return self.engine.generations[0]


def read_all(peer: socket.socket) -> list[bytes]:
    """Read messages to the end of the stream."""
    reader, messages = FrameReader(), list[bytes]()
    with suppress(ConnectionResetError):
        while data := peer.recv(65_536):
            messages += reader.feed(data)
    reader.finish()
    return messages


@pytest.fixture(autouse=True)
def fast_beat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "BEAT_SECONDS", 0.001)


@pytest.fixture
def engine() -> ScriptedEngine:
    return ScriptedEngine()


@pytest.fixture
def enclave(tmp_path: Path, engine: ScriptedEngine) -> Iterator[Enclave]:
    serving = Enclave(tmp_path / "enclave", engine, make_answerer(engine, ScriptedKms()))
    serving.thread.start()
    yield serving
    serving.stop.set()
    serving.thread.join(PATIENCE_SECONDS)
    for generation in engine.generations:
        generation.cancel()
    free = serving.server._free
    wait_until(lambda: free._value == free._initial_value)  # type: ignore[attr-defined]


def test_attest(enclave: Enclave) -> None:
    """
    An attest message gets a document over its nonce, the key to seal to, and the manifest.
    """
    [message] = enclave.ask(ATTEST)
    kind, body = parse_message(message)
    assert kind is Kind.ATTESTATION
    document, manifest = parse_attestation(body)
    attestation = verify_attestation(
        document, root=twin_root().certificate, now=datetime.now(UTC), nonce=NONCE
    )
    require_user_data(attestation, kind="attest", digest=MANIFEST.digest)
    assert attestation.public_key == enclave.answerer.key_ring.public_key()
    assert parse_manifest(manifest) == MANIFEST


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_chat(enclave: Enclave, padding: Padding) -> None:
    """
    A sealed question gets its answer, its receipt, and the end of the connection.
    """
    asker = enclave.asker(padding=padding)
    text, receipt = asker.read(enclave.ask(asker.message))
    assert text == "Nobody but you."
    assert receipt.finish == "stop"
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 1, 0))


def test_large_question(enclave: Enclave) -> None:
    """
    A question that fills the largest bucket arrives whole.
    """
    text = "a" * (MAX_QUESTION_BYTES - 400)
    asker = enclave.asker(text=text)
    assert len(asker.request) > 256 * 1024
    asker.read(enclave.ask(asker.message))
    assert enclave.engine.questions[0].messages[-1].text == text


def test_hints(enclave: Enclave) -> None:
    """
    A replay and a request that does not open get a hint, and the connection ends.
    """
    asker = enclave.asker()
    enclave.ask(asker.message)
    assert enclave.ask(asker.message) == [b"\x8ereplayed"]
    assert enclave.ask(enclave.asker().message[:-1]) == [b"\x8ebad_request"]
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 1, 0, refused=2))


@pytest.mark.parametrize(
    "stream",
    [
        encode_frame(b"\x00"),
        encode_frame(b"\x04"),
        encode_frame(bytes([Kind.ANSWER_HEADER])),
        encode_frame(bytes([Kind.HINT])),
        encode_frame(ATTEST[:-1]),
        encode_frame(ATTEST + b"\0"),
        encode_frame(HEALTH) + b"\0",
        encode_frame(HEALTH) * 2,
        bytes(4),
        b"\xff\xff\xff\xff",
        b"GET / HTTP/1.1\r\nHost: enclave\r\n\r\n",
    ],
    ids=range(11),
)
def test_other_than_a_request(enclave: Enclave, stream: bytes) -> None:
    """
    Whatever is not one request gets a hint, and the connection ends.
    """
    with enclave.connect() as peer:
        peer.sendall(stream)
        assert read_all(peer) == [b"\x8ebad_request"]
    assert enclave.health() == HealthReport(0, 0, 0, 0)


@pytest.mark.parametrize("sent", [b"", b"\0", encode_frame(ATTEST)[:-1]])
def test_hung_up_before_the_request(enclave: Enclave, sent: bytes) -> None:
    """
    Who connects and leaves costs nothing.
    """
    with enclave.connect() as peer:
        peer.sendall(sent)
    enclave.health()


def test_nsm_fails(engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    When the NSM fails, the hint is `internal` and nothing more.
    """

    def fail(**_: object) -> bytes:
        raise NsmError("CANARY")

    nsm = make_nsm_client()
    monkeypatch.setattr(nsm, "attest", fail)
    enclave = Enclave(tmp_path / "enclave", engine, make_answerer(engine, ScriptedKms(), nsm))
    enclave.thread.start()
    assert enclave.ask(ATTEST) == [b"\x8einternal"]
    enclave.stop.set()
    enclave.thread.join(PATIENCE_SECONDS)


@pytest.mark.parametrize("padding", ["constant", "off"])
def test_hang_up_cancels(
    enclave: Enclave, padding: Padding, capfd: pytest.CaptureFixture[str]
) -> None:
    """
    When the peer hangs up while the model thinks, the generation is cancelled within a second.
    """
    enclave.engine.pieces, enclave.engine.reason = [], None
    asker = enclave.asker(padding=padding)
    with enclave.connect() as peer:
        peer.sendall(encode_frame(asker.message))
        generation = enclave.started()
        time.sleep(0.05)
        assert not generation.cancelled.is_set()
    assert generation.cancelled.wait(PATIENCE_SECONDS)
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 0, 0, refused=1))
    wait_until(lambda: '"hung_up"' in capfd.readouterr().err)  # which is told last, in one line


def test_talking_after_the_request(enclave: Enclave) -> None:
    """
    A peer that says more than its one request is hung up on.
    """
    enclave.engine.pieces, enclave.engine.reason = [], None
    with enclave.connect() as peer:
        peer.sendall(encode_frame(enclave.asker(padding="off").message))
        generation = enclave.started()
        peer.sendall(encode_frame(HEALTH))
        assert generation.cancelled.wait(PATIENCE_SECONDS)
        assert [message[0] for message in read_all(peer)] == [Kind.ANSWER_HEADER]


def test_eight_at_once(enclave: Enclave) -> None:
    """
    Eight conversations with a slow model all make progress, each at its own pace.
    """
    enclave.engine.pieces, enclave.engine.seconds = ["word "] * 10, 0.2
    askers = [enclave.asker(padding="constant" if n % 2 else "off") for n in range(8)]
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(enclave.ask, [asker.message for asker in askers]))
    assert time.monotonic() - started < 8 * 10 * 0.2
    for asker, messages in zip(askers, answers, strict=True):
        assert asker.read(messages)[0] == "word " * 10
    assert len(answers[1]) - 1 in FRAME_COUNT_BUCKETS


def test_answers_reach_their_own_askers(enclave: Enclave) -> None:
    """
    Good, replayed and broken requests at once: each gets its own answer, and no other opens it.
    """
    askers = [enclave.asker() for _ in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(enclave.ask, [asker.message for asker in askers]))
        again = list(pool.map(enclave.ask, [asker.message for asker in askers]))
    for asker, messages in zip(askers, answers, strict=True):
        asker.read(messages)
    assert again == [[b"\x8ereplayed"]] * 12


def test_waiting_is_counted(enclave: Enclave, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Requests beyond the model's slots count as waiting.
    """
    monkeypatch.setattr(server, "MAX_ACTIVE_ANSWERS", 2)
    enclave.engine.reason = None
    peers = [enclave.connect() for _ in range(3)]
    for peer in peers:
        peer.sendall(encode_frame(enclave.asker().message))
    wait_until(lambda: enclave.health() == HealthReport(2, 1, 0, 0))
    for peer in peers:
        peer.close()
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 0, 0, refused=3))


def test_no_room(engine: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A connection too many gets `busy` at once, even one that sends a large request or nothing;
    room comes back when one of the others ends.
    """
    monkeypatch.setattr(server, "MAX_CONNECTIONS", 2)
    enclave = Enclave(tmp_path / "enclave", engine, make_answerer(engine, ScriptedKms()))
    enclave.thread.start()
    idle = [enclave.connect(), enclave.connect()]
    time.sleep(0.1)
    with enclave.connect() as peer:
        assert read_all(peer) == [b"\x8ebusy"]
    assert enclave.ask(enclave.asker(text="a" * 200_000).message) == [b"\x8ebusy"]
    idle[0].close()
    wait_until(lambda: parse_message(enclave.ask(HEALTH)[0])[0] is Kind.HEALTH_REPORT)
    idle[1].close()
    enclave.stop.set()
    enclave.thread.join(PATIENCE_SECONDS)


def test_stop(tmp_path: Path, engine: ScriptedEngine) -> None:
    """
    A stopped server accepts nobody, and its listener is closed.
    """
    enclave = Enclave(tmp_path / "enclave", engine, make_answerer(engine, ScriptedKms()))
    enclave.thread.start()
    enclave.health()
    enclave.stop.set()
    enclave.thread.join(PATIENCE_SECONDS)
    assert not enclave.thread.is_alive()
    assert enclave.listener.fileno() == -1
    with pytest.raises(ConnectionRefusedError):
        enclave.connect()


class AbortingListener:
    """A listener whose first caller has left before being let in."""

    def __init__(self, stop: threading.Event) -> None:
        self.stop, self.calls = stop, 0

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        assert seconds < 1

    def accept(self) -> tuple[socket.socket, object]:
        self.calls += 1
        if self.calls == 1:
            raise ConnectionAbortedError
        self.stop.set()
        raise TimeoutError


def test_aborted_connection(engine: ScriptedEngine) -> None:
    """
    A caller who leaves before being let in does not stop the server.
    """
    stop = threading.Event()
    listener = AbortingListener(stop)
    server = make_server(make_answerer(engine, ScriptedKms()), MANIFEST)
    server.serve(cast("socket.socket", listener), stop)
    assert listener.calls == 2


def test_events(enclave: Enclave, capfd: pytest.CaptureFixture[str]) -> None:
    """
    What is reported of answers is that there was one: no length, no count of tokens.

    One that ends in an error counts as an answer: padding hides that, and so do the counts.
    """
    asker = enclave.asker()
    enclave.ask(asker.message)
    enclave.ask(asker.message)
    enclave.engine.reason = "error"
    enclave.ask(enclave.asker().message)
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 2, 0, refused=1))
    out, err = capfd.readouterr()
    events = [json.loads(line) for line in err.splitlines()]
    assert out == ""
    assert [event["event"] for event in events] == ["answered", "refused", "answered"]
    assert all(set(event) == {"at", "event"} for event in events)


def test_crash_ends_one_connection(enclave: Enclave, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A failure that nobody foresaw ends its connection without a word, and frees its place.
    """
    crashes: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: crashes.append(args.exc_type))
    enclave.engine.refusal = ValueError("CANARY")
    assert enclave.ask(enclave.asker().message) == []
    enclave.engine.refusal = None
    asker = enclave.asker()
    asker.read(enclave.ask(asker.message))
    assert crashes == [ValueError]
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 1, 1))


def test_only_opened_questions_fail(enclave: Enclave) -> None:
    """
    Whoever reaches the port can bring refused requests; failed ones take an open question.
    """
    for body in (b"", b"\0", b"\1" * 1000, Asker(secrets.token_bytes(32)).request):
        enclave.ask(bytes([Kind.CHAT]) + body)
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 0, 0, refused=4))
    enclave.engine.refusal = BusyError()
    enclave.ask(enclave.asker().message)
    wait_until(lambda: enclave.health() == HealthReport(0, 0, 0, 1, refused=4))


def test_manifest_is_attested(engine: ScriptedEngine, tmp_path: Path) -> None:
    """
    What is attested is the manifest that is sent along.
    """
    enclave = Enclave(tmp_path / "enclave", engine, make_answerer(engine, ScriptedKms()))
    enclave.server = make_server(enclave.answerer, replace(MANIFEST, model="another"))
    answer = enclave.server._attest(enclave.answerer, NONCE)
    _, manifest = parse_attestation(answer[1:])
    assert parse_manifest(manifest).model == "another"
    enclave.listener.close()


def test_no_thread_to_be_had(enclave: Enclave, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Where the system gives no thread, that connection is told to come again; the next is served.
    """

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        assert enclave.ask(HEALTH) == [encode_hint(BusyError())]
    assert enclave.health().active == 0


def test_dead_engine_ends_the_server(enclave: Enclave, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An engine that can answer nothing any more ends the program, so that a new one is started.
    """
    raised: list[type[BaseException] | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: raised.append(args.exc_type))
    enclave.engine.alive = False
    enclave.thread.join(PATIENCE_SECONDS)
    assert raised == [EngineError]


class Exhausted(socket.socket):
    """A listener that once finds no descriptor for who comes."""

    refused = False

    def accept(self) -> tuple[socket.socket, object]:
        if not self.refused:
            self.refused = True
            raise OSError(errno.EMFILE, "Too many open files")
        return super().accept()


def test_no_descriptor_to_be_had(tmp_path: Path, engine: ScriptedEngine) -> None:
    """
    Out of descriptors it waits for some to come back, and serves on.
    """
    serving = Enclave(tmp_path / "exhausted", engine, make_answerer(engine, ScriptedKms()))
    serving.listener = Exhausted(fileno=serving.listener.detach())
    thread = threading.Thread(target=serving.server.serve, args=(serving.listener, serving.stop))
    thread.start()
    assert serving.health().active == 0
    serving.stop.set()
    thread.join(PATIENCE_SECONDS)
    assert serving.listener.refused


def test_while_weights_come_in(enclave: Enclave) -> None:
    """
    Until the model is loaded health alone is answered, and says how far it is.
    """
    enclave.server.answerer = None
    assert enclave.health() == HealthReport(0, 0, 0, 0, 0, loading=(5, 7))
    busy = encode_hint(BusyError())
    assert enclave.ask(ATTEST) == [busy]
    assert enclave.ask(encode_message(Kind.CHAT, bytes(100))) == [busy]
    enclave.server.answerer = enclave.answerer
    assert enclave.health().loading is None
    [attestation] = enclave.ask(ATTEST)
    assert attestation[0] == Kind.ATTESTATION
