"""
The asker's half of a sealed request: sealing it to the enclave's attested HPKE key.

SPEC.md sections 4 and 5.1; opening is in `app.protocol.sealing`.
"""

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from app.protocol.asker.authorization import encode_authorization
from app.protocol.authorization import Authorization
from app.protocol.constants import PROTOCOL_VERSION
from app.protocol.errors import EnvelopeError
from app.protocol.sealing import SUITE, SealedRequest, derive_key_id, request_info


def seal_request(
    authorization: Authorization, envelope: bytes, *, public_key: bytes, manifest_digest: bytes
) -> bytes:
    """
    Seal *authorization* and *envelope* to the enclave that attested *public_key*.

    Args:
        public_key: 32 bytes, from a verified attestation document.

    Raises:
        EnvelopeError: *public_key* is no usable X25519 key.
    """
    try:
        recipient = X25519PublicKey.from_public_bytes(public_key)
        info = request_info(manifest_digest, public_key)
        inside = encode_authorization(authorization) + envelope
        ciphertext = SUITE.encrypt(inside, recipient, info=info)
    except ValueError:
        raise EnvelopeError("the attested public key is not usable") from None
    return encode_sealed_request(SealedRequest(derive_key_id(public_key), ciphertext))


def encode_sealed_request(request: SealedRequest) -> bytes:
    """Give the bytes that are posted."""
    head = bytes([PROTOCOL_VERSION]) + request.key_id
    return head + len(request.ciphertext).to_bytes(4) + request.ciphertext
