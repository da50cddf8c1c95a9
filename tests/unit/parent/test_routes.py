import json
import logging
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.parent.body import MAX_BODY_BYTES
from app.parent.config import ParentConfig
from app.parent.relay import Connect
from app.parent.routes import create_app
from app.protocol.constants import MAX_WRITE_BYTES
from app.protocol.errors import TruncatedError
from app.protocol.messages import Kind, encode_message
from tests import fake_enclave
from tests.fake_enclave import REPORT, FakeEnclave, encode_answer

CONFIG = ParentConfig(max_streams=2, answer_seconds=60, body_seconds=1)
NONCE_HEX = "5e" * 32
CANARY = "canary-7f3a"


class Client(FlaskClient):
    """Ends each response, as a server does, unless told not to buffer."""

    def open(
        self,
        *args: object,
        buffered: bool = True,
        follow_redirects: bool = False,
        **kwargs: object,
    ) -> TestResponse:
        return super().open(*args, buffered=buffered, follow_redirects=follow_redirects, **kwargs)


class Broken:
    """A request body whose reading fails, quoting itself."""

    def read(self, _: int) -> bytes:
        raise OSError(CANARY)


@pytest.fixture
def enclave() -> FakeEnclave:
    return FakeEnclave()


@pytest.fixture
def client(enclave: FakeEnclave) -> FlaskClient:
    return make_client(enclave.connect)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.INFO)
    return lambda: caplog.messages


def make_client(connect: Connect) -> FlaskClient:
    return Client(create_app(CONFIG, connect))


def refuse() -> socket.socket:
    raise ConnectionRefusedError(CANARY)


def fail() -> socket.socket:
    raise KeyError(CANARY)


def code_of(response: TestResponse) -> str:
    assert response.mimetype == "application/json"
    body = response.get_json()
    assert list(body) == ["code"]
    return str(body["code"])


def metric(client: FlaskClient, name: str) -> float:
    for line in client.get("/metrics").text.splitlines():
        if line.startswith(name + " "):
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(name)


def test_attestation(client: FlaskClient, enclave: FakeEnclave) -> None:
    """
    A nonce in hex becomes an attest message, whose answer is passed on unread and uncached.
    """
    response = client.get(f"/v1/attestation?nonce={NONCE_HEX}")
    assert (response.status_code, response.data) == (200, enclave.attestation)
    assert response.mimetype == "application/cbor"
    assert response.headers["Cache-Control"] == "no-store"
    assert enclave.requests == [encode_message(Kind.ATTEST, bytes.fromhex(NONCE_HEX))]


@pytest.mark.parametrize(
    "query",
    [
        "",
        "?nonce=",
        "?nonce=00",
        f"?nonce={NONCE_HEX}00",
        f"?nonce={'zz' * 32}",
        f"?nonce={NONCE_HEX}&nonce={NONCE_HEX}",
        f"?nonce=%20{NONCE_HEX[1:]}",
    ],
)
def test_malformed_nonces(client: FlaskClient, enclave: FakeEnclave, query: str) -> None:
    """
    Anything but 64 hex digits, once, is refused here.
    """
    response = client.get(f"/v1/attestation{query}")
    assert (response.status_code, code_of(response)) == (400, "bad_request")
    assert enclave.requests == []


def test_chat(client: FlaskClient, enclave: FakeEnclave) -> None:
    """
    A body becomes a chat message; the answer's frames are the response, for nobody to buffer.
    """
    body = b"frames 32 0\n" + bytes(2 * MAX_WRITE_BYTES)
    response = client.post("/v1/chat", data=body)
    assert (response.status_code, response.data) == (200, encode_answer(32))
    assert response.mimetype == "application/octet-stream"
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Accel-Buffering"] == "no"
    assert "Set-Cookie" not in response.headers
    assert enclave.requests == [encode_message(Kind.CHAT, body)]


@pytest.mark.parametrize(
    ("code", "status", "retry"),
    [
        ("busy", 429, True),
        ("unknown_key", 409, False),
        ("bad_request", 400, False),
        ("too_long", 413, False),
        ("replayed", 503, True),
        ("sealed", 503, True),
        ("internal", 503, True),
    ],
)
def test_hints(client: FlaskClient, code: str, status: int, *, retry: bool) -> None:
    """
    A hint that comes first becomes a status, as SPEC.md 2.2 has it.
    """
    response = client.post("/v1/chat", data=f"hint {code}")
    assert (response.status_code, code_of(response)) == (status, code)
    assert ("Retry-After" in response.headers) is retry
    assert metric(client, f'parent_upstream_failures_total{{code="{code}"}}') == 1


def test_broken_off(client: FlaskClient) -> None:
    """
    An answer that breaks off breaks the response off, rather than ending it well.
    """
    with pytest.raises(TruncatedError):
        client.post("/v1/chat", data="cut")
    assert metric(client, 'parent_upstream_failures_total{code="truncated"}') == 1
    assert metric(client, "parent_streams") == 0


def test_enclave_down() -> None:
    """
    Without an enclave the process is alive, not ready, and says when to try again.
    """
    client = make_client(refuse)
    assert client.get("/healthz").status_code == 200
    for response in (
        client.get("/readyz"),
        client.get(f"/v1/attestation?nonce={NONCE_HEX}"),
        client.post("/v1/chat", data="frames 1 0"),
    ):
        assert (response.status_code, code_of(response)) == (503, "unavailable")
        assert int(response.headers["Retry-After"]) > 0
    assert metric(client, "enclave_up") == 0
    assert "enclave_active" not in client.get("/metrics").text


def test_not_ready_while_loading(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An enclave that still takes in its weights answers, and is not ready.
    """
    monkeypatch.setattr(fake_enclave, "REPORT", replace(REPORT, loading=(1, 4)))
    response = client.get("/readyz")
    assert (response.status_code, response.get_json()) == (503, {"code": "unavailable"})
    metrics = client.get("/metrics").get_data(as_text=True)
    assert "enclave_loading_done_bytes 1.0" in metrics
    assert "enclave_loading_bytes 4.0" in metrics


def test_ready(client: FlaskClient) -> None:
    """
    With an enclave that answers, the parent is ready.
    """
    assert client.get("/readyz").get_json() == {"status": "ready"}


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/chat/", "/static/x", f"/{CANARY}"])
def test_other_routes(client: FlaskClient, path: str) -> None:
    """
    There is nothing else.
    """
    response = client.get(path)
    assert (response.status_code, code_of(response)) == (404, "bad_request")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1/chat", {"POST"}),
        ("OPTIONS", "/v1/chat", {"POST"}),
        ("POST", "/healthz", {"GET", "HEAD"}),
        ("DELETE", "/v1/attestation", {"GET", "HEAD"}),
    ],
)
def test_other_methods(client: FlaskClient, method: str, path: str, allow: set[str]) -> None:
    """
    Each route has one method.
    """
    response = client.open(path, method=method)
    assert (response.status_code, code_of(response)) == (405, "bad_request")
    assert set(response.allow) == allow


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ({}, b"", 411, "bad_request"),
        ({"CONTENT_LENGTH": "0"}, b"", 400, "bad_request"),
        ({"CONTENT_LENGTH": "-1"}, b"", 400, "bad_request"),
        ({"CONTENT_LENGTH": "5"}, b"abc", 400, "bad_request"),
        ({"CONTENT_LENGTH": str(MAX_BODY_BYTES + 1)}, b"", 413, "too_long"),
        ({"CONTENT_LENGTH": "9" * 5000}, b"", 413, "too_long"),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, b"", 400, "bad_request"),
        ({"HTTP_TRANSFER_ENCODING": "chunked"}, bytes(MAX_BODY_BYTES + 1), 413, "too_long"),
    ],
)
def test_malformed_bodies(
    client: FlaskClient,
    enclave: FakeEnclave,
    headers: dict[str, str],
    body: bytes,
    status: int,
    code: str,
) -> None:
    """
    A body that is missing, empty, short or too long goes nowhere.
    """
    environ = {"CONTENT_LENGTH": "", **headers}
    response = client.post("/v1/chat", data=body, environ_overrides=environ)
    assert (response.status_code, code_of(response)) == (status, code)
    assert enclave.requests == []
    assert metric(client, "parent_streams") == 0


def test_longest_body(client: FlaskClient, enclave: FakeEnclave) -> None:
    """
    The longest body allowed fits into a frame.
    """
    body = b"error\n".ljust(MAX_BODY_BYTES)
    assert client.post("/v1/chat", data=body).status_code == 200
    assert len(enclave.requests[0]) == MAX_BODY_BYTES + 1


def test_slow_body(client: FlaskClient, enclave: FakeEnclave) -> None:
    """
    A body that does not come in time is cut off, however steadily it drips.
    """
    ours, theirs = socket.socketpair()
    stop = threading.Event()

    def drip() -> None:
        with suppress(BrokenPipeError):  # cut off while it dripped
            while not stop.wait(0.05):
                theirs.send(b"x")

    thread = threading.Thread(target=drip)
    thread.start()
    with ours, theirs, ours.makefile("rb") as stream:
        environ = {"CONTENT_LENGTH": "1000", "gunicorn.socket": ours, "wsgi.input": stream}
        response = client.post("/v1/chat", environ_overrides=environ)
        stop.set()
        thread.join()
    assert (response.status_code, code_of(response)) == (408, "deadline")
    assert enclave.requests == []


def test_broken_body(client: FlaskClient, lines: Callable[[], list[str]]) -> None:
    """
    Trouble while reading a body is the client's, and its text is for nobody.
    """
    environ = {"CONTENT_LENGTH": "10", "wsgi.input": Broken()}
    response = client.post("/v1/chat", environ_overrides=environ)
    assert (response.status_code, code_of(response)) == (400, "bad_request")
    assert CANARY not in "\n".join(lines())


def test_too_many_streams(client: FlaskClient, enclave: FakeEnclave) -> None:
    """
    One more than `max_streams` is refused at once; a place let go is free again.
    """
    streams = [client.post("/v1/chat", data="silent 1", buffered=False) for _ in range(2)]
    assert metric(client, "parent_streams") == 2
    response = client.post("/v1/chat", data="frames 1 0")
    assert (response.status_code, code_of(response)) == (503, "busy")
    assert "Retry-After" in response.headers
    for stream in streams:
        stream.close()
    assert enclave.hung_up.wait(1)
    assert client.post("/v1/chat", data="frames 1 0").status_code == 200
    assert metric(client, "parent_cancelled_total") == 2


@pytest.mark.parametrize("request_line", ["silent", "silent 1"])
def test_client_hangs_up(client: FlaskClient, enclave: FakeEnclave, request_line: str) -> None:
    """
    A client that hangs up, before or within its answer, is hung up for at the enclave.
    """
    ours, theirs = socket.socketpair()
    threading.Timer(0.1, theirs.close).start()
    with ours:
        environ = {"gunicorn.socket": ours}
        response = client.post("/v1/chat", data=request_line, environ_overrides=environ)
        assert response.status_code in {200, 499}
    assert enclave.hung_up.wait(1)
    assert metric(client, "parent_cancelled_total") == 1
    assert metric(client, "parent_streams") == 0


def test_metrics(client: FlaskClient) -> None:
    """
    Requests, bytes and times are counted, the enclave's counts are shown.
    """
    sent = len(client.post("/v1/chat", data="frames 4 0").data)
    assert metric(client, 'parent_requests_total{route="/v1/chat",status="200"}') == 1
    assert metric(client, "parent_received_bytes_total") == len("frames 4 0")
    assert metric(client, "parent_sent_bytes_total") > sent
    assert metric(client, "parent_first_frame_seconds_count") == 1
    assert metric(client, "parent_stream_seconds_count") == 1
    counts = [metric(client, f"enclave_{name}") for name in ("up", "active", "waiting")]
    assert counts == [1, 1, 2]
    assert metric(client, "enclave_answered") == 3
    assert metric(client, "enclave_failed") == 4
    assert metric(client, "enclave_refused") == 5


def test_log(client: FlaskClient, lines: Callable[[], list[str]]) -> None:
    """
    A request is one line of method, route, status, sizes and time.
    """
    client.post("/v1/chat", data=f"frames 1 0\n{CANARY}")
    (line,) = map(json.loads, lines())
    del line["at"], line["milliseconds"]
    assert line == {
        "event": "request",
        "method": "POST",
        "route": "/v1/chat",
        "status": 200,
        "received_bytes": 11 + len(CANARY),
        "sent_bytes": len(encode_answer(1)),
    }


def test_nothing_of_a_request_is_told(client: FlaskClient, lines: Callable[[], list[str]]) -> None:
    """
    What a client makes up appears neither in a log line nor in a label.
    """
    headers = {"User-Agent": CANARY, "Cookie": f"a={CANARY}", "Host": CANARY}
    client.get(f"/{CANARY}?{CANARY}", headers=headers)
    client.get(f"/v1/attestation?nonce={CANARY}")
    client.open("/healthz", method=CANARY.upper())
    client.post("/v1/chat", data=f"hint busy\n{CANARY}")
    told = "\n".join(lines()) + client.get("/metrics").text
    assert "/v1/attestation" in told
    assert CANARY not in told.lower()


def test_unexpected(lines: Callable[[], list[str]]) -> None:
    """
    What nobody expected is `internal` to the client, and a class name to the operator.
    """
    response = make_client(fail).get("/readyz")
    assert (response.status_code, code_of(response)) == (500, "internal")
    assert "unexpected KeyError" in lines()
    assert CANARY not in "\n".join(lines())
