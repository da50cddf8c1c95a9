"""
A sealed request: authorization and envelope under the enclave's attested HPKE key.

SPEC.md sections 4, 5.1 and 5.2; sealing one is `app.protocol.asker.sealing`.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from app.protocol.authorization import Authorization, parse_authorization
from app.protocol.constants import (
    AUTHORIZATION_BYTES,
    KEY_ID_BYTES,
    LABEL,
    PROTOCOL_VERSION,
    X25519_KEY_BYTES,
)
from app.protocol.envelope import ENVELOPE_SIZES
from app.protocol.errors import EnvelopeError, ProtocolError, VersionError

SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
_LABEL: Final = LABEL + b"request"
_HEAD_BYTES: Final = 1 + KEY_ID_BYTES + 4


@dataclass(frozen=True, slots=True)
class SealedRequest:
    """What crosses the parent: a key id and bytes. Nothing in it has been opened."""

    key_id: bytes
    ciphertext: bytes

    @property
    def enc(self) -> bytes:
        """HPKE's encapsulated key, different in every request honestly made."""
        return self.ciphertext[:X25519_KEY_BYTES]


def parse_sealed_request(data: bytes) -> SealedRequest:
    """
    Parse the outside of a sealed request.

    Raises:
        VersionError: It is of another version.

        ProtocolError: It has a length that no request can have.
    """
    if data[:1] != bytes([PROTOCOL_VERSION]):
        raise VersionError(f"sealed request is not of version {PROTOCOL_VERSION}")
    length, ciphertext = data[1 + KEY_ID_BYTES : _HEAD_BYTES], data[_HEAD_BYTES:]
    if len(length) != 4 or int.from_bytes(length) != len(ciphertext):
        raise ProtocolError("sealed request is not as long as it says")
    return SealedRequest(key_id=data[1 : 1 + KEY_ID_BYTES], ciphertext=ciphertext)


def derive_key_id(public_key: bytes) -> bytes:
    """Name an X25519 public key: the first bytes of its digest."""
    return hashlib.sha256(public_key).digest()[:KEY_ID_BYTES]


def digest_request(request: bytes) -> bytes:
    """Give the request digest: SHA-256 of all that was posted."""
    return hashlib.sha256(request).digest()


def open_request(
    request: SealedRequest, *, private_key: X25519PrivateKey, manifest_digest: bytes
) -> bytes:
    """
    Open *request* and give what `parse_opened` parses.

    That it was not seen before is for the caller to check, before it parses.

    Raises:
        EnvelopeError: It does not open.
    """
    public_key = private_key.public_key().public_bytes_raw()
    info = request_info(manifest_digest, public_key)
    try:
        return SUITE.decrypt(request.ciphertext, private_key, info=info)
    except (InvalidTag, ValueError):
        raise EnvelopeError("sealed request does not open") from None


def parse_opened(plaintext: bytes) -> tuple[Authorization, bytes]:
    """
    Part what was sealed into the authorization and the envelope, which is still sealed.

    Raises:
        ProtocolError: It breaks the format.
    """
    envelope = plaintext[AUTHORIZATION_BYTES:]
    if len(envelope) not in ENVELOPE_SIZES:
        raise ProtocolError(f"envelope of {len(envelope)} bytes fits no bucket")
    return parse_authorization(plaintext[:AUTHORIZATION_BYTES]), envelope


def request_info(manifest_digest: bytes, public_key: bytes) -> bytes:
    """Give HPKE's info: what a request is bound to."""
    return _LABEL + manifest_digest + hashlib.sha256(public_key).digest()
