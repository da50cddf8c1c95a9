"""
The signature section: who vouches for PCR0 of a signed EIF.

CBOR, as Rust's serde writes it: an array of one map, its byte strings as arrays of integers. The
certificate is PEM, the signature an untagged COSE_Sign1 by ES384 over {register index, value}.
That the certificate is one to trust is the reader's decision, by PCR8: none is chained here.

Source: aws-nitro-enclaves-image-format, src/defs/mod.rs, PcrSignature and PcrInfo; RFC 9052.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding

from image.errors import ImageError

_PROTECTED: Final = bytes.fromhex("a1013822")  # {1: -35}: ES384
_SIGNATURE_BYTES: Final = 96  # r and s of P-384


@dataclass(frozen=True, slots=True)
class _Signed:
    certificate_pem: bytes
    payload: bytes
    signature: bytes


def verify_signature(section: bytes, pcr0: bytes) -> bytes:
    """
    Verify that *section* signs *pcr0*, and return SHA-384 of the signing certificate (DER).

    Args:
        section: Content of the signature section; any bytes.

        pcr0: As measured, 48 bytes.

    Raises:
        ImageError: It is malformed, signs another PCR, or does not verify.
    """
    signed = _parse(section)
    certificate, key = _parse_certificate(signed.certificate_pem)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ImageError("signing certificate has no P-384 key: only ES384 is read here")
    half = _SIGNATURE_BYTES // 2
    r, s = (int.from_bytes(part) for part in (signed.signature[:half], signed.signature[half:]))
    message = cbor2.dumps(["Signature1", _PROTECTED, b"", signed.payload])
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA384()))
    except InvalidSignature:
        raise ImageError("signature does not verify under the signing certificate") from None
    _require_pcr0(signed.payload, pcr0)
    return hashlib.sha384(certificate.public_bytes(Encoding.DER)).digest()


def _parse(section: bytes) -> _Signed:
    match _decode(section, "signature section"):
        case [{"signing_certificate": list(certificate), "signature": list(cose), **rest}] if (
            not rest
        ):
            pem = _bytes_of(certificate, "signing_certificate")
            cose_bytes = _bytes_of(cose, "signature")
        case _:
            raise ImageError("signature section is not one certificate with one signature")
    match _decode(cose_bytes, "signature"):
        case [bytes(protected), dict(unprotected), bytes(payload), bytes(signature)]:
            pass
        case _:
            raise ImageError("signature is not an untagged COSE_Sign1")
    if protected != _PROTECTED or unprotected:
        raise ImageError("COSE headers of the signature are not exactly those of ES384")
    if len(signature) != _SIGNATURE_BYTES:
        raise ImageError(f"signature has {len(signature)} bytes, expected {_SIGNATURE_BYTES}")
    return _Signed(pem, payload, signature)


def _parse_certificate(pem: bytes) -> tuple[x509.Certificate, object]:
    try:
        certificate = x509.load_pem_x509_certificate(pem)
        return certificate, certificate.public_key()
    except (ValueError, UnsupportedAlgorithm):
        raise ImageError("signing_certificate is no certificate in PEM") from None


def _require_pcr0(payload: bytes, pcr0: bytes) -> None:
    match _decode(payload, "payload of the signature"):
        case {"register_index": 0, "register_value": list(value), **rest} if not rest:
            signed = _bytes_of(value, "register_value")
        case _:
            raise ImageError("payload of the signature is not the value of PCR0")
    if signed != pcr0:
        raise ImageError(f"signature is over PCR0 {signed.hex()[:16]}…, not {pcr0.hex()[:16]}…")


def _decode(data: bytes, name: str) -> object:
    """Decode one item, in the one encoding that serde gives it: no key twice, nothing after it."""
    try:
        value: object = cbor2.loads(data)
        again = cbor2.dumps(value)
    except (cbor2.CBORError, ValueError, TypeError, RecursionError, OverflowError, MemoryError):
        raise ImageError(f"{name} is not CBOR") from None
    if again != data:
        raise ImageError(f"{name} is not in its shortest CBOR encoding")
    return value


def _bytes_of(values: list[object], name: str) -> bytes:
    if not all(type(value) is int and 0 <= value <= 0xFF for value in values):
        raise ImageError(f"{name} is not an array of bytes")
    return bytes(value for value in values if isinstance(value, int))
