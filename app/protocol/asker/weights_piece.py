"""
The owner's half of a sealed weights file: sealing its pieces.

SPEC.md section 8; opening is in `app.protocol.weights_piece`.
"""

from dataclasses import dataclass, field

from app.protocol.authorization import KeyArn
from app.protocol.weights_piece import piece_aead


@dataclass(frozen=True, slots=True)
class PieceSealer:
    """
    Seals the pieces of one file. A piece's nonce is its number, so under one data key a file is
    sealed once, and no other bytes in its place.

    Args:
        data_key: 32 bytes, the weights data key.

        package_digest: SHA-256 of model.json.

        file_digest: SHA-256 of the plain file.
    """

    data_key: bytes = field(repr=False)
    package_digest: bytes
    file_digest: bytes
    key_arn: KeyArn

    def seal(self, piece: bytes, number: int, *, last: bool) -> bytes:
        """Seal piece *number*, from 0: `WEIGHTS_PIECE_BYTES`, fewer only if it is the last."""
        aead = piece_aead(self.data_key, self.package_digest, self.file_digest)
        nonce = number.to_bytes(11) + bytes([last])
        return aead.encrypt(nonce, piece, self.key_arn.text.encode())
