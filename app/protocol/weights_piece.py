"""
A piece of a sealed weights file, and what opens it. SPEC.md section 8.

Sealing is in `app.protocol.asker.weights_piece`.
"""

from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.protocol.authorization import KeyArn
from app.protocol.constants import DATA_KEY_BYTES, GCM_TAG_BYTES, LABEL
from app.protocol.errors import EnvelopeError, ProtocolError
from app.protocol.weights import WEIGHTS_PIECE_BYTES


@dataclass(frozen=True, slots=True)
class PieceOpener:
    """
    Opens the pieces of one sealed file, which are sealed under a key of its own.

    Args:
        data_key: 32 bytes, the weights data key.

        package_digest: SHA-256 of model.json.

        file_digest: SHA-256 of the plain file.
    """

    data_key: bytes = field(repr=False)
    package_digest: bytes
    file_digest: bytes
    key_arn: KeyArn

    def open(self, sealed: bytes, number: int, *, last: bool) -> bytes:
        """
        Open piece *number*, from 0.

        Raises:
            EnvelopeError: It does not open: altered, moved, of another file, package or key.

            ProtocolError: It has not the size of a piece.
        """
        size = len(sealed) - GCM_TAG_BYTES
        if not (1 <= size <= WEIGHTS_PIECE_BYTES and (last or size == WEIGHTS_PIECE_BYTES)):
            raise ProtocolError(f"sealed piece of {len(sealed)} bytes")
        try:
            return self._aead().decrypt(*self._placed(sealed, number, last=last))
        except InvalidTag:
            raise EnvelopeError("piece of the weights does not open") from None

    def _aead(self) -> AESGCM:
        info = LABEL + b"weights" + self.package_digest + self.file_digest
        return AESGCM(HKDF(SHA256(), DATA_KEY_BYTES, None, info).derive(self.data_key))

    def _placed(self, data: bytes, number: int, *, last: bool) -> tuple[bytes, bytes, bytes]:
        """Give nonce, *data* and what is authenticated besides."""
        return number.to_bytes(11) + bytes([last]), data, self.key_arn.text.encode()
