"""
A page's end of its channel, for tests: what page/channel.js does, in Python.
"""

import base64
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat


def number(value: int) -> bytes:
    """Give the nonce of a record."""
    return value.to_bytes(12)


class PageEnd:
    """
    A page's key pair and, once it knows the program's key, what it derives from both.

    Attributes:
        sent: How many commands it has sealed.
    """

    def __init__(self) -> None:
        self._own = ec.generate_private_key(ec.SECP256R1())
        self.public_key = self._own.public_key().public_bytes(
            Encoding.X962, PublicFormat.UncompressedPoint
        )
        self._theirs = b""
        self.sent = 0

    def opening(self, token: str) -> dict[str, str]:
        """Give the body that opens the channel."""
        return {"token": token, "key": base64.b64encode(self.public_key).decode()}

    def agree(self, theirs: str) -> None:
        """Take the program's key, as it answers."""
        self._theirs = base64.b64decode(theirs)

    def key(self, direction: str, theirs: bytes = b"") -> AESGCM:
        """Derive the key of one direction."""
        theirs = theirs or self._theirs
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
        salt = hashlib.sha256(self.public_key + theirs).digest()
        info = f"enclave-llm page 1 {direction}".encode()
        secret = self._own.exchange(ec.ECDH(), point)
        return AESGCM(HKDF(SHA256(), 32, salt, info).derive(secret))

    def command(self, content: object) -> bytes:
        """Seal the next command."""
        self.sent += 1
        data = json.dumps(content).encode()
        return self.key("commands").encrypt(number(self.sent - 1), data, None)

    def open_event(self, place: int, line: bytes) -> dict[str, object]:
        """Open an event, a line of the stream."""
        data = self.key("events").decrypt(number(place), base64.b64decode(line), None)
        event: dict[str, object] = json.loads(data)
        return event
