"""
The canary's stage: a twin of which everything is asked, and on which everything goes wrong once.
"""

import json
import os
import socket
import ssl
import time
from base64 import b64encode
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import chain
from pathlib import Path
from typing import Final

import pytest
import urllib3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import app.chatbot.session.sealed as chatbot
from app.chatbot.evidence.advice import advise
from app.chatbot.reading.parts import Text
from app.chatbot.session.exchange import Exchange
from app.chatbot.session.session import Session
from app.protocol.asker.answer import AnswerOpener
from app.protocol.asker.envelope import seal_question
from app.protocol.asker.sealing import seal_request
from app.protocol.authorization import Authorization
from app.protocol.constants import MAX_FRAME_BYTES, MAX_QUESTION_BYTES
from app.protocol.errors import AppError, ProtocolError
from app.protocol.question import Message, Options, Question
from local.aws.error import AwsError
from local.aws.server import Answer, Transform
from local.twin.twin import Twin, policy_for
from tests.integration.canary import (
    LEAST_BYTES,
    Canaries,
    family,
    fingerprint,
    read_memory,
)
from tests.patience import PATIENCE_SECONDS

SECRET: Final = f"zebra{os.urandom(4).hex()}"  # in all that is sealed; short, as the model reads it
OPEN: Final = f"okapi{os.urandom(8).hex()}"  # in what a client sends in clear, wrongly
KMS_SECRET: Final = os.urandom(32)  # what KMS answers in clear, against its contract
HALF: Final = os.urandom(48)  # of a body that never comes whole: the parent holds it
# What each way of failing ends with. The deadline of 120 s is a measured constant: out of reach.
CODES: Final = {
    "empty question": "bad_request",
    "empty question of another client": "bad_request",
    "over the cap": "too_long",
    "over the model's context": "too_long",
    "altered request": "sealed",
    "replayed request": "replayed",
    "unknown key": "unknown_key",
    "client hangs up": "hung up",
    "KMS denies": "denied",
    "KMS answers in clear": "kms",
    "KMS fails": "kms",
    "NSM fails before the receipt": "truncated",
    "enclave dies in mid-answer": "truncated",
    "enclave is gone": "unavailable",
}
STATUSES: Final = {
    "metrics": 200,
    "healthz": 200,
    "readyz": 200,
    "attestation": 200,
    "attestation for no nonce": 400,
    "attestation without NSM": 503,
    "chat without a body": 411,
    "chat of garbage": 400,
    "chat cut short": 0,  # TLS is over; nobody is there to be told
    "chat over the limit": 413,
    "chat under another method": 405,
    "method made up": 405,
    "path made up": 404,
    "header made up": 404,
    "no HTTP": 400,
    "readyz without enclave": 503,
    "metrics without enclave": 200,
    "attestation without enclave": 503,
}


@dataclass(slots=True)
class Stage:
    """
    A twin on which everything is asked and everything goes wrong once, and what came of it.

    Attributes:
        folder: Is searched, with the twin's folder in it, but for the files in `excused`, each
            with its reason.

        failing_nsm: Has the NSM fail while its block runs.

        holding_nsm: Has the NSM answer nothing while its block runs, where that can be done.

        differs: Codes and statuses that are others than those of `CODES` and `STATUSES` here.

        console: Whether the enclave's log is a console, with more on it than events.

        max_tokens: Of one answer; an emulated enclave makes few in the time that an answer has.
    """

    twin: Twin
    session: Session
    folder: Path
    failing_nsm: Callable[[], AbstractContextManager[None]]
    holding_nsm: Callable[[], AbstractContextManager[None]] = nullcontext
    excused: Mapping[Path, str] = field(default_factory=dict)
    differs: Mapping[str, str | int] = field(default_factory=dict)
    console: bool = False
    max_tokens: int = 60
    secrets: Canaries = field(default_factory=Canaries)
    in_clear: Canaries = field(default_factory=Canaries)
    codes: dict[str, str] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)  # of HTTP, headers and all
    sayings: list[str] = field(default_factory=list)  # what the chatbot told its user
    leaks_in_memory: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    before: frozenset[int] = frozenset()  # the parent's memory before the first question
    held_by_parent: bool = False
    processes: dict[str, bytes] = field(default_factory=dict)  # arguments and environments

    @property
    def options(self) -> Options:
        """What to ask with, unless padding is wanted."""
        return Options(padding="off", max_tokens=self.max_tokens)

    @property
    def unique(self) -> Options:
        """What to ask with for an answer that is in no file."""
        return replace(self.options, temperature=2)

    def ask(self, text: str, options: Options | None = None) -> str:
        """
        Ask without what was said before, under the same keys, and note the answer as a secret.

        Gives the error's code, or `answered`.
        """
        self.session.history = ()
        return self.note(self.session.ask(f"{SECRET} {text}", options or self.options))

    def note(self, pieces: Iterable[str]) -> str:
        """Take an answer to its end, good or bad."""
        text = ""
        try:
            for piece in pieces:
                text += piece
        except AppError as error:
            self.sayings += [str(error), repr(error), advise(error)]
            bad = isinstance(error, ProtocolError)  # under whatever name its own side gives it
            return ProtocolError.code if bad else error.code
        finally:
            self.secrets.add_text("answer", text)
        return "answered"

    def post(self, question: Question) -> str:
        """Ask what the chatbot's own checks would not let through."""
        exchange = Exchange(time.monotonic())
        answer = self.session._answer(question, exchange)
        assert isinstance(answer, Generator)
        return self.note(part.text for part in answer if isinstance(part, Text))

    def post_sealed(self, sealed: bytes) -> str:
        """Post sealed bytes; give the code of the hint that comes first."""
        with pytest.raises(AppError) as raised:
            next(self.session._transport.post_chat(sealed))
        self.sayings += [str(raised.value), advise(raised.value)]
        return raised.value.code

    def http(self, name: str, method: str, path: str, body: bytes = b"", **headers: str) -> None:
        """Send an HTTP request and keep all of what comes back."""
        with urllib3.PoolManager(ca_certs=self.twin.config.tls_ca, retries=False) as pool:
            got = pool.request(method, self.twin.config.url + path, body=body, headers=headers)
            self.statuses[name] = got.status
            self.answers[name] = repr(dict(got.headers)).encode() + got.data

    @contextmanager
    def tls(self) -> Iterator[socket.socket]:
        """Open a connection to the parent for bytes of any kind."""
        context = ssl.create_default_context(cafile=self.twin.config.tls_ca)
        port = int(self.twin.config.url.rpartition(":")[2])
        with (
            socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as stream,
            context.wrap_socket(stream, server_hostname="127.0.0.1") as tls,
        ):
            yield tls

    def raw(self, name: str, stream: socket.socket) -> None:
        """Keep what comes on *stream* until its end."""
        got = b""
        with suppress(OSError):
            while data := stream.recv(4096):
                got += data
        self.statuses[name] = int(got.split()[1]) if got else 0
        self.answers[name] = got

    def perform(self, patch: pytest.MonkeyPatch) -> None:
        """Ask everything and force every failure; the enclave is gone afterwards."""
        _gather_secrets(self, patch)
        _note_processes(self)
        self.search_memory("before the first question")
        _converse(self)
        _fail_at_http(self)
        _fail_at_asking(self)
        _fail_at_kms(self)
        _fail_at_nsm(self)
        self.search_memory("after all of these")
        _lose_enclave(self)
        self.search_memory("without an enclave")
        self.session.close()

    def search_memory(self, when: str) -> None:
        """Search gunicorn's master and worker."""
        pids = family(self.twin.parent.pid)
        assert len(pids) == 2
        self.leaks_in_memory[when] = self.secrets.find_in_memory(*pids, but=self.before)
        self.before = self.before or fingerprint(*pids)


def _gather_secrets(stage: Stage, patch: pytest.MonkeyPatch) -> None:
    """
    Have every secret noted that the asker's side holds or can derive.

    Out of reach: the enclave's private keys (HPKE, RSA) and TLS keys, which it never gives away.
    """
    secrets = stage.secrets
    secrets.add("text of a question", SECRET)
    secrets.add("plaintext of KMS", KMS_SECRET)
    stage.in_clear.add("what was sent in clear", OPEN)
    asker = stage.twin.asker.get_credentials()
    assert asker is not None
    secrets.add("the asker's secret key", asker.secret_key)

    def spy_question(question: Question, **rest: object) -> bytes:
        envelope = seal(question, **rest)
        data_key, conversation, turn = (rest[k] for k in ("data_key", "conversation", "turn"))
        assert isinstance(data_key, bytes)
        assert isinstance(conversation, bytes)
        assert isinstance(turn, int)
        info = b"enclave-llm/2 question" + conversation + turn.to_bytes(4)
        secrets.add("question data key", data_key)
        secrets.add("key of an envelope", _derive(data_key, envelope[:32], info))
        return envelope

    def spy_request(authorization: Authorization, *rest: bytes, **named: bytes) -> bytes:
        credentials = authorization.credentials
        secrets.add("the enclave's secret key", credentials.secret_access_key)
        secrets.add("the enclave's session token", credentials.session_token[:48])
        secrets.add("the enclave's session token", credentials.session_token[-48:])
        secrets.add("answer secret", authorization.answer_secret)
        for lease in stage.session._access._leases.values():
            secrets.add("the chatbot's secret key", lease.credentials.secret_access_key)
            secrets.add("the chatbot's session token", lease.credentials.session_token[:48])
            secrets.add("the chatbot's session token", lease.credentials.session_token[-48:])
        return seal_request(authorization, *rest, **named)

    def spy_opener(header: bytes, *, options: Options, **keys: bytes) -> AnswerOpener:
        info = b"enclave-llm/2 answer" + keys["request_digest"] + sha256(header).digest()
        material = keys["data_key"] + keys["answer_secret"]
        secrets.add("answer data key", keys["data_key"])
        secrets.add("key of an answer", _derive(material, None, info))
        return AnswerOpener(header, options=options, **keys)

    seal: Callable[..., bytes] = seal_question
    patch.setattr(chatbot, "seal_question", spy_question)
    patch.setattr(chatbot, "seal_request", spy_request)
    patch.setattr(chatbot, "AnswerOpener", spy_opener)


def _derive(material: bytes, salt: bytes | None, info: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt, info).derive(material)


def _note_processes(stage: Stage) -> None:
    """Keep arguments and environment of all processes, as far as this user may look."""
    for pid in (stage.twin.enclave.pid, *family(stage.twin.parent.pid)):
        for name in ("cmdline", "environ"):
            with suppress(PermissionError):
                path = Path(f"/proc/{pid}/{name}")
                stage.processes[str(path)] = path.read_bytes()


def _converse(stage: Stage) -> None:
    """Ask with a secret in every field, and search the parent's memory in mid-answer."""
    session = stage.session
    session.history = (
        Message("system", f"{SECRET} of the system"),
        Message("user", f"{SECRET} of the asker before"),
        Message("assistant", f"{SECRET} of the model before"),
    )
    stop = (f"{SECRET} to stop at",)
    options = Options(stop=stop, seed=7, max_tokens=stage.max_tokens)
    pieces = session.ask(f"{SECRET} I can't access my email.", options)
    text = next(piece for piece in pieces if piece)
    stage.search_memory("in mid-answer")
    stage.secrets.add_text("answer", text + "".join(pieces))
    assert session.evidence is not None
    assert stage.ask("and at random?", stage.unique) == "answered"
    stage.search_memory("after an answer")


def _fail_at_http(stage: Stage) -> None:
    """Send what is no proper request, with what should not have been sent in clear."""
    good = f"/v1/attestation?nonce={bytes(32).hex()}"
    for name, path in (("metrics", "/metrics"), ("healthz", "/healthz"), ("readyz", "/readyz")):
        stage.http(name, "GET", path)
    stage.http("attestation", "GET", good)
    stage.http("attestation for no nonce", "GET", f"/v1/attestation?nonce={OPEN}")
    stage.http("chat of garbage", "POST", "/v1/chat", b"\x01" + OPEN.encode())
    stage.http("chat over the limit", "POST", "/v1/chat", OPEN.encode() * (MAX_FRAME_BYTES // 16))
    stage.http("chat under another method", "PUT", f"/v1/chat?{OPEN}", OPEN.encode())
    stage.http("method made up", OPEN.upper()[:20], "/v1/chat")
    stage.http("path made up", "GET", f"/{OPEN}")
    stage.http("header made up", "GET", "/v1", Authorization=OPEN, Cookie=OPEN)
    with stage.tls() as stream:
        stream.sendall(f"{OPEN} {OPEN}\r\n\r\n".encode())
        stage.raw("no HTTP", stream)
    with stage.tls() as stream:
        stream.sendall(b"POST /v1/chat HTTP/1.1\r\nHost: twin\r\nConnection: close\r\n\r\n")
        stage.raw("chat without a body", stream)
    with stage.tls() as stream:
        head = b"POST /v1/chat HTTP/1.1\r\nHost: twin\r\nContent-Length: 99\r\n\r\n"
        stream.sendall(head + HALF)
        stage.held_by_parent = _holds(stage.twin.parent.pid, HALF)
        socket.socket.shutdown(stream, socket.SHUT_WR)
        stage.raw("chat cut short", stream)


def _holds(pid: int, data: bytes) -> bool:
    """Search a process and its descendants for *data* until it turns up, or patience ends."""
    end = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < end:
        if any(data in region for one in family(pid) for region in read_memory(one)):
            return True
    return False


def _fail_at_asking(stage: Stage) -> None:
    """Ask what cannot be answered, and send what is not the asker's."""
    codes, session = stage.codes, stage.session
    session.new_conversation()
    session.history = (Message("system", f"{SECRET} of the system"),)
    codes["empty question"] = stage.note(session.ask(" "))
    empty = Question((*session.history, Message("user", "?")), stage.options)
    object.__setattr__(empty, "messages", (*session.history, Message("user", " ")))
    codes["empty question of another client"] = stage.post(empty)
    codes["over the cap"] = stage.ask("x" * MAX_QUESTION_BYTES)
    codes["over the model's context"] = stage.ask("How do I book leave? " * 400)
    question = Question((Message("user", f"{SECRET} in a request of its own"),), stage.options)
    sealed = session._seal(question).request
    codes["altered request"] = stage.post_sealed(sealed[:-1] + bytes([sealed[-1] ^ 1]))
    codes["unknown key"] = stage.post_sealed(sealed[:1] + bytes(8) + sealed[9:])
    for _ in session._transport.post_chat(sealed):
        pass
    codes["replayed request"] = stage.post_sealed(sealed)
    pieces = session.ask(f"{SECRET} nobody waits for", Options(temperature=2))
    text = next(piece for piece in pieces if piece)
    while len(text) < LEAST_BYTES and (more := next(pieces, "")):
        text += more
    stage.secrets.add("answer", text)
    pieces.close()
    codes["client hangs up"] = "hung up"


def _fail_at_kms(stage: Stage) -> None:
    """Have KMS refuse, betray and fail."""
    twin, codes = stage.twin, stage.codes
    stage.session.new_conversation()
    twin.aws.set_key_policy(twin.config.key_arn, json.dumps(policy_for([])))
    codes["KMS denies"] = stage.ask("that no approved release may read")
    twin.aws.set_key_policy(twin.config.key_arn, json.dumps(policy_for([twin.release])))
    with _bent(twin, lambda _, answer: {**answer, "Plaintext": b64encode(KMS_SECRET).decode()}):
        codes["KMS answers in clear"] = stage.ask("that KMS betrays")
    with _bent(twin, _fail):
        codes["KMS fails"] = stage.ask("that KMS fails at")


@contextmanager
def _bent(twin: Twin, transform: Transform) -> Iterator[None]:
    """Bend what KMS answers the enclave, and only the enclave."""
    straight = twin.aws.transform_answer

    def bend(action: str, answer: Answer) -> Answer:
        return transform(action, answer) if "CiphertextForRecipient" in answer else answer

    twin.aws.transform_answer = bend
    yield
    twin.aws.transform_answer = straight


def _fail(_: str, __: Answer) -> Answer:
    raise AwsError("KMSInvalidStateException", f"{OPEN} of KMS")


def _fail_at_nsm(stage: Stage) -> None:
    """Have the NSM fail between the first word of an answer and its receipt."""
    assert stage.ask("to have keys in the cache") == "answered"
    with stage.failing_nsm():
        stage.codes["NSM fails before the receipt"] = stage.ask("without a receipt", stage.unique)
        path = f"/v1/attestation?nonce={bytes(32).hex()}"
        stage.http("attestation without NSM", "GET", path)
    assert stage.ask("with a receipt again") == "answered"


def _lose_enclave(stage: Stage) -> None:
    """Kill the enclave in mid-answer, then ask on."""
    assert stage.ask("to have keys in the cache again") == "answered"
    with stage.holding_nsm():  # without a receipt no answer ends, however slow this process is
        pieces = stage.session.ask(f"{SECRET} that is not answered", stage.unique)
        first = next(piece for piece in pieces if piece)
        stage.twin.enclave.kill()
        stage.codes["enclave dies in mid-answer"] = stage.note(chain([first], pieces))
    stage.codes["enclave is gone"] = stage.ask("nobody hears")
    stage.http("readyz without enclave", "GET", "/readyz")
    stage.http("metrics without enclave", "GET", "/metrics")
    path = f"/v1/attestation?nonce={bytes(32).hex()}"
    stage.http("attestation without enclave", "GET", path)
