import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from app.parent.body import MAX_BODY_BYTES
from app.parent.config import ParentConfig
from app.parent.lobby import PLACES
from app.parent.server import _KEPT_ALIVE, _SPARE_THREADS
from app.protocol.frames import encode_frame
from tests.fake_enclave import FRAME, HEADER, FakeEnclave, encode_answer
from tests.patience import PATIENCE_SECONDS, wait_until

ROOT = Path(__file__).parents[2]
CONFIG = ParentConfig(port=0, max_streams=40, body_seconds=1, answer_seconds=900)
CANARY = "canary-91d2"
NONCE_HEX = "c4" * 32
SERVE = """
import socket, sys
from pathlib import Path
from app.parent import server
from app.parent.config import ParentConfig
from app.parent.lobby import PLACES
from app.parent.server import _KEPT_ALIVE, _SPARE_THREADS

def connect():
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(sys.argv[2])
    return stream

class Refuser:
    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/raise":
            raise KeyError(environ["QUERY_STRING"])
        return self.application(environ, start_response)

server._HEADER_SECONDS = 1
server.serve(ParentConfig.from_file(Path(sys.argv[1])), connect, wrap=Refuser)
"""


@dataclass
class Parent:
    """The parent as a process, and the fake enclave behind it."""

    process: subprocess.Popen[bytes]
    enclave: FakeEnclave
    log: Path
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_SECONDS)

    def request(
        self, method: str, path: str, body: bytes | Iterator[bytes] | None = None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_SECONDS)
        with closing(connection):
            connection.request(method, path, body, encode_chunked=True)
            response = connection.getresponse()
            return response, response.read()

    def metric(self, name: str) -> float:
        text = self.request("GET", "/metrics")[1].decode()
        return float(text.split(f"\n{name} ")[1].split("\n")[0])


def wait_for_port(log: Path, process: subprocess.Popen[bytes]) -> int:
    """The port is in the log once the process listens."""
    wait_until(lambda: '"listening"' in log.read_text() or process.poll() is not None)
    listening = [line for line in log.read_text().splitlines() if '"listening"' in line]
    assert listening, log.read_text()
    return int(json.loads(listening[0])["port"])


@contextmanager
def running(folder: Path, config: ParentConfig = CONFIG) -> Iterator[Parent]:
    log, enclave = folder / "log", FakeEnclave()
    (folder / "config").write_text(json.dumps(config.to_dict()))
    arguments = [sys.executable, "-c", SERVE, str(folder / "config"), str(folder / "enclave")]
    with enclave.listening(folder / "enclave"), log.open("wb") as file:
        process = subprocess.Popen(arguments, cwd=ROOT, stderr=file, start_new_session=True)
        try:
            yield Parent(process, enclave, log, wait_for_port(log, process))
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Parent]:
    with running(tmp_path_factory.mktemp("parent")) as parent:
        yield parent


@pytest.fixture
def parent(shared: Parent) -> Parent:
    shared.enclave.hung_up.clear()
    shared.enclave.requests.clear()
    return shared


def listens(parent: Parent) -> bool:
    try:
        parent.connect().close()
    except ConnectionRefusedError:
        return False
    return True


def read_until_closed(stream: socket.socket) -> bytes:
    received = b""
    while data := stream.recv(65536):
        received += data
    return received


def chat_head(length: int) -> bytes:
    return b"POST /v1/chat HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length


@contextmanager
def post(parent: Parent, command: bytes) -> Iterator[http.client.HTTPResponse]:
    """A chat request whose response is read by the caller."""
    connection = http.client.HTTPConnection("127.0.0.1", parent.port, timeout=PATIENCE_SECONDS)
    with closing(connection):
        connection.request("POST", "/v1/chat", command)
        with connection.getresponse() as response:
            yield response


def make_certificate(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "parent")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    paths[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return paths


def test_attestation(parent: Parent) -> None:
    """
    An attestation comes through, with nothing in the headers but what must be there.
    """
    response, body = parent.request("GET", f"/v1/attestation?nonce={NONCE_HEX}")
    assert (response.status, body) == (200, parent.enclave.attestation)
    assert set(response.headers) <= {
        *("Server", "Date", "Connection", "Content-Type", "Content-Length", "Cache-Control"),
    }
    assert response.headers["Server"] == "gunicorn"


def test_frames_come_as_sent(parent: Parent) -> None:
    """
    Each frame is with the client while the enclave still waits to send the next.
    """
    with post(parent, b"steps 5") as response:
        received = response.read(len(encode_frame(HEADER)))
        for _ in range(5):
            parent.enclave.steps.release()
            received += response.read(len(encode_frame(FRAME)))
        assert response.read() == b""
    assert received == encode_answer(5)


@pytest.mark.parametrize("command", [b"frames 10000 0.05", b"silent 1", b"silent 0"])
def test_disconnect_cancels(parent: Parent, command: bytes) -> None:
    """
    A client that hangs up is hung up for at the enclave, frames or none, long before the end.
    """
    cancelled = parent.metric("parent_cancelled_total")
    with parent.connect() as stream:
        stream.sendall(chat_head(len(command)) + command)
        if not command.endswith(b"0"):
            assert stream.recv(100)
        wait_until(lambda: any(one.endswith(command) for one in parent.enclave.requests))
    assert parent.enclave.hung_up.wait(PATIENCE_SECONDS)
    wait_until(lambda: parent.metric("parent_streams") == 0)
    assert parent.metric("parent_cancelled_total") == cancelled + 1


def test_too_long(parent: Parent) -> None:
    """
    A body over the limit is refused by its stated length, before it is read.
    """
    with parent.connect() as stream:
        stream.sendall(chat_head(MAX_BODY_BYTES + 1))
        assert stream.recv(12) == b"HTTP/1.1 413"
    assert parent.enclave.requests == []


def test_too_long_in_chunks(parent: Parent) -> None:
    """
    One of no stated length is refused when it grows over the limit.
    """
    chunks = (bytes(60_000) for _ in range(20))
    response, body = parent.request("POST", "/v1/chat", chunks)
    assert (response.status, body) == (413, b'{"code":"too_long"}\n')
    assert parent.enclave.requests == []


def test_chunks(parent: Parent) -> None:
    """
    A body in chunks under the limit is taken whole.
    """
    response, body = parent.request("POST", "/v1/chat", iter([b"frames 2", b" 0\n", b"more"]))
    assert (response.status, body) == (200, encode_answer(2))


@pytest.mark.parametrize("chunk", [b"zz\r\n", b"3\r\nabcdef\r\n", CANARY.encode()])
def test_malformed_chunks(parent: Parent, chunk: bytes) -> None:
    """
    A body in malformed chunks is a bad request, and is quoted nowhere.
    """
    head = b"POST /v1/chat HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    with parent.connect() as stream:
        stream.sendall(head + chunk)
        stream.shutdown(socket.SHUT_WR)
        answer = read_until_closed(stream)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b'{"code":"bad_request"}\n')


def test_busy(parent: Parent) -> None:
    """
    An enclave without room becomes 429 and a time to wait.
    """
    response, body = parent.request("POST", "/v1/chat", b"hint busy")
    assert (response.status, body) == (429, b'{"code":"busy"}\n')
    assert int(response.headers["Retry-After"]) > 0


def test_broken_off(parent: Parent) -> None:
    """
    An answer that breaks off is a broken transfer, never a whole one.
    """
    with post(parent, b"cut") as response, pytest.raises(http.client.IncompleteRead):
        response.read()


@pytest.mark.parametrize("drip", [b"", b"x"])
def test_slow_body(parent: Parent, drip: bytes) -> None:
    """
    A body that doesn't come in time is cut off, also when single bytes keep coming.
    """
    started = time.monotonic()
    with parent.connect() as stream:
        stream.sendall(chat_head(1000))
        stop = threading.Event()

        def send() -> None:
            with suppress(ConnectionError):  # cut off before this thread is told to stop
                while not stop.wait(0.1):
                    stream.sendall(drip)

        thread = threading.Thread(target=send)
        thread.start()
        assert stream.recv(12) == b"HTTP/1.1 408"
        stop.set()
        thread.join()
    assert time.monotonic() - started > 0.9
    assert parent.enclave.requests == []


def test_slow_headers(parent: Parent) -> None:
    """
    Headers that don't come in time end the connection, also when bytes keep coming.
    """
    started = time.monotonic()
    with parent.connect() as stream:
        stream.sendall(b"GET /healthz HTTP/1.1\r\nX-Drip: ")
        stream.settimeout(0.1)
        received = b"unset"
        with suppress(ConnectionError):  # closed while a byte was on its way
            while received and time.monotonic() - started < PATIENCE_SECONDS:
                try:
                    received = stream.recv(1)
                except TimeoutError:
                    stream.sendall(b"x")
    assert 0.9 < time.monotonic() - started < PATIENCE_SECONDS


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"NONSENSE " + CANARY.encode() + b"\r\n\r\n",
        b"GET /" + CANARY.encode() * 200 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header " + CANARY.encode() + b"\r\n\r\n",
    ],
)
def test_malformed_requests(parent: Parent, request_bytes: bytes) -> None:
    """
    What is not HTTP is refused without being quoted.
    """
    with parent.connect() as stream:
        stream.sendall(request_bytes)
        answer = read_until_closed(stream)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.endswith(b'{"code": "bad_request"}')


def test_failure_on_our_side(parent: Parent) -> None:
    """
    What fails outside the application is 500, and is not quoted either.
    """
    response, body = parent.request("GET", f"/raise?{CANARY}")
    assert (response.status, body) == (500, b'{"code": "internal"}')


def test_parallel_streams(parent: Parent) -> None:
    """
    Thirty answers go on together: none comes further than all others do.
    """
    with ThreadPoolExecutor(30) as pool:
        results = list(
            pool.map(lambda _: parent.request("POST", "/v1/chat", b"together 20 30"), range(30))
        )
    assert {(response.status, body) for response, body in results} == {(200, encode_answer(20))}


def test_keep_alive(parent: Parent) -> None:
    """
    One connection carries an attestation and then a chat.
    """
    with closing(
        http.client.HTTPConnection("127.0.0.1", parent.port, timeout=PATIENCE_SECONDS)
    ) as connection:
        connection.request("GET", f"/v1/attestation?nonce={NONCE_HEX}")
        assert connection.getresponse().read() == parent.enclave.attestation
        first = connection.sock
        connection.request("POST", "/v1/chat", b"frames 1 0")
        assert connection.getresponse().read() == encode_answer(1)
        assert connection.sock is first


def test_logs(parent: Parent) -> None:
    """
    The log has routes and sizes, and nothing of what was asked or who asked.
    """
    command = f"frames 1 0\n{CANARY}".encode()
    parent.request("POST", "/v1/chat", command)
    parent.request("GET", f"/v1/attestation?nonce={NONCE_HEX}")
    parent.request("GET", f"/{CANARY}?{CANARY}")
    wait_until(lambda: f'"received_bytes": {len(command)}' in parent.log.read_text())
    wait_until(lambda: '"status": 404' in parent.log.read_text())
    text = parent.log.read_text()
    assert '"route": "/v1/attestation"' in text
    for secret in (CANARY, NONCE_HEX, "Traceback", "nonce="):
        assert secret not in text


def test_enclave_down(tmp_path: Path) -> None:
    """
    Without an enclave, 503 and a time to wait; and it comes back by itself.
    """
    with running(tmp_path) as parent:
        (tmp_path / "enclave").rename(tmp_path / "elsewhere")
        response, body = parent.request("POST", "/v1/chat", b"frames 1 0")
        assert (response.status, body) == (503, b'{"code":"unavailable"}\n')
        assert int(response.headers["Retry-After"]) > 0
        assert parent.request("GET", "/readyz")[0].status == 503
        assert parent.request("GET", "/healthz")[0].status == 200
        (tmp_path / "elsewhere").rename(tmp_path / "enclave")
        assert parent.request("GET", "/readyz")[0].status == 200


def test_tls(tmp_path: Path) -> None:
    """
    With a certificate it speaks TLS alone, streams, cuts off slow bodies and notices hang-ups.
    """
    certificate, key = make_certificate(tmp_path)
    config = replace(CONFIG, certificate_path=str(certificate), key_path=str(key))
    context = ssl.create_default_context(cafile=certificate)
    with running(tmp_path, config) as parent:
        connection = http.client.HTTPSConnection("127.0.0.1", parent.port, context=context)
        with closing(connection):
            connection.request("POST", "/v1/chat", b"frames 40 0")
            assert connection.getresponse().read() == encode_answer(40)
            connection.request("POST", "/v1/chat", b"silent 1")
            assert connection.getresponse().read(10)
            connection.close()
        assert parent.enclave.hung_up.wait(PATIENCE_SECONDS)
        with context.wrap_socket(parent.connect(), server_hostname="127.0.0.1") as stream:
            stream.sendall(chat_head(10))
            stream.settimeout(PATIENCE_SECONDS)
            with pytest.raises(OSError, match=r"alert|reset"):
                stream.recv(1)
        with parent.connect() as stream:
            stream.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            assert not read_until_closed(stream).startswith(b"HTTP/1.1 200")
        assert "Traceback" not in parent.log.read_text()


def test_graceful_stop(tmp_path: Path) -> None:
    """
    A stop lets the answer under way end, takes no other, and leaves the port free.
    """
    with running(tmp_path) as parent, post(parent, b"steps 20") as response:
        parent.process.terminate()
        wait_until(lambda: not listens(parent))
        for _ in range(20):
            parent.enclave.steps.release()
        assert response.read() == encode_answer(20)
        assert parent.process.wait(PATIENCE_SECONDS) == 0
        with socket.socket() as stream:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind(("127.0.0.1", parent.port))


IDLERS = 3 * (CONFIG.max_streams + _SPARE_THREADS)  # three a thread
IDLE = {
    "a byte": b"G",
    "a part of its headers": b"GET /healthz HTTP/1.1\r\nHost: x\r\n",
    "a part of its second request": b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\nGET",
}


@pytest.mark.parametrize("words", IDLE.values(), ids=IDLE)
def test_idle_connections_hold_nobody_up(parent: Parent, words: bytes) -> None:
    """
    Three times as many connections as there are threads, each with nothing whole to say, delay no
    one; each is closed when its time is over.
    """
    with ExitStack() as stack:
        idle = [stack.enter_context(parent.connect()) for _ in range(IDLERS)]
        for stream in idle:
            stream.sendall(words)
        time.sleep(0.2)
        started = time.monotonic()
        assert parent.request("GET", "/healthz")[0].status == 200
        assert parent.request("GET", "/v1/attestation?nonce=" + NONCE_HEX)[0].status == 200
        assert time.monotonic() - started < 0.8
        for stream in idle:
            read_until_closed(stream)
    assert 0.8 < time.monotonic() - started < 5
    assert parent.request("GET", "/healthz")[0].status == 200


def test_bodies_that_nobody_reads_hold_nobody_up(parent: Parent) -> None:
    """
    A body that is announced where none is read, and never comes, occupies no thread; one that has
    come spares its client another connection.
    """
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(IDLERS):
            stack.enter_context(parent.connect()).sendall(head)
        time.sleep(0.2)
        started = time.monotonic()
        assert parent.request("GET", "/healthz")[0].status == 200
        assert time.monotonic() - started < 0.8
    with closing(http.client.HTTPConnection("127.0.0.1", parent.port)) as connection:
        connection.connect()
        first = connection.sock
        for _ in range(2):
            connection.request("GET", "/healthz", b"nine byte")
            assert connection.getresponse().read()
            assert connection.sock is first


def test_peers_that_never_leave_hold_nobody_up(parent: Parent) -> None:
    """
    Who was answered and keeps the connection open occupies no thread either.
    """
    with ExitStack() as stack:
        for _ in range(IDLERS):
            stream = stack.enter_context(parent.connect())
            stream.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        started = time.monotonic()
        assert parent.request("GET", "/healthz")[0].status == 200
        assert time.monotonic() - started < 0.8


def test_more_idle_connections_than_places(parent: Parent) -> None:
    """
    When the lobby is full, who waits longest leaves, and who comes is served.
    """
    with ExitStack() as stack:
        idle = [stack.enter_context(parent.connect()) for _ in range(PLACES + 8)]
        for stream in idle:
            stream.sendall(b"G")
        started = time.monotonic()
        assert parent.request("GET", "/healthz")[0].status == 200
        assert time.monotonic() - started < 0.8


def test_headers_without_end(parent: Parent) -> None:
    """
    Headers that go on and on are refused, and take no thread to be read.
    """
    with parent.connect() as stream:
        stream.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 40_000)
        assert read_until_closed(stream).startswith(b"HTTP/1.1 400")


def test_idle_handshakes_hold_nobody_up(tmp_path: Path) -> None:
    """
    Under TLS, neither who never begins the handshake nor who never ends it delays anyone.
    """
    certificate, key = make_certificate(tmp_path)
    config = replace(CONFIG, certificate_path=str(certificate), key_path=str(key))
    context = ssl.create_default_context(cafile=certificate)
    hello = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), hello, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    words = hello.read()
    with running(tmp_path, config) as parent, ExitStack() as stack:
        for number in range(IDLERS):
            stream = stack.enter_context(parent.connect())
            stream.sendall(words if number % 2 else words[:50])
        time.sleep(0.2)
        started = time.monotonic()
        connection = http.client.HTTPSConnection("127.0.0.1", parent.port, context=context)
        with closing(connection):
            connection.request("GET", "/healthz")
            assert connection.getresponse().status == 200
        assert time.monotonic() - started < 0.8


def test_kept_connections_leave_room(parent: Parent) -> None:
    """
    Only so many connections are kept for another request; the rest end with their answer.
    """
    with ExitStack() as stack:
        answers = []
        for _ in range(_KEPT_ALIVE + 20):
            stream = stack.enter_context(parent.connect())
            stream.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            answers.append(stream.recv(65536).lower())
        kept = [answer for answer in answers if b"connection: close" not in answer]
        # One that has been answered may not be counted yet when the next is.
        assert len(kept) <= _KEPT_ALIVE + 8
        assert b"connection: keep-alive" in answers[0]
        assert parent.request("GET", "/healthz")[0].status == 200
