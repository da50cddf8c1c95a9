import base64
import json
import runpy
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.x509 import load_der_x509_certificate

from app.protocol import errors
from app.protocol.asker.answer import AnswerOpener, open_error, parse_header
from app.protocol.asker.attestation import verify_attestation
from app.protocol.asker.manifest import parse_manifest
from app.protocol.asker.messages import parse_attestation, parse_health, parse_hint
from app.protocol.asker.question import encode_question
from app.protocol.asker.receipt import verify_receipt
from app.protocol.asker.weights import encode_weights_key
from app.protocol.authorization import parse_key_arn
from app.protocol.envelope import open_question
from app.protocol.errors import AppError, wire_code
from app.protocol.frames import FrameReader
from app.protocol.messages import Kind, parse_message, parse_nonce
from app.protocol.question import Options, parse_question
from app.protocol.releases import Measurements
from app.protocol.sealing import open_request, parse_opened, parse_sealed_request
from app.protocol.weights import parse_weights_key
from app.protocol.weights_piece import PieceOpener

VECTORS = Path(__file__).parents[2] / "vectors"
FILES = sorted((VECTORS / "protocol").glob("*.json"))


class Vector:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.fields: dict[str, object] = json.loads(path.read_text())
        self.expect = self.text("expect")

    def text(self, name: str) -> str:
        value = self.fields[name]
        assert isinstance(value, str)
        return value

    def number(self, name: str) -> int:
        value = self.fields[name]
        assert isinstance(value, int)
        return value

    def flag(self, name: str) -> bool:
        value = self.fields[name]
        assert isinstance(value, bool)
        return value

    def data(self, name: str) -> bytes:
        return base64.b64decode(self.text(name), validate=True)

    def list(self, name: str) -> list[bytes]:
        values = self.fields[name]
        assert isinstance(values, list)
        return [base64.b64decode(value, validate=True) for value in values]


def open_frames(vector: Vector) -> None:
    """Read a stream, a byte at a time."""
    reader, payloads = FrameReader(), list[bytes]()
    try:
        for byte in vector.data("stream"):
            payloads += reader.feed(bytes([byte]))
        reader.finish()
    finally:
        assert payloads == vector.list("payloads")


def open_message(vector: Vector) -> None:
    """Read a message and its body."""
    kind, body = parse_message(vector.data("payload"))
    parsers: dict[Kind, Callable[[bytes], object]] = {
        Kind.ATTEST: parse_nonce,
        Kind.ATTESTATION: parse_attestation,
        Kind.ANSWER_HEADER: parse_header,
        Kind.HEALTH_REPORT: parse_health,
    }
    parsers[kind](body)


def open_hint(vector: Vector) -> None:
    """Read a hint's body."""
    error = parse_hint(vector.data("body"))
    assert (error.code, error.hint) == (vector.text("code"), True)


def open_manifest(vector: Vector) -> None:
    """Read a manifest; its own encoder writes the same bytes."""
    data = vector.data("manifest")
    assert parse_manifest(data).encode() == data


def open_kms_host(vector: Vector) -> None:
    """Find KMS's name in the table of Regions."""
    place = parse_key_arn(vector.text("key_arn")).place
    assert place.kms_host(fips=vector.flag("fips")) == vector.text("host")


def open_plain_question(vector: Vector) -> None:
    """Read a question; its own encoder writes the same bytes."""
    data = vector.data("question")
    assert encode_question(parse_question(data)) == data


def open_envelope(vector: Vector) -> None:
    """Open a question."""
    question = open_question(
        vector.data("envelope"),
        data_key=vector.data("data_key"),
        key_arn=parse_key_arn(vector.text("key_arn")),
        conversation=vector.data("conversation"),
        turn=vector.number("turn"),
    )
    assert question.messages[-1].text == vector.text("text")


def open_sealed_request(vector: Vector) -> None:
    """Open a sealed request and the question in it."""
    opened = open_request(
        parse_sealed_request(vector.data("request")),
        private_key=X25519PrivateKey.from_private_bytes(vector.data("private_key")),
        manifest_digest=vector.data("manifest_digest"),
    )
    authorization, envelope = parse_opened(opened)
    question = open_question(
        envelope,
        data_key=vector.data("data_key"),
        key_arn=authorization.key_arn,
        conversation=authorization.conversation,
        turn=authorization.turn,
    )
    assert question.messages[-1].text == vector.text("text")


def open_answer(vector: Vector) -> None:
    """Open an answer's frames; its text is checked however it ends."""
    opener = AnswerOpener(
        vector.data("header"),
        data_key=vector.data("data_key"),
        answer_secret=vector.data("answer_secret"),
        request_digest=vector.data("request_digest"),
        options=Options(n=16, logprobs=2),
    )
    text = ""
    try:
        for frame in vector.list("frames"):
            for piece in opener.open(*parse_message(frame)):
                text += f"\2{piece.text}\3" if piece.control else piece.text
        receipt, _ = opener.finish()
    finally:
        assert text == vector.text("text")
    assert receipt == vector.data("receipt")


def open_sealed_error(vector: Vector) -> None:
    """Open a sealed error."""
    error = open_error(
        vector.data("body"),
        answer_secret=vector.data("answer_secret"),
        request_digest=vector.data("request_digest"),
    )
    assert error.code == vector.text("code")
    assert list(error.numbers) == vector.fields["numbers"]


def open_document(vector: Vector) -> None:
    """Verify an attestation document."""
    verify_attestation(
        vector.data("document"),
        root=load_der_x509_certificate(vector.data("root")),
        now=datetime.fromisoformat(vector.text("now")),
        nonce=vector.data("nonce"),
    )


def open_receipt(vector: Vector) -> None:
    """Verify a receipt; its own encoder writes the same statement."""
    receipt, _ = verify_receipt(
        vector.data("signed"),
        root=load_der_x509_certificate(vector.data("root")),
        now=datetime.fromisoformat(vector.text("now")),
        measurements=Measurements(*vector.list("pcrs")),
        request_digest=vector.data("request_digest"),
        answer_digest=vector.data("answer_digest"),
        manifest_digest=vector.data("manifest_digest"),
        conversation=vector.data("conversation"),
        key_arn=vector.text("key_arn"),
        padding="constant",
    )
    assert receipt.encode() in vector.data("signed")


def open_weights_key(vector: Vector) -> None:
    """Read what the parent says about the weights' key; its own encoder writes the same bytes."""
    message = vector.data("message")
    assert encode_weights_key(parse_weights_key(message[1:])) == message


def open_weights_piece(vector: Vector) -> None:
    """Open a sealed piece of a weights file."""
    opener = PieceOpener(
        data_key=vector.data("data_key"),
        package_digest=vector.data("package_digest"),
        file_digest=vector.data("file_digest"),
        key_arn=parse_key_arn(vector.text("key_arn")),
    )
    sealed, number = vector.data("sealed"), vector.number("number")
    assert opener.open(sealed, number, last=vector.flag("last")) == vector.data("data")


OPENERS: dict[str, Callable[[Vector], None]] = {
    "frames": open_frames,
    "message": open_message,
    "hint": open_hint,
    "manifest": open_manifest,
    "kms_host": open_kms_host,
    "question": open_plain_question,
    "envelope": open_envelope,
    "sealed_request": open_sealed_request,
    "answer": open_answer,
    "sealed_error": open_sealed_error,
    "document": open_document,
    "receipt": open_receipt,
    "weights_key": open_weights_key,
    "weights_piece": open_weights_piece,
}


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_vector(path: Path) -> None:
    """
    What a second implementation of SPEC.md sealed opens, or is refused by the error stated.
    """
    vector = Vector(path)
    opener = OPENERS[vector.text("opens")]
    if vector.expect == "success":
        opener(vector)
        return
    expected = getattr(errors, vector.expect)
    with pytest.raises(AppError) as caught:
        opener(vector)
    # A refined error counts as the one on the wire: `QuestionError` as `ProtocolError`.
    assert wire_code(caught.value) == wire_code(expected()), vector.text("comment")
    assert isinstance(caught.value, expected), vector.text("comment")


def test_most_are_refused() -> None:
    """
    Each thing that is opened has a vector that succeeds, and most vectors are refused.
    """
    kinds = Counter(
        (vector.text("opens"), vector.expect == "success") for vector in map(Vector, FILES)
    )
    assert {kind for kind, success in kinds if success} == set(OPENERS)
    assert len(FILES) >= 150
    assert sum(n for (_, success), n in kinds.items() if not success) > len(FILES) * 2 / 3


def test_committed_files_are_the_script_s() -> None:
    """
    The script makes the committed files, byte for byte.
    """
    made = runpy.run_path(str(VECTORS / "make_protocol.py"))["make"]()
    assert made == {path.name: path.read_text() for path in FILES}


def test_the_script_is_independent() -> None:
    """
    The script shares no code with what it tests.
    """
    source = (VECTORS / "make_protocol.py").read_text()
    assert "from app" not in source
    assert "import app" not in source
