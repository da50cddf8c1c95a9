"""
The twin's TLS: a CA of its own and one certificate for the hosts that it stands in for.
"""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from app.protocol.regions import REGIONS
from local.signers.pki import Identity, issue

_LIFETIME: Final = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """
    Where CA and server certificate lie, in PEM.

    Attributes:
        ca: What clients trust; certificate only.

        server: Key and certificate, readable by us alone.
    """

    ca: Path
    server: Path

    def server_context(self) -> ssl.SSLContext:
        """Give the context of a server that shows the certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.server)
        return context


def make_tls(folder: Path, *, region: str, now: datetime | None = None) -> TlsFiles:
    """
    Make a new CA and a server certificate in *folder*; the CA's key is kept nowhere.

    The certificate is for KMS's two and STS's one name in *region*, localhost and 127.0.0.1.

    Args:
        now: Aware; valid from the day before, for a year.
    """
    start = (now or datetime.now(UTC)) - timedelta(days=1)
    ca = _issue_ca(start)
    server = _issue_server(ca, region, start)
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles(ca=folder / "ca.pem", server=folder / "server.pem")
    files.ca.write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    files.server.unlink(missing_ok=True)
    files.server.touch(mode=0o600)
    files.server.write_bytes(server.to_pem())
    return files


def _issue_ca(start: datetime) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    return issue(
        None,
        "twin CA",
        start=start,
        end=start + _LIFETIME,
        usages=("key_cert_sign", "crl_sign"),
        key=key,
        digest=SHA256(),
        extra=[(subject, False)],
    )


def _issue_server(ca: Identity, region: str, start: datetime) -> Identity:
    kms = [REGIONS[region].kms_host(fips=fips) for fips in (False, True)]
    hosts = [*kms, f"sts.{region}.amazonaws.com", "localhost"]
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in hosts]
    names.append(x509.IPAddress(IPv4Address("127.0.0.1")))
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    return issue(
        ca,
        hosts[0],
        start=start,
        end=start + _LIFETIME,
        ca=False,
        usages=("digital_signature",),
        key=ec.generate_private_key(ec.SECP256R1()),
        digest=SHA256(),
        extra=[
            (x509.SubjectAlternativeName(names), False),
            (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
            (issuer, False),
        ],
    )
