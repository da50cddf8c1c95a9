"""
A recipient: the attested enclave that alone can read KMS's answer.

A debug enclave's document is genuine to the real KMS, whose policy then compares zeros; here
it is refused outright, which is what our policies make of it, too.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from itertools import cycle
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from app.protocol import cbor
from app.protocol.asker.attestation import Attestation, verify_attestation
from app.protocol.constants import MAX_DOCUMENT_BYTES
from app.protocol.errors import AttestationError, ProtocolError
from local.aws.error import access_denied, validation_error
from local.aws.kms.call import Json, decode_blob, encode_blob
from local.aws.kms.cms import Form, encode_cms

_MAX_DOCUMENT_BYTES: Final = 262_144  # KMS API reference, RecipientInfo
_KEY_BITS: Final = (2048, 3072, 4096)
_TAG_COSE_SIGN1: Final = b"\xd2"


class Recipients:
    """Verifies documents under one root and encrypts to the keys in them."""

    def __init__(self, *, nsm_root: x509.Certificate, now: Callable[[], datetime]) -> None:
        self._root = nsm_root
        self._now = now
        self._forms: cycle[Form] = cycle(("constructed", "primitive"))

    def verify(self, recipient: Json) -> Attestation | None:
        """
        Verify the document of a Recipient parameter; None where there is no such parameter.

        Raises:
            AwsError: ValidationError if it is malformed, AccessDenied if it is genuine no more
                or never was.
        """
        if recipient is None:
            return None
        document = _parse_recipient(recipient)
        _require_shape(document)
        try:
            attestation = verify_attestation(document, root=self._root, now=self._now(), nonce=None)
        except AttestationError:
            raise access_denied("The attestation document is not valid.") from None
        _require_rsa(attestation.public_key)
        return attestation

    def answer(self, attestation: Attestation | None, plaintext: bytes) -> Mapping[str, Json]:
        """Give the field of an answer that holds *plaintext*, never both in clear and as CMS."""
        if attestation is None:
            return {"Plaintext": encode_blob(plaintext)}
        key = attestation.public_key or b""
        cms = encode_cms(plaintext, key, form=next(self._forms))
        return {"CiphertextForRecipient": encode_blob(cms)}


def _parse_recipient(recipient: Json) -> bytes:
    if not isinstance(recipient, dict):
        raise validation_error("Recipient is not an object")
    if recipient.get("KeyEncryptionAlgorithm") != "RSAES_OAEP_SHA_256":
        raise validation_error("KeyEncryptionAlgorithm is not RSAES_OAEP_SHA_256")
    document = recipient.get("AttestationDocument")
    return decode_blob(document, "AttestationDocument", most=_MAX_DOCUMENT_BYTES)


def _require_shape(document: bytes) -> None:
    # What AWS calls malformed, as opposed to untrusted: not COSE_Sign1 around a CBOR map.
    try:
        untagged = document.removeprefix(_TAG_COSE_SIGN1)[: MAX_DOCUMENT_BYTES + 1]
        cose = cbor.decode(untagged, any_form=True)
        match cose:
            case [bytes(), dict(), bytes(payload), bytes()] if isinstance(
                cbor.decode(payload, any_form=True), dict
            ):
                return
    except ProtocolError:
        pass
    raise validation_error("AttestationDocument is malformed")


def _require_rsa(public_key: bytes | None) -> None:
    try:
        key = load_der_public_key(public_key or b"")
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, rsa.RSAPublicKey) or key.key_size not in _KEY_BITS:
        raise validation_error("AttestationDocument has no RSA public key of 2048 bits or more")
