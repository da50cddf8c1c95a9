"""
An answer: a header, frames of one size, a receipt, a final frame. SPEC.md section 6.

The enclave's half is here, with what both halves share; `app.protocol.asker.answer` opens. Both
are pure and count the frames themselves, so a frame out of its place does not open.
"""

import hashlib
from collections import deque
from enum import IntEnum
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.protocol import cbor
from app.protocol.authorization import pad
from app.protocol.constants import (
    DATA_KEY_BYTES,
    FRAME_COUNT_BUCKETS,
    FRAME_PLAINTEXT_BYTES,
    GCM_TAG_BYTES,
    LABEL,
    MAX_CONTROL_BYTES,
)
from app.protocol.errors import AppError, ProtocolError, wire_code
from app.protocol.messages import Kind, encode_message
from app.protocol.piece import Piece, TokenLogprob
from app.protocol.question import SCALE

SEALED_FRAME_BYTES: Final = FRAME_PLAINTEXT_BYTES + GCM_TAG_BYTES
_ANSWER_LABEL: Final = LABEL + b"answer"
_ERROR_LABEL: Final = LABEL + b"error"
HEAD_BYTES: Final = 4  # type, index and length
MAX_DATA_BYTES: Final = FRAME_PLAINTEXT_BYTES - HEAD_BYTES
LEAST_LOGPROB: Final = -1000 * SCALE
_MAX_PLACE: Final = 2**16 - 1
_LEAST_FILLED_BYTES: Final = MAX_DATA_BYTES - MAX_CONTROL_BYTES  # of a frame, while there is more


class PartKind(IntEnum):
    """The first byte of a part."""

    TEXT = 1
    CONTROL = 2
    LOGPROBS = 3
    PLACE = 4
    RECEIPT = 5


def encode_part(kind: PartKind, data: bytes, index: int = 0) -> bytes:
    """Give a part of a frame; *index* says which of a question's answers it belongs to."""
    return bytes([kind, index]) + len(data).to_bytes(2) + data


def encode_logprob(told: TokenLogprob) -> bytes:
    """Give the entry of a token that was made."""
    others = [_pair(other) for other in told.alternatives]
    entry = cbor.encode([*_pair(told), others])
    return len(entry).to_bytes(2) + entry


def _pair(told: TokenLogprob) -> list[cbor.Encodable]:
    return [told.token, max(LEAST_LOGPROB, min(0, round(max(-1000, told.logprob) * SCALE)))]


class PartQueue:
    """What has yet to be sent of a question's answers, cut into frames."""

    def __init__(self) -> None:
        self._parts: deque[tuple[PartKind, int, bytearray]] = deque()
        self._bytes = 0  # of data

    def __bool__(self) -> bool:
        return bool(self._parts)

    @property
    def frames(self) -> int:
        """How many it needs at most."""
        return (HEAD_BYTES * len(self._parts) + self._bytes) // _LEAST_FILLED_BYTES + 1

    def put(self, piece: Piece) -> None:
        """Add *piece*; the spelling of a control token fits into a frame."""
        text = PartKind.CONTROL if piece.control else PartKind.TEXT
        self._put(text, piece.index, piece.text.encode())
        self._put(PartKind.LOGPROBS, piece.index, b"".join(map(encode_logprob, piece.logprobs)))

    def _put(self, kind: PartKind, index: int, data: bytes) -> None:
        assert kind is not PartKind.CONTROL or len(data) <= MAX_CONTROL_BYTES  # noqa: S101 - a token
        self._bytes += len(data)
        if self._parts and self._parts[-1][:2] == (kind, index) and kind is not PartKind.CONTROL:
            self._parts[-1][2].extend(data)
        elif data:
            self._parts.append((kind, index, bytearray(data)))

    def take(self) -> bytes:
        """Give the parts of the next frame; none for a dummy."""
        frame = b""
        while self._parts and (room := MAX_DATA_BYTES - len(frame)) > 0:
            kind, index, data = self._parts[0]
            if kind is PartKind.CONTROL and len(data) > room:
                break
            frame += encode_part(kind, bytes(data[:room]), index)
            self._bytes -= len(data[:room])
            del data[:room]
            if not data:
                self._parts.popleft()
        return frame


def encode_header(wrapped_answer_key: bytes) -> bytes:
    """Give the answer header message."""
    return encode_message(Kind.ANSWER_HEADER, wrapped_answer_key)


def round_up_frames(count: int) -> int:
    """
    Give the smallest frame count, *count* or more, that a padded answer may have.

    Raises:
        ProtocolError: No bucket is that large; the deadline keeps answers below it.
    """
    for bucket in FRAME_COUNT_BUCKETS:
        if count <= bucket:
            return bucket
    raise ProtocolError(f"answer of {count} frames fits no bucket")


class AnswerStream:
    """What both halves keep: the key, the count, the digest of all that went by."""

    def __init__(
        self, header: bytes, *, data_key: bytes, answer_secret: bytes, request_digest: bytes
    ) -> None:
        info = _ANSWER_LABEL + request_digest + hashlib.sha256(header).digest()
        key = HKDF(SHA256(), DATA_KEY_BYTES, None, info).derive(data_key + answer_secret)
        self.aead = AESGCM(key)
        self.request_digest = request_digest
        self._hash = hashlib.sha256(header)
        self.frames = 0

    @property
    def digest(self) -> bytes:
        """SHA-256 of the header and every frame message that was counted in so far."""
        return self._hash.digest()

    def position(self, *, final: bool) -> tuple[bytes, bytes]:
        """Give nonce and additional data of the next frame."""
        aad = self.request_digest + self.frames.to_bytes(4) + bytes([final])
        return self.frames.to_bytes(12), aad

    def count(self, message: bytes) -> None:
        """Count a frame message in."""
        self.frames += 1
        self._hash.update(message)


class AnswerSealer(AnswerStream):
    """
    The enclave's half of one answer.

    Args:
        header: The answer header message, which goes first.

        data_key: 32 bytes, the answer data key.

        answer_secret: 32 bytes, from the authorization.

        request_digest: SHA-256 of the sealed request.
    """

    def seal_text(self, data: bytes = b"", *, final: bool = False) -> bytes:
        """Seal up to `MAX_DATA_BYTES` of UTF-8 into a frame message; nothing gives a dummy."""
        return self.seal(encode_part(PartKind.TEXT, data) if data else b"", final=final)

    def seal_place(self, place: int) -> bytes:
        """Seal the answer's place among those that wait, 0 once it has begun."""
        return self.seal(encode_part(PartKind.PLACE, min(place, _MAX_PLACE).to_bytes(2)))

    def seal_receipt(self, piece: bytes, *, final: bool = False) -> bytes:
        """Seal a piece of the receipt, 1 to `MAX_DATA_BYTES`, into a frame message."""
        return self.seal(encode_part(PartKind.RECEIPT, piece), final=final)

    def seal(self, parts: bytes, *, final: bool = False) -> bytes:
        """Seal encoded *parts*, at most `FRAME_PLAINTEXT_BYTES`, into a frame message."""
        assert len(parts) <= FRAME_PLAINTEXT_BYTES  # noqa: S101 - our own server cuts it
        nonce, aad = self.position(final=final)
        body = self.aead.encrypt(nonce, parts.ljust(FRAME_PLAINTEXT_BYTES, b"\0"), aad)
        message = encode_message(Kind.FINAL_FRAME if final else Kind.ANSWER_FRAME, body)
        self.count(message)
        return message


def seal_error(error: AppError, *, answer_secret: bytes, request_digest: bytes) -> bytes:
    """Give the sealed error message for *error*: its code and numbers, never more."""
    block = pad(cbor.encode([wire_code(error), list(error.numbers)]), FRAME_PLAINTEXT_BYTES)
    aead = error_aead(answer_secret, request_digest)
    return encode_message(Kind.SEALED_ERROR, aead.encrypt(bytes(12), block, request_digest))


def error_aead(answer_secret: bytes, request_digest: bytes) -> AESGCM:
    """Give what seals, and opens, the error that ends a request."""
    info = _ERROR_LABEL + request_digest
    return AESGCM(HKDF(SHA256(), DATA_KEY_BYTES, None, info).derive(answer_secret))
