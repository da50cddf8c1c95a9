"""
A message: one byte of kind and a body, in a frame. SPEC.md section 2.1.

The parent reads kinds and lengths, nothing else, so this module needs no cryptography.
"""

from dataclasses import dataclass
from enum import IntEnum

from app.protocol import cbor
from app.protocol.constants import MAX_DOCUMENT_BYTES, NONCE_BYTES
from app.protocol.errors import WIRE_ERRORS, AppError, ProtocolError, wire_code

MAX_MANIFEST_BYTES = 4096


class Kind(IntEnum):
    """The first byte of a message."""

    ATTEST = 0x01
    CHAT = 0x02
    HEALTH = 0x03
    ATTESTATION = 0x81
    ANSWER_HEADER = 0x82
    ANSWER_FRAME = 0x83
    FINAL_FRAME = 0x84
    SEALED_ERROR = 0x85
    HINT = 0x8E
    HEALTH_REPORT = 0x8F


@dataclass(frozen=True, slots=True)
class HealthReport:
    """
    Counts from inside, and nothing else: answers under way, waiting, ended well, failed.

    Attributes:
        failed: What went wrong after its question had opened.

        refused: What was refused before that, or given up by whoever asked.
    """

    active: int
    waiting: int
    answered: int
    failed: int
    refused: int = 0


def encode_message(kind: Kind, body: bytes = b"") -> bytes:
    """Join *kind* and *body*."""
    return bytes([kind]) + body


def parse_message(payload: bytes) -> tuple[Kind, bytes]:
    """
    Part a frame's payload into kind and body.

    Raises:
        ProtocolError: The kind is unknown.
    """
    try:
        return Kind(payload[0]), payload[1:]
    except (ValueError, IndexError):
        raise ProtocolError("message of an unknown kind") from None


def parse_nonce(body: bytes) -> bytes:
    """
    Parse the body of an attest message.

    Raises:
        ProtocolError: It is not `NONCE_BYTES` long.
    """
    if len(body) != NONCE_BYTES:
        raise ProtocolError(f"nonce of {len(body)} bytes, expected {NONCE_BYTES}")
    return body


def encode_attestation(document: bytes, manifest: bytes) -> bytes:
    """Give the body of an attestation message."""
    return cbor.encode([document, manifest])


def parse_attestation(body: bytes) -> tuple[bytes, bytes]:
    """
    Parse the body of an attestation message into document and manifest, neither verified.

    Raises:
        ProtocolError: It is not exactly these two.
    """
    if len(body) > MAX_DOCUMENT_BYTES + MAX_MANIFEST_BYTES:
        raise ProtocolError(f"attestation message of {len(body)} bytes")
    match cbor.decode(body):
        case [bytes(document), bytes(manifest)]:
            return document, manifest
    raise ProtocolError("attestation message is not a document and a manifest")


def encode_hint(error: AppError) -> bytes:
    """Give the hint message for *error*: its code if that may travel, else `internal`."""
    return encode_message(Kind.HINT, wire_code(error).encode())


def parse_hint(body: bytes) -> AppError:
    """Give the error that a hint names; an unknown one is `internal`. Not authenticated."""
    error = WIRE_ERRORS.get(body.decode("ascii", "replace"), AppError)()
    error.hint = True
    return error


def encode_health(report: HealthReport) -> bytes:
    """Give the health report message."""
    body = cbor.encode(
        {
            "active": report.active,
            "waiting": report.waiting,
            "answered": report.answered,
            "failed": report.failed,
            "refused": report.refused,
        }
    )
    return encode_message(Kind.HEALTH_REPORT, body)


def parse_health(body: bytes) -> HealthReport:
    """
    Parse the body of a health report.

    Raises:
        ProtocolError: It is not exactly five counts.
    """
    match cbor.decode(body):
        case {
            "active": int(active),
            "waiting": int(waiting),
            "answered": int(answered),
            "failed": int(failed),
            "refused": int(refused),
            **rest,
        } if not rest:
            report = HealthReport(active, waiting, answered, failed, refused)
            if encode_health(report) == encode_message(Kind.HEALTH_REPORT, body):
                return report
    raise ProtocolError("health report has other fields")
