"""
A message: one byte of kind and a body, in a frame. SPEC.md section 2.1.

The parent reads kinds and lengths, nothing else, so this module needs no cryptography. What the
enclave answers is read by `app.protocol.asker.messages`.
"""

from dataclasses import asdict, dataclass
from enum import IntEnum

from app.protocol import cbor
from app.protocol.constants import NONCE_BYTES
from app.protocol.errors import AppError, ProtocolError, wire_code


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
    Counts from inside, and nothing else.

    Attributes:
        active, waiting: Answers under way.

        answered, failed, refused: Chat requests that ended; SPEC.md section 2.1.

        loading: Bytes of weights that have come, and in all; None once it answers.
    """

    active: int
    waiting: int
    answered: int
    failed: int
    refused: int = 0
    loading: tuple[int, int] | None = None


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


def encode_hint(error: AppError) -> bytes:
    """Give the hint message for *error*: its code if that may travel, else `internal`."""
    return encode_message(Kind.HINT, wire_code(error).encode())


def encode_health(report: HealthReport) -> bytes:
    """Give the health report message."""
    return encode_message(Kind.HEALTH_REPORT, cbor.encode(asdict(report)))
