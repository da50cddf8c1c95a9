"""
The owner's half of a sealed weights file: sealing its pieces.

SPEC.md section 8; opening is in `app.protocol.weights_piece`.
"""

from app.protocol.weights_piece import PieceOpener


class PieceSealer(PieceOpener):
    """
    Seals the pieces of one file, which it can open as well; a piece's nonce is its number. So under
    one data key a file is sealed once, and no other bytes in its place.
    """

    __slots__ = ()

    def seal(self, piece: bytes, number: int, *, last: bool) -> bytes:
        """Seal piece *number*, from 0: `WEIGHTS_PIECE_BYTES`, fewer only if it is the last."""
        return self._aead().encrypt(*self._placed(piece, number, last=last))
