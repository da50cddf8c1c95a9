"""
The intake: the files of the model, as the parent sends them. SPEC.md section 8.

The parent is believed in nothing. A piece has the one size that it can have, so neither more nor
less is kept than `model.json` lists; each file is hashed while it is written, from the same bytes;
and nothing is told where the files lie before the digest of each has matched.
"""

import hashlib
import math
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from app.enclave.connection import Connection
from app.enclave.engine.weights import Weights
from app.enclave.kms.client import KmsClient
from app.protocol.errors import ProtocolError, UnavailableError, WeightsError
from app.protocol.messages import Kind as MessageKind
from app.protocol.package import File
from app.protocol.weights import (
    WEIGHTS_MESSAGE_SECONDS,
    WEIGHTS_PIECE_BYTES,
    Kind,
    parse_weights_key,
)
from app.protocol.weights_piece import PieceOpener


def take_in(told: Weights, folder: Path, stream: socket.socket, kms: KmsClient) -> Weights:
    """
    Take in every file that *told* lists, into *folder*; give the weights, verified.

    Args:
        told: As `unverified_weights` gave it.

        folder: Empty, and nobody else's.

        stream: To the parent's `WEIGHTS_PORT`; closed afterwards.

        kms: Opens the key of sealed weights.

    Raises:
        WeightsError: A file is not as listed.

        EnvelopeError: A piece of a sealed file does not open.

        ProtocolError: The parent breaks SPEC.md section 8.

        UnavailableError: It does not have a file, or the key.

        DeniedError, KmsError, NsmError: KMS did not open the key for this enclave.

        OSError: It has gone, or is too slow; or memory is full.
    """
    with stream:
        parent = Connection(stream, math.inf)
        parent.send(bytes([Kind.ASK_KEY]))
        key = parse_weights_key(_receive(parent, Kind.KEY))
        data_key = kms.open_weights_key(key, told.digest) if key else b""
        for name, file in told.files.items():
            digest = bytes.fromhex(file.sha256)
            opener = PieceOpener(data_key, told.digest, digest, key.key_arn) if key else None
            parent.send(bytes([Kind.ASK_FILE]) + digest)
            with (folder / name).open("xb") as out:
                out.writelines(_pieces(parent, file, opener))
        parent.require_end()
    return replace(told, folder=folder)


def _pieces(parent: Connection, file: File, opener: PieceOpener | None) -> Iterator[bytes]:
    """Give each piece of *file*, opened; what they are together is known when they have ended."""
    end = time.monotonic() + 60 + file.bytes / 2**20
    digest = hashlib.sha256()
    for number, start in enumerate(range(0, file.bytes, WEIGHTS_PIECE_BYTES)):
        size = min(WEIGHTS_PIECE_BYTES, file.bytes - start)
        piece = _receive(parent, Kind.PIECE, end)
        if opener is not None:
            piece = opener.open(piece, number, last=start + size == file.bytes)
        if len(piece) != size:
            raise WeightsError(f"piece {number} has {len(piece)} bytes, expected {size}")
        digest.update(piece)
        yield piece
    if _receive(parent, Kind.END, end) or digest.hexdigest() != file.sha256:
        raise WeightsError("a file is not as listed")


def _receive(parent: Connection, kind: Kind, end: float = math.inf) -> bytes:
    """Give the body of the next message, which is of *kind* and there before *end*."""
    message = parent.receive(min(WEIGHTS_MESSAGE_SECONDS, end - time.monotonic()))
    if message[0] == MessageKind.HINT:
        raise UnavailableError("the parent does not have the weights")
    if message[0] != kind:
        raise ProtocolError(f"message of kind {message[0]:#x}, expected {kind:#x}")
    return message[1:]
