import json
import logging
import socket
import ssl
import threading
import time
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
)
from cryptography.x509.oid import NameOID

from app.enclave.kms import client as kms
from app.enclave.kms import transport as kms_transport
from app.enclave.kms.client import DOCUMENT_SECONDS, RECIPIENT_KEY_SECONDS, KmsClient
from app.protocol.attestation import encode_user_data
from app.protocol.authorization import Authorization, Credentials, parse_key_arn
from app.protocol.errors import AppError, DeniedError, KmsError
from app.protocol.weights import WeightsKey
from local.aws.kms.cms import encode_cms
from tests.patience import PATIENCE_SECONDS
from tests.support import Clock

ARN = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
OTHER_ARN = ARN.replace("1111-", "9999-")
HOST = "kms.eu-central-1.amazonaws.com"
SECRETS = ["SECRETACCESSKEY", "SESSIONTOKEN"]
DATA_KEY = bytes(range(100, 132))
WRAPPED_ANSWER_KEY = b"wrapped answer key"
MANIFEST_DIGEST = bytes(range(32))
AUTHORIZATION = Authorization(
    credentials=Credentials("ASIAEXAMPLEEXAMPLE00", *SECRETS),
    key_arn=parse_key_arn(ARN),
    wrapped_question_key=b"wrapped question key",
    answer_secret=bytes(32),
    conversation=bytes(range(16)),
    turn=0,
)
WEIGHTS_KEY = WeightsKey(
    AUTHORIZATION.credentials, AUTHORIZATION.key_arn, fips=False, wrapped=b"wrapped weights key"
)
MARK = b"a document over "

Fields = dict[str, object]
Respond = Callable[[str, Fields], tuple[int, bytes]]


@dataclass
class FakeNsm:
    """Signs nothing: its documents are a mark and the public key."""

    asked: list[tuple[bytes | None, bytes | None]] = field(default_factory=list)

    def attest(
        self, *, user_data: bytes | None, nonce: bytes | None, public_key: bytes | None
    ) -> bytes:
        assert public_key is not None
        self.asked.append((user_data, nonce))
        return MARK + public_key

    def random(self) -> bytes:
        return bytes(256)


@dataclass
class Request:
    """One request as KMS got it."""

    operation: str
    headers: dict[str, str]
    fields: Fields


def public_key_of(fields: Fields) -> bytes:
    match fields:
        case {"Recipient": {"AttestationDocument": str(document)}}:
            return b64decode(document).removeprefix(MARK)
        case _:
            pytest.fail("no recipient in the request")


def sound_answer(operation: str, fields: Fields, data_key: bytes = DATA_KEY) -> Fields:
    """What KMS answers when all is well."""
    cms = encode_cms(data_key, public_key_of(fields), form="constructed")
    answer: Fields = {"KeyId": fields["KeyId"], "CiphertextForRecipient": b64encode(cms).decode()}
    if operation == "GenerateDataKey":
        answer["CiphertextBlob"] = b64encode(WRAPPED_ANSWER_KEY).decode()
    return answer


def respond_soundly(operation: str, fields: Fields) -> tuple[int, bytes]:
    return 200, json.dumps(sound_answer(operation, fields)).encode()


def respond_with(**changes: object) -> Respond:
    """Respond soundly but for *changes*; None takes a field out."""

    def respond(operation: str, fields: Fields) -> tuple[int, bytes]:
        answer = sound_answer(operation, fields) | changes
        present = {name: value for name, value in answer.items() if value is not None}
        return 200, json.dumps(present).encode()

    return respond


def respond_with_bytes(status: int, body: bytes) -> Respond:
    return lambda _operation, _fields: (status, body)


def refuse_with(code: str, status: int = 400) -> Respond:
    body = {"__type": code, "message": "says SECRETACCESSKEY"}
    return respond_with_bytes(status, json.dumps(body).encode())


class FakeKms:
    """KMS behind TLS at the other end of socket pairs."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context
        self.respond: Respond = respond_soundly
        self.requests: list[Request] = []
        self.connections = 0
        self.threads: list[threading.Thread] = []

    def connect(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        self.connections += 1
        thread = threading.Thread(target=self.serve, args=(theirs,))
        thread.start()
        self.threads.append(thread)
        return ours

    def serve(self, stream: socket.socket) -> None:
        with stream, suppress(OSError):  # a client that refuses us hangs up
            stream.settimeout(20)
            with self.context.wrap_socket(stream, server_side=True) as tls:
                Handler(tls, self)

    def join(self) -> None:
        for thread in self.threads:
            thread.join(PATIENCE_SECONDS)
            assert not thread.is_alive()


class Handler(BaseHTTPRequestHandler):
    """Speaks HTTP for a `FakeKms`."""

    protocol_version = "HTTP/1.1"
    wbufsize: ClassVar[int] = -1

    def __init__(self, tls: ssl.SSLSocket, fake: FakeKms) -> None:
        self.fake = fake
        super().__init__(tls, ("", 0), None)  # type: ignore[arg-type] # it needs no server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        operation = self.headers["X-Amz-Target"].removeprefix("TrentService.")
        fields = json.loads(body)
        self.fake.requests.append(Request(operation, dict(self.headers.items()), fields))
        status, answer = self.fake.respond(operation, fields)
        self.send_response(status)
        self.send_header("Content-Type", "application/x-amz-json-1.1")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
        self.wfile.flush()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@dataclass(frozen=True)
class Pki:
    """A certificate authority and what it signs."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    folder: Path

    @property
    def ca_bundle(self) -> Path:
        path = self.folder / "ca.pem"
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))
        return path

    def server_context(self, host: str) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = certificate_builder(host, self.certificate.subject, key.public_key())
        names = x509.SubjectAlternativeName([x509.DNSName(host)])
        certificate = builder.add_extension(names, critical=False).sign(self.key, SHA256())
        path = self.folder / f"{host}.pem"
        path.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            + certificate.public_bytes(Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context


def certificate_builder(
    name: str, issuer: x509.Name, public_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime.now(UTC) - timedelta(hours=1)
    end = start + timedelta(days=1)
    serial = x509.random_serial_number()
    return x509.CertificateBuilder(issuer, subject, public_key, serial, start, end)


def make_pki(folder: Path) -> Pki:
    key = ec.generate_private_key(ec.SECP256R1())
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "root")])
    builder = certificate_builder("root", issuer, key.public_key())
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    certificate = builder.add_extension(constraints, critical=True).sign(key, SHA256())
    return Pki(key, certificate, folder)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return make_pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def fake(pki: Pki) -> Iterator[FakeKms]:
    fake = FakeKms(pki.server_context(HOST))
    yield fake
    fake.join()


@pytest.fixture
def nsm() -> FakeNsm:
    return FakeNsm()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries follow at once."""
    monkeypatch.setattr(time, "sleep", lambda _: None)


@pytest.fixture
def client(nsm: FakeNsm, fake: FakeKms, pki: Pki, clock: Clock) -> Iterator[KmsClient]:
    client = KmsClient(nsm, fake.connect, pki.ca_bundle, MANIFEST_DIGEST, clock)
    yield client
    client.close()


def assert_tells_nothing(error: AppError) -> None:
    """Neither the error nor what hangs on it holds secrets or words of AWS."""
    assert error.__cause__ is None
    assert error.__context__ is None
    shown = "".join(traceback.format_exception(error)) + repr(error) + str(error)
    for secret in (*SECRETS, AUTHORIZATION.credentials.access_key_id, "says"):
        assert secret not in shown


def assert_fails(client: KmsClient, kind: type[AppError], match: str) -> None:
    """All calls raise *kind*."""
    calls: list[Callable[[], object]] = [
        lambda: client.open_question_key(AUTHORIZATION),
        lambda: client.make_answer_key(AUTHORIZATION),
        lambda: client.open_weights_key(WEIGHTS_KEY, bytes(32)),
    ]
    for call in calls:
        with pytest.raises(kind, match=match) as raised:
            call()
        assert type(raised.value) is kind
        assert_tells_nothing(raised.value)


def test_open_question_key(client: KmsClient, fake: FakeKms) -> None:
    """
    Decrypt names key, purpose, conversation and recipient, and gives the key for us alone.
    """
    assert client.open_question_key(AUTHORIZATION) == DATA_KEY
    (request,) = fake.requests
    assert request.operation == "Decrypt"
    recipient = request.fields.pop("Recipient")
    assert isinstance(recipient, dict)
    assert recipient.keys() == {"AttestationDocument", "KeyEncryptionAlgorithm"}
    assert recipient["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
    assert request.fields == {
        "KeyId": ARN,
        "CiphertextBlob": b64encode(AUTHORIZATION.wrapped_question_key).decode(),
        "EncryptionContext": {
            "purpose": "question",
            "conversation": "000102030405060708090a0b0c0d0e0f",
        },
    }


def test_make_answer_key(client: KmsClient, fake: FakeKms) -> None:
    """
    GenerateDataKey asks for an AES-256 key of the conversation, for the same recipient.
    """
    answer_key = client.make_answer_key(AUTHORIZATION)
    assert answer_key.key == DATA_KEY
    assert answer_key.wrapped == WRAPPED_ANSWER_KEY
    (request,) = fake.requests
    assert request.operation == "GenerateDataKey"
    assert request.fields.pop("Recipient")
    assert request.fields == {
        "KeyId": ARN,
        "KeySpec": "AES_256",
        "EncryptionContext": {
            "purpose": "answer",
            "conversation": "000102030405060708090a0b0c0d0e0f",
        },
    }


def test_open_weights_key(client: KmsClient, fake: FakeKms, nsm: FakeNsm) -> None:
    """
    Decrypt names the package that the image does, whatever the parent says, and comes with a
    document of kind `kms`, signed with the credentials that the parent handed over.
    """
    assert client.open_weights_key(WEIGHTS_KEY, bytes(range(32))) == DATA_KEY
    (request,) = fake.requests
    assert request.operation == "Decrypt"
    assert request.fields.pop("Recipient")
    assert request.fields == {
        "KeyId": ARN,
        "CiphertextBlob": b64encode(b"wrapped weights key").decode(),
        "EncryptionContext": {"purpose": "weights", "digest": bytes(range(32)).hex()},
    }
    assert nsm.asked == [(encode_user_data("kms", MANIFEST_DIGEST), None)]
    assert request.headers["Host"] == HOST
    assert request.headers["X-Amz-Security-Token"] == "SESSIONTOKEN"


def test_documents(client: KmsClient, nsm: FakeNsm, fake: FakeKms, clock: Clock) -> None:
    """
    A document is of kind `kms`, over an RSA-2048 key, and is used for a minute.
    """
    client.open_question_key(AUTHORIZATION)
    clock.now += DOCUMENT_SECONDS - 1
    client.make_answer_key(AUTHORIZATION)
    assert nsm.asked == [(encode_user_data("kms", MANIFEST_DIGEST), None)]
    clock.now += 1
    client.make_answer_key(AUTHORIZATION)
    assert len(nsm.asked) == 2
    keys = {public_key_of(request.fields) for request in fake.requests}
    assert len(keys) == 1
    public_key = load_der_public_key(keys.pop())
    assert isinstance(public_key, rsa.RSAPublicKey)
    assert public_key.key_size == 2048


def test_recipient_key_rotates(client: KmsClient, fake: FakeKms, clock: Clock) -> None:
    """
    After an hour there is another RSA key, attested at once.
    """
    client.open_question_key(AUTHORIZATION)
    clock.now += RECIPIENT_KEY_SECONDS
    assert client.open_question_key(AUTHORIZATION) == DATA_KEY
    first, second = (public_key_of(request.fields) for request in fake.requests)
    assert first != second


def test_signature(client: KmsClient, fake: FakeKms) -> None:
    """
    Requests are signed for the key's Region with the asker's own credentials.
    """
    client.open_question_key(AUTHORIZATION)
    headers = fake.requests[0].headers
    assert headers["Host"] == HOST
    assert headers["X-Amz-Security-Token"] == "SESSIONTOKEN"
    scope = f"{datetime.now(UTC):%Y%m%d}/eu-central-1/kms/aws4_request"
    assert f"Credential=ASIAEXAMPLEEXAMPLE00/{scope}" in headers["Authorization"]
    assert "SECRETACCESSKEY" not in str(headers)


def test_callers_do_not_mix(client: KmsClient, fake: FakeKms) -> None:
    """
    Calls of many askers at once, over shared connections, keep their own credentials.
    """

    def call(number: int) -> None:
        credentials = Credentials(f"ASIA{number:016}", "secret", f"token {number:016}")
        conversation = number.to_bytes(16)
        client.open_question_key(
            Authorization(
                credentials=credentials,
                key_arn=AUTHORIZATION.key_arn,
                wrapped_question_key=b"wrapped",
                answer_secret=bytes(32),
                conversation=conversation,
                turn=0,
            )
        )

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(fake.requests) == 8
    for request in fake.requests:
        context = request.fields["EncryptionContext"]
        assert isinstance(context, dict)
        number = int(context["conversation"], 16)
        assert f"Credential=ASIA{number:016}/" in request.headers["Authorization"]
        assert request.headers["X-Amz-Security-Token"] == f"token {number:016}"


def test_connections_are_kept(client: KmsClient, fake: FakeKms) -> None:
    """
    One TLS connection serves call after call.
    """
    for _ in range(3):
        client.open_question_key(AUTHORIZATION)
        client.make_answer_key(AUTHORIZATION)
    assert fake.connections == 1


IN_CLEAR = b64encode(DATA_KEY).decode()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"Plaintext": IN_CLEAR}, "in clear"),
        ({"Plaintext": IN_CLEAR, "CiphertextForRecipient": None}, "in clear"),
        ({"CiphertextForRecipient": None}, "without a ciphertext"),
        ({"CiphertextForRecipient": ""}, "truncated"),
        ({"CiphertextForRecipient": "AAAA"}, "truncated"),
        ({"CiphertextForRecipient": {}}, "cannot be read"),
        ({"CiphertextForRecipient": "A"}, "cannot be read"),
        ({"KeyId": None}, "another key"),
        ({"KeyId": OTHER_ARN}, "another key"),
        ({"KeyId": "alias/key"}, "another key"),
        ({"KeyId": 5}, "another key"),
    ],
    ids=str,
)
def test_answers_out_of_contract(
    client: KmsClient, fake: FakeKms, changes: dict[str, object], match: str
) -> None:
    """
    An answer in clear, of another key or without a ciphertext for us is refused.
    """
    fake.respond = respond_with(**changes)
    assert_fails(client, KmsError, match)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"5",
        b"null",
        b'"text"',
        b"{}",
        b"no JSON",
        b"\xff\xfe",
        b'{"__type": 5}',
        b'{"__type": ["a"], "message": []}',
        b"[" * 2000,
    ],
    ids=range(11),
)
def test_unreadable_answers(client: KmsClient, fake: FakeKms, body: bytes) -> None:
    """
    Whatever KMS's bytes are, what is no answer is a KMS error.
    """
    for status in (200, 302, 400, 500):
        fake.respond = respond_with_bytes(status, body)
        assert_fails(client, KmsError, "KMS")


def test_empty_plaintext(client: KmsClient, fake: FakeKms) -> None:
    """
    KMS may send an empty Plaintext beside the ciphertext for the recipient.
    """
    fake.respond = respond_with(Plaintext="")
    assert client.open_question_key(AUTHORIZATION) == DATA_KEY


@pytest.mark.parametrize("size", [0, 16, 31, 33, 64])
def test_data_key_size(client: KmsClient, fake: FakeKms, size: int) -> None:
    """
    A data key that isn't 32 bytes is refused.
    """
    fake.respond = lambda operation, fields: (
        200,
        json.dumps(sound_answer(operation, fields, bytes(size))).encode(),
    )
    assert_fails(client, KmsError, f"has {size} bytes, expected 32")


@pytest.mark.parametrize("wrapped", [None, "", b64encode(bytes(6145)).decode()])
def test_wrapped_answer_key(client: KmsClient, fake: FakeKms, wrapped: str | None) -> None:
    """
    An answer key without a wrapped one that the asker could use is refused.
    """
    fake.respond = respond_with(CiphertextBlob=wrapped)
    with pytest.raises(KmsError, match="without a wrapped"):
        client.make_answer_key(AUTHORIZATION)


def test_cms_for_another_key(client: KmsClient, fake: FakeKms) -> None:
    """
    A ciphertext for an RSA key that isn't the document's is refused.
    """
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    spki_der = other.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    cms = b64encode(encode_cms(DATA_KEY, spki_der, form="primitive")).decode()
    fake.respond = respond_with(CiphertextForRecipient=cms)
    assert_fails(client, KmsError, "another recipient")


@pytest.mark.parametrize(
    "code",
    [
        "AccessDeniedException",
        "com.amazon.coral.service#AccessDeniedException",
        "UnrecognizedClientException",
        "ExpiredTokenException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "SignatureDoesNotMatch",
    ],
)
def test_denied(client: KmsClient, fake: FakeKms, code: str) -> None:
    """
    When KMS refuses credentials, image or conversation, the asker is denied, without a retry.
    """
    fake.respond = refuse_with(code)
    assert_fails(client, DeniedError, "^KMS refused these credentials$")
    assert len(fake.requests) == 3


@pytest.mark.parametrize(
    ("code", "status", "attempts"),
    [
        ("ThrottlingException", 400, 3),
        ("KMSInternalException", 500, 3),
        ("InvalidCiphertextException", 400, 1),
        ("IncorrectKeyException", 400, 1),
        ("DisabledException", 400, 1),
        ("AccessDeniedExceptionally", 400, 1),
    ],
)
def test_errors(client: KmsClient, fake: FakeKms, code: str, status: int, attempts: int) -> None:
    """
    Other errors are KMS's; those that may pass are tried three times, each signed anew.
    """
    fake.respond = refuse_with(code, status)
    assert_fails(client, KmsError, "^KMS answered with an error$")
    assert len(fake.requests) == 3 * attempts
    assert all("Authorization" in request.headers for request in fake.requests)


def test_lost_connection(client: KmsClient, fake: FakeKms) -> None:
    """
    A call whose connection was cut is repeated over another one.
    """
    times = iter([True])

    def cut(operation: str, fields: Fields) -> tuple[int, bytes]:
        if next(times, False):
            raise ConnectionAbortedError
        return respond_soundly(operation, fields)

    fake.respond = cut
    assert client.open_question_key(AUTHORIZATION) == DATA_KEY
    assert fake.connections == 2


def test_silent_kms(client: KmsClient, fake: FakeKms, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A KMS that takes requests and never answers is given up after bounded time.
    """
    monkeypatch.setattr(kms_transport, "READ_SECONDS", 0.2)
    silent = threading.Event()

    def respond(operation: str, fields: Fields) -> tuple[int, bytes]:
        silent.wait(PATIENCE_SECONDS)
        return respond_soundly(operation, fields)

    fake.respond = respond
    began = time.monotonic()
    with pytest.raises(KmsError, match="not reached") as raised:
        client.open_question_key(AUTHORIZATION)
    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    assert_tells_nothing(raised.value)
    silent.set()


def test_silent_relay(nsm: FakeNsm, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A relay that takes the connection and says nothing is given up after bounded time.
    """
    monkeypatch.setattr(kms_transport, "CONNECT_SECONDS", 0.1)
    kept: list[socket.socket] = []

    def connect() -> socket.socket:
        ours, theirs = socket.socketpair()
        kept.append(theirs)
        return ours

    client = KmsClient(nsm, connect, pki.ca_bundle, MANIFEST_DIGEST)
    assert_fails(client, KmsError, "not reached")
    for stream in kept:
        stream.close()


def test_no_relay(nsm: FakeNsm, pki: Pki) -> None:
    """
    A relay that can't be reached is a KMS error.
    """

    def connect() -> socket.socket:
        raise ConnectionRefusedError

    client = KmsClient(nsm, connect, pki.ca_bundle, MANIFEST_DIGEST)
    assert_fails(client, KmsError, "not reached")


def test_wrong_host_name(nsm: FakeNsm, pki: Pki) -> None:
    """
    A server whose certificate is for another host gets no request.
    """
    fake = FakeKms(pki.server_context("kms.us-east-1.amazonaws.com"))
    client = KmsClient(nsm, fake.connect, pki.ca_bundle, MANIFEST_DIGEST)
    assert_fails(client, KmsError, "not reached")
    fake.join()
    assert fake.requests == []


def test_wrong_authority(nsm: FakeNsm, fake: FakeKms, tmp_path: Path) -> None:
    """
    A server whose certificate is of another authority gets no request.
    """
    client = KmsClient(nsm, fake.connect, make_pki(tmp_path).ca_bundle, MANIFEST_DIGEST)
    assert_fails(client, KmsError, "not reached")
    assert fake.requests == []


def test_default_authorities(nsm: FakeNsm, fake: FakeKms) -> None:
    """
    Without a bundle of its own the client trusts the public authorities, and not ours.
    """
    client = KmsClient(nsm, fake.connect, None, MANIFEST_DIGEST)
    assert_fails(client, KmsError, "not reached")
    assert fake.requests == []


def test_regions(nsm: FakeNsm, pki: Pki) -> None:
    """
    A key of another Region is reached by the name of that Region's host.
    """
    fake = FakeKms(pki.server_context("kms.us-east-1.amazonaws.com"))
    client = KmsClient(nsm, fake.connect, pki.ca_bundle, MANIFEST_DIGEST)
    key_arn = parse_key_arn(ARN.replace("eu-central-1", "us-east-1"))
    elsewhere = Authorization(
        credentials=AUTHORIZATION.credentials,
        key_arn=key_arn,
        wrapped_question_key=b"wrapped",
        answer_secret=bytes(32),
        conversation=bytes(16),
        turn=0,
    )
    assert client.open_question_key(elsewhere) == DATA_KEY
    assert "/us-east-1/kms/" in fake.requests[0].headers["Authorization"]
    client.close()
    fake.join()


def test_environment_is_ignored(
    nsm: FakeNsm, fake: FakeKms, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    No variable and no file can redirect, re-sign, weaken or record what is sent to KMS.
    """
    broken = tmp_path / "config"
    broken.write_text("this is no [config] file =\n[[")
    key_log = tmp_path / "keys"
    (tmp_path / ".aws").mkdir()
    for name in ("config", "credentials"):
        (tmp_path / ".aws" / name).write_text(broken.read_text())
    for name, value in {
        "HOME": str(tmp_path),
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ENDPOINT_URL_KMS": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "ENVIRONMENT",
        "AWS_SECRET_ACCESS_KEY": "ENVIRONMENT",
        "AWS_SESSION_TOKEN": "ENVIRONMENT",
        "AWS_BEARER_TOKEN_KMS": "ENVIRONMENT",
        "AWS_PROFILE": "missing",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_REGION": "us-east-1",
        "AWS_CONFIG_FILE": str(broken),
        "AWS_SHARED_CREDENTIALS_FILE": str(broken),
        "AWS_CA_BUNDLE": "/nonexistent",
        "AWS_DATA_PATH": str(tmp_path),
        "AWS_EXECUTION_ENV": "ENVIRONMENT",
        "AWS_SDK_UA_APP_ID": "ENVIRONMENT",
        "AWS_MAX_ATTEMPTS": "no number",
        "AWS_RETRY_MODE": "nonsense",
        "AWS_DEFAULTS_MODE": "nonsense",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_AUTH_SCHEME_PREFERENCE": "httpBearerAuth",
        "AWS_CSM_ENABLED": "true",
        "REQUESTS_CA_BUNDLE": "/nonexistent",
        "SSL_CERT_FILE": "/nonexistent",
        "SSLKEYLOGFILE": str(key_log),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)
    client = KmsClient(nsm, fake.connect, pki.ca_bundle, MANIFEST_DIGEST)
    assert client.open_question_key(AUTHORIZATION) == DATA_KEY
    headers = fake.requests[0].headers
    assert headers["Host"] == HOST
    assert headers["User-Agent"] == "enclave-llm"
    assert "ENVIRONMENT" not in str(headers)
    assert "SECRET" not in key_log.read_text()  # botocore opens it, for connections never made
    client.close()


def test_logs(client: KmsClient, fake: FakeKms, caplog: pytest.LogCaptureFixture) -> None:
    """
    Even with every logger at its loudest, AWS's libraries and urllib3 log nothing at all.
    """
    caplog.set_level(logging.DEBUG)
    client.open_question_key(AUTHORIZATION)
    client.make_answer_key(AUTHORIZATION)
    fake.respond = refuse_with("ThrottlingException")
    with pytest.raises(KmsError):
        client.make_answer_key(AUTHORIZATION)
    assert [record.name for record in caplog.records] == []


def test_repr_hides_keys(client: KmsClient) -> None:
    """
    Neither the client nor what it gives shows a key.
    """
    answer_key = client.make_answer_key(AUTHORIZATION)
    assert repr(answer_key) == f"AnswerKey(wrapped={WRAPPED_ANSWER_KEY!r})"
    assert repr(client._recipients.result().current()) == "_Recipient()"


def test_no_ambient_caller(client: KmsClient) -> None:
    """
    After a call, and after a failed one, no credentials are left for another to sign with.
    """
    client.open_question_key(AUTHORIZATION)
    assert kms_transport._caller.get(None) is None


def test_broken_nsm(fake: FakeKms, pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    An NSM that fails is tried again at the next call; KMS is not asked without a document.
    """
    nsm = FakeNsm()
    client = KmsClient(nsm, fake.connect, pki.ca_bundle, MANIFEST_DIGEST)
    with monkeypatch.context() as patch:
        patch.setattr(kms._Recipients, "_attest", lambda _: (_ for _ in ()).throw(OSError))
        with pytest.raises(OSError):
            client.open_question_key(AUTHORIZATION)
    assert fake.requests == []
    assert client.open_question_key(AUTHORIZATION) == DATA_KEY
    client.close()
