"""
A chain: the certificates that lead from a pinned root to the key that signed a document.

Four authorities and a leaf, each issued by the one before it; no path is searched for, no name
or extension is read that AWS's chains do not need. SPEC.md section 3, step 3.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID, SignatureAlgorithmOID

from app.protocol.asker.constants import CLOCK_LEEWAY_SECONDS
from app.protocol.errors import AttestationError

_MOST_KNOWN: Final = 32  # certificates; a chain has four below its root
_TIME: Final = "%Y-%m-%dT%H:%M:%S%z"
_CRITICAL: Final = {ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE}  # all we understand
_BAD_CERTIFICATE: Final = (
    ValueError,
    TypeError,
    InvalidSignature,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # negative serial numbers, where warnings are errors
)


def verify_chain(
    certificates: Sequence[bytes], *, root: x509.Certificate, now: datetime
) -> ec.EllipticCurvePublicKey:
    """
    Verify a chain and return its leaf's key.

    Args:
        certificates: DER, the root first and the leaf last. The root is there to be compared:
            what is trusted is the argument *root*.

        now: Aware time at which each must be valid, with `CLOCK_LEEWAY_SECONDS` of leeway on
            notBefore alone.

    Raises:
        AttestationError: It leads elsewhere, or any certificate breaks a rule. Where two clocks
            may be the reason, the message says so.

    Source: RFC 5280 section 6.1, less names and policies; aws-nitro-enclaves-nsm-api,
        docs/attestation_process.md, section 3.2.3.
    """
    if certificates[0] != root.public_bytes(Encoding.DER):
        raise AttestationError("document chains to another root than the one we trust")
    chain = [root]
    try:
        for der in certificates[1:]:
            chain.append(_load_issued(der, chain[-1]))
        keys = [_p384_key(certificate) for certificate in chain]
        *authorities, leaf = chain
        for below, authority in enumerate(reversed(authorities)):
            _require_authority(authority, below)
        _require_leaf(leaf)
    except _BAD_CERTIFICATE:
        raise AttestationError(
            "a certificate is malformed or not issued by the one above"
        ) from None
    for certificate in chain:
        _require_valid(certificate, now)
    return keys[-1]


@lru_cache(_MOST_KNOWN)
def _load_issued(der: bytes, issuer: x509.Certificate) -> x509.Certificate:
    """
    Load a certificate that *issuer* has signed.

    Bytes that were signed once stay signed: only what time changes is looked at again, by the
    caller. AWS's authorities last for days, and every receipt brings them along.
    """
    certificate = x509.load_der_x509_certificate(der)
    if certificate.signature_algorithm_oid != SignatureAlgorithmOID.ECDSA_WITH_SHA384:
        raise AttestationError("a certificate is not signed by ECDSA with SHA-384")
    certificate.verify_directly_issued_by(issuer)  # names and signature, nothing else
    return certificate


def _p384_key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise AttestationError("a certificate's key is not on P-384")
    return key


def _require_valid(certificate: x509.Certificate, now: datetime) -> None:
    """Leeway on notBefore alone: fresh documents follow their leaf's by a second or two."""
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now + timedelta(seconds=CLOCK_LEEWAY_SECONDS) < start:
        raise AttestationError(
            f"certificate is not yet valid at {now:{_TIME}}, only from {start:{_TIME}}: "
            "is this clock right?"
        )
    if now > end:
        raise AttestationError(
            f"certificate is no longer valid at {now:{_TIME}}, only to {end:{_TIME}}: "
            "is this clock right?"
        )


def _constraints(certificate: x509.Certificate) -> tuple[x509.BasicConstraints, x509.KeyUsage]:
    extensions = certificate.extensions
    if {extension.oid for extension in extensions if extension.critical} - _CRITICAL:
        raise AttestationError("a certificate has a critical extension we do not know")
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    if not basic.critical:
        raise AttestationError("a certificate's basic constraints are not critical")
    return basic.value, extensions.get_extension_for_class(x509.KeyUsage).value


def _require_authority(certificate: x509.Certificate, below: int) -> None:
    """*below* is the number of authorities between *certificate* and the leaf."""
    basic, usage = _constraints(certificate)
    if not basic.ca or not usage.key_cert_sign:
        raise AttestationError("a certificate of the chain may not issue others")
    if basic.path_length is not None and basic.path_length < below:
        raise AttestationError(f"chain is longer than its path length {basic.path_length} allows")


def _require_leaf(certificate: x509.Certificate) -> None:
    basic, usage = _constraints(certificate)
    if basic.ca or usage.key_cert_sign or not usage.digital_signature:
        raise AttestationError("the leaf certificate is not one that signs documents only")
