"""
CMS as KMS writes it: what the twin's KMS puts into `CiphertextForRecipient`.

Written tag by tag and without a byte of the enclave's reader (`app/enclave/kms/cms.py`), so that
the two check each other; the tests compare it with answers that the real KMS gave.
"""

import os
from hashlib import sha256
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.padding import PKCS7
from cryptography.hazmat.primitives.serialization import load_der_public_key

Form = Literal["constructed", "primitive"]

_INTEGER: Final = 0x02
_OCTET_STRING: Final = 0x04
_NULL: Final = bytes([0x05, 0x00])
_OBJECT: Final = 0x06
_SEQUENCE: Final = 0x30
_SET: Final = 0x31
_CONTEXT_0: Final = 0x80
_CONSTRUCTED: Final = 0x20
_END: Final = bytes(2)  # ends an indefinite length

_OID_ENVELOPED_DATA: Final = "1.2.840.113549.1.7.3"
_OID_DATA: Final = "1.2.840.113549.1.7.1"
_OID_RSAES_OAEP: Final = "1.2.840.113549.1.1.7"
_OID_MGF1: Final = "1.2.840.113549.1.1.8"
_OID_SHA256: Final = "2.16.840.1.101.3.4.2.1"
_OID_AES_256_CBC: Final = "2.16.840.1.101.3.4.1.42"


def encode_cms(
    plaintext: bytes, spki_der: bytes, *, form: Form, segment_bytes: int = 1000
) -> bytes:
    """
    Encode *plaintext* for the holder of the RSA key, in KMS's exact shape.

    Args:
        spki_der: SubjectPublicKeyInfo of an RSA key; its SHA-256 names the recipient.

        form: Of the content: `constructed` is a run of octet strings, `primitive` one string.
            Real answers come in both.

        segment_bytes: Of one octet string in the constructed form.

    Raises:
        ValueError: *spki_der* is no public key.

        TypeError: It is one, but not RSA.

    Source: three answers of the real KMS; RFC 5652 section 6.1, RFC 4055 section 4.1.
    """
    content_key, iv = os.urandom(32), os.urandom(16)
    padder = PKCS7(algorithms.AES.block_size).padder()
    padded = padder.update(plaintext) + padder.finalize()
    encryptor = Cipher(algorithms.AES(content_key), modes.CBC(iv)).encryptor()
    ciphertext = encryptor.update(padded) + encryptor.finalize()
    enveloped_data = _indefinite(
        _SEQUENCE,
        _tlv(_INTEGER, b"\x02"),
        _tlv(_SET, _recipient_info(content_key, spki_der)),
        _content_info(iv, ciphertext, form, segment_bytes),
    )
    return _indefinite(
        _SEQUENCE,
        _oid(_OID_ENVELOPED_DATA),
        _indefinite(_CONTEXT_0 | _CONSTRUCTED, enveloped_data),
    )


def _recipient_info(content_key: bytes, spki_der: bytes) -> bytes:
    """KeyTransRecipientInfo: who it is for, and the content key only they can take out."""
    public_key = load_der_public_key(spki_der)
    if not isinstance(public_key, rsa.RSAPublicKey):
        raise TypeError("recipient's key is not RSA")
    oaep = padding.OAEP(padding.MGF1(SHA256()), SHA256(), label=None)
    return _tlv(
        _SEQUENCE,
        _tlv(_INTEGER, b"\x02"),
        _tlv(_CONTEXT_0, sha256(spki_der).digest()),
        _algorithm(_OID_RSAES_OAEP, _oaep_parameters()),
        _tlv(_OCTET_STRING, public_key.encrypt(content_key, oaep)),
    )


def _oaep_parameters() -> bytes:
    hash_algorithm = _algorithm(_OID_SHA256, _NULL)
    return _tlv(
        _SEQUENCE,
        _tlv(_CONTEXT_0 | _CONSTRUCTED, hash_algorithm),
        _tlv((_CONTEXT_0 | _CONSTRUCTED) + 1, _algorithm(_OID_MGF1, hash_algorithm)),
    )


def _content_info(iv: bytes, ciphertext: bytes, form: Form, segment_bytes: int) -> bytes:
    """EncryptedContentInfo."""
    if form == "primitive":
        content = _tlv(_CONTEXT_0, ciphertext)
    else:
        starts = range(0, len(ciphertext), segment_bytes)
        segments = (_tlv(_OCTET_STRING, ciphertext[at : at + segment_bytes]) for at in starts)
        content = _indefinite(_CONTEXT_0 | _CONSTRUCTED, *segments)
    algorithm = _algorithm(_OID_AES_256_CBC, _tlv(_OCTET_STRING, iv))
    return _indefinite(_SEQUENCE, _oid(_OID_DATA), algorithm, content)


def _algorithm(dotted: str, parameters: bytes) -> bytes:
    return _tlv(_SEQUENCE, _oid(dotted), parameters)


def _oid(dotted: str) -> bytes:
    first, second, *rest = map(int, dotted.split("."))
    return _tlv(_OBJECT, bytes([40 * first + second]), *map(_base_128, rest))


def _base_128(number: int) -> bytes:
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(0x80 | number & 0x7F)
    return bytes(reversed(groups))


def _tlv(tag: int, *parts: bytes) -> bytes:
    """Tag, the shortest definite length, content."""
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes([tag, 0x80 | len(length)]) + length + content


def _indefinite(tag: int, *parts: bytes) -> bytes:
    return bytes([tag, 0x80]) + b"".join(parts) + _END
