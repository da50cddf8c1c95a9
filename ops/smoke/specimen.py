"""
Specimens: attestation documents made here, under a root made here, for the production verifier.

They show by inspection what the client refuses. Nothing else trusts their root: it is made anew
for each run and its key is forgotten with it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from app.protocol import cbor
from app.protocol.constants import PCR_BYTES

_PROTECTED: Final = bytes.fromhex("a1013822")  # {1: -35}: ES384
_HALF_BYTES: Final = 48
_MODULE_ID: Final = "i-0123456789abcdef0-enc0123456789abcdef"


@dataclass(frozen=True, slots=True)
class SpecimenSigner:
    """A root and the leaf below it, which signs documents of the form that an NSM's have."""

    root: x509.Certificate
    leaf: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    def sign(
        self,
        pcrs: Mapping[int, bytes],
        *,
        now: datetime,
        nonce: bytes,
        user_data: bytes,
        public_key: bytes | None = None,
    ) -> bytes:
        """Sign a document."""
        registers = {
            cbor.encode(index): cbor.encode(pcrs.get(index, bytes(PCR_BYTES)))
            for index in range(16)
        }
        fields = {
            "module_id": cbor.encode(_MODULE_ID),
            "digest": cbor.encode("SHA384"),
            "timestamp": cbor.encode(int(now.timestamp() * 1000)),
            "pcrs": _join(registers),
            "certificate": cbor.encode(self.leaf.public_bytes(Encoding.DER)),
            "cabundle": cbor.encode([self.root.public_bytes(Encoding.DER)]),
            "public_key": cbor.encode(public_key),
            "user_data": cbor.encode(user_data),
            "nonce": cbor.encode(nonce),
        }
        payload = _join({cbor.encode(name): value for name, value in fields.items()})
        message = cbor.encode(["Signature1", _PROTECTED, b"", payload])
        r, s = decode_dss_signature(self.key.sign(message, ec.ECDSA(SHA384())))
        signature = r.to_bytes(_HALF_BYTES) + s.to_bytes(_HALF_BYTES)
        return cbor.encode([_PROTECTED, {}, payload, signature])


def _join(entries: Mapping[bytes, bytes]) -> bytes:
    """Make a CBOR map, of fewer than 24 entries, of keys and values that are encoded already."""
    body = b"".join(key + value for key, value in entries.items())
    return bytes([0xA0 + len(entries)]) + body


def make_signer(now: datetime) -> SpecimenSigner:
    """Make a signer whose certificates are valid for an hour."""
    root_key = ec.generate_private_key(ec.SECP384R1())
    leaf_key = ec.generate_private_key(ec.SECP384R1())
    root = _issue("specimen root", root_key, "specimen root", root_key, now, ca=True)
    leaf = _issue("specimen leaf", leaf_key, "specimen root", root_key, now, ca=False)
    return SpecimenSigner(root, leaf, leaf_key)


def _issue(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    now: datetime,
    *,
    ca: bool,
) -> x509.Certificate:
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .sign(issuer_key, SHA384())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
