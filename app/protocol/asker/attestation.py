"""
An attestation: the verified contents of a document that a Nitro Secure Module signed.

The document is COSE_Sign1 (RFC 9052) with a certificate chain inside. SPEC.md section 3 numbers
the steps of verification; so do the comments in `verify_attestation`.
"""

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384

from app.protocol import cbor
from app.protocol.asker.chain import verify_chain
from app.protocol.asker.constants import (
    CLOCK_LEEWAY_SECONDS,
    MAX_CABUNDLE_CERTIFICATES,
    MAX_CERTIFICATE_BYTES,
    MAX_DOCUMENT_AGE_SECONDS,
    MAX_NONCE_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_PCRS,
    MAX_PUBLIC_KEY_BYTES,
    MAX_USER_DATA_BYTES,
)
from app.protocol.attestation import Kind, encode_user_data
from app.protocol.constants import MAX_DOCUMENT_BYTES, PCR_BYTES
from app.protocol.errors import AttestationError, PcrMismatchError, ProtocolError
from app.protocol.releases import Measurements, Release

_TAG_COSE_SIGN1: Final = b"\xd2"  # tag 18, which real documents leave out
_PROTECTED: Final = bytes.fromhex("a1013822")  # {1: -35}: ES384, and nothing else is accepted
_SIGNATURE_BYTES: Final = 96  # r and s of P-384
_MODULE_ID: Final = re.compile(r"i-[0-9a-f]{8,17}-enc[0-9a-f]{8,17}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_TIMESTAMP_MS: Final = 2**47  # the year 6429; datetime ends at 9999
_MEASURED: Final = (0, 1, 2)  # the PCRs that tell one EIF from another
_OPTIONAL: Final = {"public_key", "user_data", "nonce"}


@dataclass(frozen=True, slots=True)
class Attestation:
    """
    What a verified document says.

    Attributes:
        module_id: Names instance and enclave: `i-…-enc…`.

        timestamp: Aware; the hypervisor's clock when it signed.

        pcrs: 48 bytes each; 0, 1 and 2 are there and not zero.

        public_key: At most 1,024 bytes; None where absent, null or empty, as the next two.
    """

    module_id: str
    timestamp: datetime
    pcrs: dict[int, bytes]
    public_key: bytes | None
    user_data: bytes | None
    nonce: bytes | None

    @property
    def measurements(self) -> Measurements:
        """PCR0, PCR1 and PCR2."""
        return Measurements(*(self.pcrs[index] for index in _MEASURED))


@dataclass(frozen=True, slots=True)
class _Signed:
    payload: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class _Claims:
    """A payload's contents, which nobody has vouched for yet."""

    unverified_attestation: Attestation
    certificates: list[bytes]  # from the root to the leaf


def verify_attestation(
    document: bytes, *, root: x509.Certificate, now: datetime, nonce: bytes | None
) -> Attestation:
    """
    Verify *document* and return what it attests.

    Whether its PCRs are ones we trust and its user_data what we expect is the caller's
    decision: see `require_pcrs` and `require_user_data`.

    Args:
        document: Any bytes; COSE_Sign1, its payload at most 16 KiB, passes.

        root: Trust anchor; `NITRO_ROOT` everywhere but in the twin and tests.

        now: Aware time at which every certificate must be valid and the document recent.

        nonce: The 32 bytes we asked the enclave to embed; None where freshness comes from the
            document's age alone.

    Raises:
        AttestationError: *document* can't be trusted, for whatever reason. Where two clocks may
            be the reason, the message says so.

    Source: aws-nitro-enclaves-nsm-api, docs/attestation_process.md, section 3; SPEC.md section 3.
    """
    signed = _parse_cose(document)  # 1
    claims = _parse_payload(signed.payload)  # 2
    key = verify_chain(claims.certificates, root=root, now=now)  # 3
    _verify_signature(signed, key)  # 4
    attestation = claims.unverified_attestation
    _require_fresh(attestation.timestamp, now)  # 5
    _require_not_debug(attestation)  # 6
    if nonce is not None:
        _require_nonce(attestation, nonce)  # 7
    return attestation


def unverified_certificates(document: bytes) -> list[bytes]:
    """
    Read the certificates in *document*, DER, from the root to the one that signed it.

    For a document that the caller has verified, to show them.

    Raises:
        AttestationError: It has not the form of a document.
    """
    return _parse_payload(_parse_cose(document).payload).certificates


def require_pcrs(attestation: Attestation, releases: Sequence[Release]) -> Release:
    """
    Require that PCR0, PCR1 and PCR2 together are those of one release, and return it.

    Raises:
        PcrMismatchError: They are of none; the message compares them with the nearest one.
    """
    got = attestation.measurements
    for release in releases:
        if release.measurements == got:
            return release
    if not releases:
        raise PcrMismatchError("no release is approved, so no enclave can be trusted")
    nearest = min(releases, key=lambda release: len(_differences(got, release)))
    differences = ", ".join(_differences(got, nearest))
    raise PcrMismatchError(f"enclave is not release {nearest.name}: {differences}")


def require_user_data(attestation: Attestation, *, kind: Kind, digest: bytes) -> None:
    """
    Require that the document was made for *kind* and vouches for *digest*.

    Raises:
        AttestationError: Its user_data is another or missing.
    """
    expected = encode_user_data(kind, digest)
    if not hmac.compare_digest(attestation.user_data or b"", expected):
        raise AttestationError(f"user_data is not that of kind {kind} with the digest expected")


def _parse_cose(document: bytes) -> _Signed:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise AttestationError(f"document has {len(document)} bytes, at most {MAX_DOCUMENT_BYTES}")
    match _decode(document.removeprefix(_TAG_COSE_SIGN1)):
        case [bytes(protected), dict(unprotected), bytes(payload), bytes(signature)]:
            pass
        case _:
            raise AttestationError("document is not a COSE_Sign1 array of four")
    if protected != _PROTECTED or unprotected:
        raise AttestationError("COSE headers are not exactly those of ES384")
    if not 1 <= len(payload) <= MAX_PAYLOAD_BYTES:
        raise AttestationError(f"payload has {len(payload)} bytes, at most {MAX_PAYLOAD_BYTES}")
    if len(signature) != _SIGNATURE_BYTES:
        raise AttestationError(f"signature has {len(signature)} bytes, not {_SIGNATURE_BYTES}")
    return _Signed(payload, signature)


def _parse_payload(payload: bytes) -> _Claims:
    match _decode(payload):
        case {
            "module_id": str(module_id),
            "digest": "SHA384",
            "timestamp": int(timestamp),
            "pcrs": dict(pcrs),
            "certificate": bytes(certificate),
            "cabundle": list(cabundle),
            **optional,
        } if optional.keys() <= _OPTIONAL and not isinstance(timestamp, bool):
            pass
        case _:
            raise AttestationError("payload has other fields than an NSM writes")
    if _MODULE_ID.fullmatch(module_id) is None:
        raise AttestationError("module_id is not that of an enclave")
    if not 0 < timestamp < _MAX_TIMESTAMP_MS:
        raise AttestationError("timestamp is out of range")
    attestation = Attestation(
        module_id=module_id,
        timestamp=_EPOCH + timedelta(milliseconds=timestamp),
        pcrs=_parse_pcrs(pcrs),
        public_key=_parse_optional(optional.get("public_key"), MAX_PUBLIC_KEY_BYTES),
        user_data=_parse_optional(optional.get("user_data"), MAX_USER_DATA_BYTES),
        nonce=_parse_optional(optional.get("nonce"), MAX_NONCE_BYTES),
    )
    if not 1 <= len(cabundle) <= MAX_CABUNDLE_CERTIFICATES:
        raise AttestationError(f"cabundle has {len(cabundle)} certificates")
    return _Claims(attestation, [_sized(item) for item in (*cabundle, certificate)])


def _decode(data: bytes) -> cbor.Cbor:
    try:
        return cbor.decode(data, any_form=True)
    except ProtocolError as error:
        raise AttestationError(f"document is malformed: {error}") from None


def _parse_pcrs(values: dict[int | str, cbor.Cbor]) -> dict[int, bytes]:
    pcrs = {
        index: value
        for index, value in values.items()
        if isinstance(index, int) and isinstance(value, bytes)
        if 0 <= index < MAX_PCRS and len(value) == PCR_BYTES
    }
    if not pcrs or len(pcrs) != len(values):
        raise AttestationError(f"pcrs are not 1 to {MAX_PCRS} registers of {PCR_BYTES} bytes")
    return pcrs


def _parse_optional(value: object, limit: int) -> bytes | None:
    match value:
        case None | b"":
            return None
        case bytes() if len(value) <= limit:
            return value
    raise AttestationError(f"an optional field is not a byte string of at most {limit}")


def _sized(certificate: cbor.Cbor) -> bytes:
    if not isinstance(certificate, bytes) or not 1 <= len(certificate) <= MAX_CERTIFICATE_BYTES:
        raise AttestationError(f"a certificate is not 1 to {MAX_CERTIFICATE_BYTES} bytes")
    return certificate


def _verify_signature(signed: _Signed, key: ec.EllipticCurvePublicKey) -> None:
    """RFC 9052 section 4.4, over the payload as received; never over one encoded anew."""
    message = cbor.encode(["Signature1", _PROTECTED, b"", signed.payload])
    half = _SIGNATURE_BYTES // 2
    r, s = (int.from_bytes(part) for part in (signed.signature[:half], signed.signature[half:]))
    try:
        key.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA384()))
    except InvalidSignature:
        raise AttestationError("the document's signature does not verify") from None


def _require_fresh(timestamp: datetime, now: datetime) -> None:
    age = (now - timestamp).total_seconds()
    if age > MAX_DOCUMENT_AGE_SECONDS:
        raise AttestationError(
            f"document is {age:.1f} s old, at most {MAX_DOCUMENT_AGE_SECONDS}: is this clock right?"
        )
    if -age > CLOCK_LEEWAY_SECONDS:
        raise AttestationError(
            f"document is dated {-age:.1f} s ahead of this clock, at most {CLOCK_LEEWAY_SECONDS}: "
            "is this clock right?"
        )


def _require_not_debug(attestation: Attestation) -> None:
    """Before PCRs are compared with anything: zeros on a list must not make them acceptable."""
    for index in _MEASURED:
        if index not in attestation.pcrs:
            raise AttestationError(f"document lacks PCR{index}")
        if not any(attestation.pcrs[index]):
            raise AttestationError(f"enclave runs in debug mode: PCR{index} is all zeros")


def _require_nonce(attestation: Attestation, nonce: bytes) -> None:
    if attestation.nonce is None or not hmac.compare_digest(attestation.nonce, nonce):
        raise AttestationError("nonce is not the one asked for: this document answers another")


def _differences(got: Measurements, release: Release) -> list[str]:
    expected = release.measurements
    return [
        f"PCR{index} is {_short(mine)}, expected {_short(theirs)}"
        for index, mine, theirs in (
            (0, got.pcr0, expected.pcr0),
            (1, got.pcr1, expected.pcr1),
            (2, got.pcr2, expected.pcr2),
        )
        if mine != theirs
    ]


def _short(pcr: bytes) -> str:
    return f"{pcr.hex()[:8]}…{pcr.hex()[-4:]}"
