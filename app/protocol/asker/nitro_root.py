"""
AWS's Nitro root: the certificate, G1, that every real attestation document chains to.

Source: AWS Nitro Enclaves user guide, "Verifying the root of trust". The guide's other number,
8cf60e2b…, is the digest of the zip archive around this certificate.
"""

from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate, load_pem_x509_certificate

from app.protocol.errors import AttestationError

_FINGERPRINT: Final = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
_PEM: Final = b"""\
-----BEGIN CERTIFICATE-----
MIICETCCAZagAwIBAgIRAPkxdWgbkK/hHUbMtOTn+FYwCgYIKoZIzj0EAwMwSTEL
MAkGA1UEBhMCVVMxDzANBgNVBAoMBkFtYXpvbjEMMAoGA1UECwwDQVdTMRswGQYD
VQQDDBJhd3Mubml0cm8tZW5jbGF2ZXMwHhcNMTkxMDI4MTMyODA1WhcNNDkxMDI4
MTQyODA1WjBJMQswCQYDVQQGEwJVUzEPMA0GA1UECgwGQW1hem9uMQwwCgYDVQQL
DANBV1MxGzAZBgNVBAMMEmF3cy5uaXRyby1lbmNsYXZlczB2MBAGByqGSM49AgEG
BSuBBAAiA2IABPwCVOumCMHzaHDimtqQvkY4MpJzbolL//Zy2YlES1BR5TSksfbb
48C8WBoyt7F2Bw7eEtaaP+ohG2bnUs990d0JX28TcPQXCEPZ3BABIeTPYwEoCWZE
h8l5YoQwTcU/9KNCMEAwDwYDVR0TAQH/BAUwAwEB/zAdBgNVHQ4EFgQUkCW1DdkF
R+eWw5b6cp3PmanfS5YwDgYDVR0PAQH/BAQDAgGGMAoGCCqGSM49BAMDA2kAMGYC
MQCjfy+Rocm9Xue4YnwWmNJVA44fA0P5W2OpYow9OYCVRaEevL8uO1XYru5xtMPW
rfMCMQCi85sWBbJwKKXdS6BptQFuZbT73o/gBh1qUxl/nNr12UO8Yfwr6wPLb+6N
IwLz3/Y=
-----END CERTIFICATE-----
"""


def load_root(pem: bytes, fingerprint: str) -> Certificate:
    """
    Load a trust anchor and check that it is the one meant.

    Args:
        fingerprint: SHA-256 of the certificate's DER, lower-case hex.

    Raises:
        AttestationError: It has another fingerprint.
    """
    root = load_pem_x509_certificate(pem)
    got = sha256(root.public_bytes(Encoding.DER)).hexdigest()
    if got != fingerprint:
        raise AttestationError(f"root certificate is {got}, expected {fingerprint}")
    return root


NITRO_ROOT: Final = load_root(_PEM, _FINGERPRINT)
