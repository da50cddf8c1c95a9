"""
CMS, as KMS's `CiphertextForRecipient`: one content key wrapped for us, one encrypted content.

KMS has written the same BER at the same places in every answer ever recorded, and the library
we have reads neither its indefinite lengths nor its OAEP. So the reader below knows no ASN.1:
it takes those bytes, the four fields between them, and refuses whatever differs. CMS carries
no MAC and no signature; what says that KMS wrote it is the TLS connection it came over.

Source: two answers in aws-nitro-enclaves-sdk-c, tests/kmstool-enclaves/cms_test.c, one in
edgebitio/enclaver, enclaver/src/proxy/pkcs7.rs; RFC 5652 section 6.1, RFC 4055 section 4.1.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.protocol.errors import KmsError

RSA_KEY_BITS: Final = 2048  # the one size the KMS developer guide names for a Recipient
MAX_CMS_BYTES: Final = 8 * 1024  # KMS returns at most 4,096 bytes of plaintext
_WRAPPED_KEY_BYTES: Final = RSA_KEY_BITS // 8
_CONTENT_KEY_BYTES: Final = 32
_BLOCK_BYTES: Final = 16
_RECIPIENT_BYTES: Final = 32

_TO_RECIPIENT: Final = bytes.fromhex(
    "3080"  # ContentInfo, of indefinite length
    "06092a864886f70d010703"  # envelopedData
    "a080"
    "3080020102"  # EnvelopedData, version 2
    "3182016b"  # exactly one recipient
    "30820167020102"  # KeyTransRecipientInfo, version 2
    "8020"  # its subjectKeyIdentifier follows
)
_TO_WRAPPED_KEY: Final = bytes.fromhex(
    "303c06092a864886f70d010107"  # rsaesOaep
    "302f"
    "a00f300d06096086480165030402010500"  # SHA-256, NULL
    "a11c301a06092a864886f70d010108"  # MGF1
    "300d06096086480165030402010500"  # SHA-256, NULL
    "04820100"  # encryptedKey follows
)
_TO_IV: Final = bytes.fromhex(
    "3080"  # EncryptedContentInfo
    "06092a864886f70d010701"  # data
    "301d060960864801650304012a"  # aes-256-cbc
    "0410"  # its IV follows
)
_CONSTRUCTED: Final = bytes.fromhex("a080")  # a run of octet strings follows
_PRIMITIVE: Final = 0x80
_OCTET_STRING: Final = 0x04
_END: Final = bytes(2)  # ends an indefinite length
_CLOSING: Final = 4 * _END  # EncryptedContentInfo, EnvelopedData, [0], ContentInfo


@dataclass(frozen=True, slots=True)
class Cms:
    """
    What one answer holds, before any key is applied.

    Attributes:
        recipient_digest: SHA-256 of the DER SubjectPublicKeyInfo it was made for.

        wrapped_content_key: RSAES-OAEP with SHA-256, 256 bytes.

        iv: 16 bytes.

        ciphertext: AES-256-CBC with PKCS #7 padding: whole blocks, at least one.
    """

    recipient_digest: bytes
    wrapped_content_key: bytes = field(repr=False)
    iv: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


def open_cms(cms: bytes, private_key: rsa.RSAPrivateKey) -> bytes:
    """
    Open *cms* and return its plaintext.

    Whether KMS wrote it is the caller's to know: anyone who has the public key can.

    Args:
        cms: At most `MAX_CMS_BYTES`.

        private_key: RSA of `RSA_KEY_BITS`.

    Raises:
        KmsError: *cms* has another shape, is for another key, or does not open.
    """
    parsed = parse_cms(cms)
    spki_der = private_key.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    if parsed.recipient_digest != sha256(spki_der).digest():
        raise KmsError("CMS is for another recipient")
    plaintext = _decrypt(parsed, private_key)
    if plaintext is None:
        raise KmsError("CMS does not open")
    return plaintext


def _decrypt(parsed: Cms, private_key: rsa.RSAPrivateKey) -> bytes | None:
    """Give the plaintext, or None whichever step failed."""
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), label=None)
    try:
        content_key = private_key.decrypt(parsed.wrapped_content_key, oaep)
        if len(content_key) != _CONTENT_KEY_BYTES:
            return None
        decryptor = Cipher(algorithms.AES(content_key), modes.CBC(parsed.iv)).decryptor()
        padded = decryptor.update(parsed.ciphertext) + decryptor.finalize()
        unpadder = PKCS7(algorithms.AES.block_size).unpadder()
        return unpadder.update(padded) + unpadder.finalize()
    except ValueError:
        return None


def parse_cms(cms: bytes) -> Cms:
    """
    Parse *cms*: KMS's shape to the byte, its content in either of the two forms KMS uses.

    Raises:
        KmsError: Any byte differs, or there are more than `MAX_CMS_BYTES`.
    """
    if len(cms) > MAX_CMS_BYTES:
        raise KmsError(f"CMS has {len(cms)} bytes, at most {MAX_CMS_BYTES} are read")
    reader = _Reader(cms)
    reader.skip(_TO_RECIPIENT)
    recipient_digest = reader.take(_RECIPIENT_BYTES)
    reader.skip(_TO_WRAPPED_KEY)
    wrapped_content_key = reader.take(_WRAPPED_KEY_BYTES)
    reader.skip(_TO_IV)
    iv = reader.take(_BLOCK_BYTES)
    ciphertext = reader.content()
    reader.skip(_CLOSING)
    if reader.offset != len(cms) or not ciphertext or len(ciphertext) % _BLOCK_BYTES:
        raise KmsError("CMS has bytes after its end, or no whole cipher blocks")
    return Cms(recipient_digest, wrapped_content_key, iv, ciphertext)


class _Reader:
    """A position in bytes that may be anything."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.offset = 0

    def take(self, count: int) -> bytes:
        end = self.offset + count
        if end > len(self.data):
            raise KmsError("CMS is truncated")
        piece = self.data[self.offset : end]
        self.offset = end
        return piece

    def skip(self, expected: bytes) -> None:
        if self.take(len(expected)) != expected:
            raise KmsError(f"CMS differs from KMS's shape before byte {self.offset}")

    def next_is(self, expected: bytes) -> bool:
        return self.data.startswith(expected, self.offset)

    def content(self) -> bytes:
        """Read encryptedContent: one string, or a run of octet strings and its end."""
        if not self.next_is(_CONSTRUCTED):
            return self.string(_PRIMITIVE)
        self.skip(_CONSTRUCTED)
        segments = []
        while not self.next_is(_END):
            segments.append(self.string(_OCTET_STRING))
        self.skip(_END)
        return b"".join(segments)

    def string(self, tag: int) -> bytes:
        """Read a string under *tag*: not empty, its length definite and as short as can be."""
        self.skip(bytes([tag]))
        first = self.take(1)[0]
        size = first
        if first > 0x80:
            size = int.from_bytes(self.take(first - 0x80))
        shortest = size if size < 0x80 else 0x80 | (size.bit_length() + 7) // 8
        if size == 0 or first != shortest:
            raise KmsError("CMS has an empty string, or a length not in its shortest form")
        return self.take(size)
