"""
The channel: all that passes between an open page and the program behind it, sealed by both.

Page and program agree on its keys once, when the page opens, and keep them in memory alone; they
do not come from the link, which other users of the machine may have seen. So whoever has the
program's port later can read nothing that the page sends, and can send nothing that the page takes
for the program's. Each record has its own number, and is taken once, in order.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from app.protocol.errors import EnvelopeError

_CURVE: Final = ec.SECP256R1()  # every browser's WebCrypto has it; X25519 is still missing in some
_INFO: Final = b"enclave-llm page 1 "
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12


class Channel:
    """
    The program's end of one page's channel.

    Args:
        page_key: The page's public key, an uncompressed point.

    Attributes:
        public_key: The program's, in the same form; for this page alone.

    Raises:
        EnvelopeError: *page_key* is no such point.
    """

    def __init__(self, page_key: bytes) -> None:
        own = ec.generate_private_key(_CURVE)
        try:
            shared = own.exchange(
                ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, page_key)
            )
        except ValueError:
            raise EnvelopeError("the page's key is no point of its curve") from None
        self.public_key = own.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        salt = hashlib.sha256(page_key + self.public_key).digest()
        self._commands, self._replies, self._events = (
            AESGCM(HKDF(SHA256(), _KEY_BYTES, salt, _INFO + name).derive(shared))
            for name in (b"commands", b"replies", b"events")
        )
        self._taken = 0
        self._told = 0

    def take(self, record: bytes) -> bytes:
        """
        Open the page's next command.

        Raises:
            EnvelopeError: *record* is not that; the next one may still be.
        """
        try:
            command = self._commands.decrypt(_nonce(self._taken), record, None)
        except (InvalidTag, ValueError):
            raise EnvelopeError("a record of the page does not open") from None
        self._taken += 1
        return command

    def reply(self, content: bytes) -> bytes:
        """Seal what answers the command that was taken last; once for each."""
        return self._replies.encrypt(_nonce(self._taken - 1), content, None)

    def tell(self, event: bytes) -> bytes:
        """Seal the next event."""
        self._told += 1
        return self._events.encrypt(_nonce(self._told - 1), event, None)


def _nonce(number: int) -> bytes:
    return number.to_bytes(_NONCE_BYTES)
