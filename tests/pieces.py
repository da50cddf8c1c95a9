"""
Pieces of answers, as tests compare them.
"""

from collections.abc import Iterable

from app.enclave.engine.interface import Finish, Generation
from app.protocol.piece import Piece

_PATIENCE_SECONDS = 5


def text_of(pieces: Iterable[Piece], index: int = 0) -> str:
    """Give the text of one answer, without control tokens."""
    return "".join(piece.text for piece in pieces if (piece.index, piece.control) == (index, False))


def take_all(generation: Generation) -> tuple[list[Piece], Finish]:
    """Take every piece of *generation*, and give how it finished."""
    pieces: list[Piece] = []
    while (finish := generation.finish) is None:
        pieces += generation.take(_PATIENCE_SECONDS)
    return pieces, finish
