"""
The twin's PKI: a root and chains below it, in the shape of AWS's for Nitro documents.

Lifetimes, path lengths and key usages are those of real documents of 2021 to 2025; every subject
says that it is the twin's. Tests use `issue` to bend any of it.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

MODULE_ID: Final = "i-0123456789abcdef0-enc0123456789abcdef"  # of the twin's one enclave
REGION: Final = "us-east-1"

_SUFFIX: Final = "twin.nitro-enclaves"  # AWS's subjects end in aws.nitro-enclaves
_ORGANIZATION: Final = "enclave-llm twin, not Amazon"
_ROOT_LIFETIME: Final = timedelta(days=30 * 365)
_LEAF_LIFETIME: Final = timedelta(hours=3, seconds=3)
_AGO: Final = timedelta(seconds=3)  # real documents follow their leaf's notBefore by 0.7 s to 3 s
_USAGES: Final = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: Key = field(repr=False)

    @property
    def der(self) -> bytes:
        """The certificate's DER."""
        return self.certificate.public_bytes(Encoding.DER)

    def to_pem(self) -> bytes:
        """Give key and certificate, one after the other, for `load_identity`."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return key + self.certificate.public_bytes(Encoding.PEM)


@dataclass(frozen=True, slots=True)
class Chain:
    """
    What one enclave signs with.

    Attributes:
        authorities: From the root down to the instance.
    """

    authorities: tuple[Identity, ...]
    leaf: Identity

    @property
    def cabundle(self) -> list[bytes]:
        """The authorities' DER, the root first."""
        return [authority.der for authority in self.authorities]


def load_identity(pem: bytes) -> Identity:
    """
    Load what `Identity.to_pem` gave.

    Raises:
        ValueError: It is something else.
    """
    key = load_pem_private_key(pem, password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("the twin's keys are elliptic")  # noqa: TRY004 - a bad file, not a bug
    return Identity(x509.load_pem_x509_certificate(pem), key)


def ensure_root(path: Path, *, now: datetime) -> Identity:
    """Load the root that *path* holds, or make one and keep it there, readable by us alone."""
    if path.exists():
        return load_identity(path.read_bytes())
    root = make_root(now=now)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(root.to_pem())
    return root


def make_root(*, now: datetime, name: str = _SUFFIX) -> Identity:
    """Make a root, valid for 30 years from the day before *now*."""
    start = now - timedelta(days=1)
    return issue(
        None,
        name,
        start=start,
        end=start + _ROOT_LIFETIME,
        path_length=None,
        usages=("digital_signature", "key_cert_sign", "crl_sign"),
    )


def make_chain(root: Identity, *, now: datetime, module_id: str = MODULE_ID) -> Chain:
    """
    Make the four certificates below *root*: Region, zone, instance, and a leaf of 3 hours.

    Args:
        module_id: i-…-enc…, as the documents will carry it.
    """
    instance_id = module_id.partition("-enc")[0]
    signing = ("digital_signature", "key_cert_sign", "crl_sign")
    days = timedelta(days=1)
    authorities = [root]
    for label, before, lifetime, path_length, usages in (
        (f"{REGION}.{_SUFFIX}", 4 * days, 20 * days + timedelta(hours=1), 2, signing),
        (f"zonal.{REGION}.{_SUFFIX}", 1 * days, 5.5 * days, 1, signing),
        (f"{instance_id}.{REGION}.{_SUFFIX}", days / 24, days, 0, ("key_cert_sign",)),
    ):
        start = max(now - before, root.certificate.not_valid_before_utc)
        end = start + lifetime
        authorities.append(
            issue(
                authorities[-1], label, start=start, end=end, path_length=path_length, usages=usages
            )
        )
    return Chain(tuple(authorities), issue_leaf(authorities[-1], now=now, module_id=module_id))


def issue_leaf(issuer: Identity, *, now: datetime, module_id: str = MODULE_ID) -> Identity:
    """Issue a certificate like those that documents are signed with."""
    return issue(
        issuer,
        f"{module_id}.{REGION}.twin",
        start=now - _AGO,
        end=now - _AGO + _LEAF_LIFETIME,
        ca=False,
        usages=("digital_signature", "content_commitment"),
        usage_critical=False,
    )


def issue(
    issuer: Identity | None,
    name: str,
    *,
    start: datetime,
    end: datetime,
    ca: bool = True,
    path_length: int | None = 0,
    usages: Iterable[str] = ("key_cert_sign",),
    usage_critical: bool = True,
    constraints_critical: bool = True,
    key: Key | None = None,
    digest: SHA256 | SHA384 | None = None,
    extra: Iterable[tuple[x509.ExtensionType, bool]] = (),
) -> Identity:
    """
    Issue a certificate.

    Args:
        issuer: Signs it; None for one that signs itself.

        path_length: Of an authority; None for no limit.

        usages: The bits of KeyUsage that are set.

        key: Its own; a fresh one on P-384 by default.

        digest: Of the signature; SHA-384 by default.

        extra: More extensions, each with whether it is critical.
    """
    key = key or ec.generate_private_key(ec.SECP384R1())
    subject = _name(name)
    constraints = x509.BasicConstraints(ca=ca, path_length=path_length if ca else None)
    bits = x509.KeyUsage(**{usage: usage in set(usages) for usage in _USAGES})
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(constraints, critical=constraints_critical)
        .add_extension(bits, critical=usage_critical)
    )
    for extension, critical in extra:
        builder = builder.add_extension(extension, critical=critical)
    return Identity(builder.sign(issuer.key if issuer else key, digest or SHA384()), key)


def extend_pcr(data: bytes) -> bytes:
    """Give the PCR that a register of zeros becomes when it is extended once by *data*."""
    return hashlib.sha384(bytes(48) + data).digest()


def _name(common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, _ORGANIZATION),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "Twin"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
