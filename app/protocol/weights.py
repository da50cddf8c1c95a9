"""
The weights stream: how an enclave will take in the files of its model. SPEC.md section 8.

No program serves it yet: these are its messages and the sealing of its pieces, for both sides.
"""

import hashlib
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.protocol import cbor
from app.protocol.authorization import Credentials, KeyArn, parse_key_arn
from app.protocol.constants import (
    DATA_KEY_BYTES,
    GCM_TAG_BYTES,
    LABEL,
    MAX_WRAPPED_KEY_BYTES,
)
from app.protocol.errors import EnvelopeError, ProtocolError

WEIGHTS_PORT: Final = 8001  # vsock; the parent listens
WEIGHTS_PIECE_BYTES: Final = 1023 * 1024  # in clear; sealed and in its frame still under 1 MiB
WEIGHTS_MESSAGE_SECONDS: Final = 30  # for the first message, and for each after it
WEIGHTS_FILE_SECONDS: Final = 60  # and one more for each MiB
PURPOSE_WEIGHTS: Final = "weights"  # in the encryption context, beside `digest`
_DIGEST_BYTES: Final = hashlib.sha256().digest_size
_LABEL: Final = LABEL + b"weights"
_KEYS: Final = (
    "access_key_id", "secret_access_key", "session_token", "key_arn", "fips",
    "wrapped_weights_key",
)  # fmt: skip


class Kind(IntEnum):
    """The first byte of a message of this stream, none of which the other streams have."""

    ASK_KEY = 0x04
    ASK_FILE = 0x05
    KEY = 0x91
    PIECE = 0x92
    END = 0x93


@dataclass(frozen=True, slots=True)
class WeightsKey:
    """What opens sealed weights: their wrapped key, and credentials worth nothing without PCRs."""

    credentials: Credentials
    key_arn: KeyArn
    fips: bool
    wrapped: bytes


def encode_weights_key(key: WeightsKey | None) -> bytes:
    """Give the parent's message about *key*, None where the files lie in clear."""
    if key is None:
        return bytes([Kind.KEY]) + cbor.encode(None)
    values = (
        key.credentials.access_key_id,
        key.credentials.secret_access_key,
        key.credentials.session_token,
        key.key_arn.text,
        key.fips,
        key.wrapped,
    )
    return bytes([Kind.KEY]) + cbor.encode(dict(zip(_KEYS, values, strict=True)))


def parse_weights_key(body: bytes) -> WeightsKey | None:
    """
    Parse the body of the parent's message about the key; None where the files lie in clear.

    Raises:
        ProtocolError: It is neither.
    """
    if body == cbor.encode(None):
        return None
    match cbor.decode_map(body, _KEYS):
        case {
            "access_key_id": str(access_key_id),
            "secret_access_key": str(secret_access_key),
            "session_token": str(session_token),
            "key_arn": str(key_arn),
            "fips": bool(fips),
            "wrapped_weights_key": bytes(wrapped),
        } if 1 <= len(wrapped) <= MAX_WRAPPED_KEY_BYTES:
            credentials = Credentials(access_key_id, secret_access_key, session_token)
            arn = parse_key_arn(key_arn)
            _ = arn.place.kms_host(fips=fips)  # there is one
            return WeightsKey(credentials, arn, fips, wrapped)
    raise ProtocolError("weights key is malformed")


def parse_file_digest(body: bytes) -> bytes:
    """
    Parse the body of the enclave's question for a file: the SHA-256 of its plain bytes.

    Raises:
        ProtocolError: It has another length.
    """
    if len(body) != _DIGEST_BYTES:
        raise ProtocolError(f"digest of {len(body)} bytes, expected {_DIGEST_BYTES}")
    return body


@dataclass(frozen=True, slots=True)
class PieceOpener:
    """
    Opens the pieces of one sealed file.

    Args:
        data_key: 32 bytes, the weights data key.

        package_digest: SHA-256 of model.json.

        file_digest: SHA-256 of the plain file.
    """

    data_key: bytes = field(repr=False)
    package_digest: bytes
    file_digest: bytes
    key_arn: KeyArn

    def open(self, sealed: bytes, number: int, *, last: bool) -> bytes:
        """
        Open piece *number*, from 0.

        Raises:
            EnvelopeError: It does not open: altered, moved, of another file, package or key.

            ProtocolError: It has not the size of a piece.
        """
        size = len(sealed) - GCM_TAG_BYTES
        if not (1 <= size <= WEIGHTS_PIECE_BYTES and (last or size == WEIGHTS_PIECE_BYTES)):
            raise ProtocolError(f"sealed piece of {len(sealed)} bytes")
        info = _LABEL + self.package_digest + self.file_digest
        aead = AESGCM(HKDF(SHA256(), DATA_KEY_BYTES, None, info).derive(self.data_key))
        try:
            nonce = number.to_bytes(11) + bytes([last])
            return aead.decrypt(nonce, sealed, self.key_arn.text.encode())
        except InvalidTag:
            raise EnvelopeError("piece of the weights does not open") from None
