"""
An answer: a header, frames of one size, a receipt, a final frame. SPEC.md section 6.

The enclave's half seals, the chatbot's half opens; both are pure and count the frames
themselves, so a frame out of its place does not open.
"""

import codecs
import hashlib
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from app.protocol import cbor
from app.protocol.authorization import pad, unpad
from app.protocol.constants import (
    DATA_KEY_BYTES,
    FRAME_COUNT_BUCKETS,
    FRAME_PLAINTEXT_BYTES,
    GCM_TAG_BYTES,
    MAX_WRAPPED_KEY_BYTES,
)
from app.protocol.errors import WIRE_ERRORS, AppError, EnvelopeError, ProtocolError, wire_code
from app.protocol.messages import Kind, encode_message

SEALED_FRAME_BYTES: Final = FRAME_PLAINTEXT_BYTES + GCM_TAG_BYTES
_ANSWER_LABEL: Final = b"enclave-llm/1 answer"
_ERROR_LABEL: Final = b"enclave-llm/1 error"
_HEAD_BYTES: Final = 3  # type and length
MAX_DATA_BYTES: Final = FRAME_PLAINTEXT_BYTES - _HEAD_BYTES
_TEXT: Final = 0
_RECEIPT: Final = 1
_PLACE: Final = 2
_MAX_PLACE: Final = 2**16 - 1


def encode_header(wrapped_answer_key: bytes) -> bytes:
    """Give the answer header message."""
    return encode_message(Kind.ANSWER_HEADER, wrapped_answer_key)


def parse_header(body: bytes) -> bytes:
    """
    Parse the body of an answer header into the wrapped answer key.

    Raises:
        ProtocolError: Its length is none that KMS gives.
    """
    if not 1 <= len(body) <= MAX_WRAPPED_KEY_BYTES:
        raise ProtocolError(f"wrapped answer key of {len(body)} bytes")
    return body


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


class _Stream:
    """What both halves keep: the key, the count, the digest of all that went by."""

    def __init__(
        self, header: bytes, *, data_key: bytes, answer_secret: bytes, request_digest: bytes
    ) -> None:
        info = _ANSWER_LABEL + request_digest + hashlib.sha256(header).digest()
        key = HKDF(SHA256(), DATA_KEY_BYTES, None, info).derive(data_key + answer_secret)
        self._aead = AESGCM(key)
        self._request_digest = request_digest
        self._hash = hashlib.sha256(header)
        self.frames = 0

    @property
    def digest(self) -> bytes:
        """SHA-256 of the header and every frame message that was counted in so far."""
        return self._hash.digest()

    def _place(self, *, final: bool) -> tuple[bytes, bytes]:
        """Give nonce and additional data of the next frame."""
        aad = self._request_digest + self.frames.to_bytes(4) + bytes([final])
        return self.frames.to_bytes(12), aad

    def _count(self, message: bytes) -> None:
        self.frames += 1
        self._hash.update(message)


class AnswerSealer(_Stream):
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
        return self._seal(_TEXT, data, final=final)

    def seal_place(self, place: int) -> bytes:
        """Seal the answer's place among those that wait, 0 once it has begun."""
        return self._seal(_PLACE, min(place, _MAX_PLACE).to_bytes(2), final=False)

    def seal_receipt(self, part: bytes, *, final: bool = False) -> bytes:
        """Seal a part of the receipt, 1 to `MAX_DATA_BYTES`, into a frame message."""
        return self._seal(_RECEIPT, part, final=final)

    def _seal(self, kind: int, data: bytes, *, final: bool) -> bytes:
        assert len(data) <= MAX_DATA_BYTES  # noqa: S101 - our own server cuts it
        plaintext = bytes([kind]) + len(data).to_bytes(2) + data
        nonce, aad = self._place(final=final)
        body = self._aead.encrypt(nonce, plaintext.ljust(FRAME_PLAINTEXT_BYTES, b"\0"), aad)
        message = encode_message(Kind.FINAL_FRAME if final else Kind.ANSWER_FRAME, body)
        self._count(message)
        return message


class AnswerOpener(_Stream):
    """
    The chatbot's half of one answer; the same arguments as the enclave's.

    `open` frames as they come, then `finish`. Text is given as soon as its frame has opened:
    it is the enclave's, in order; that it is all of it only `finish` says.

    Attributes:
        place: The answer's place among those that wait, as the last frame that told said; 0
            once it has begun, None before the enclave has told.
    """

    def __init__(
        self, header: bytes, *, data_key: bytes, answer_secret: bytes, request_digest: bytes
    ) -> None:
        super().__init__(
            header, data_key=data_key, answer_secret=answer_secret, request_digest=request_digest
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._receipt = bytearray()
        self._answer_digest: bytes | None = None
        self.place: int | None = None
        self.finished = False

    def open(self, kind: Kind, body: bytes) -> str:
        """
        Open the next frame and give its text, "" for one without.

        Raises:
            EnvelopeError: It does not open: altered, out of place, or of another answer.

            ProtocolError: It opens and breaks the format, or comes after the final frame.
        """
        if self.finished or kind not in {Kind.ANSWER_FRAME, Kind.FINAL_FRAME}:
            raise ProtocolError("message where no frame may be")
        digest = self.digest
        nonce, aad = self._place(final=kind is Kind.FINAL_FRAME)
        try:
            plaintext = self._aead.decrypt(nonce, body, aad)
        except (InvalidTag, ValueError):
            # Not counted: a frame that was lost can never be passed over.
            raise EnvelopeError(f"frame {self.frames} does not open") from None
        self._count(encode_message(kind, body))
        self.finished = kind is Kind.FINAL_FRAME
        return self._take(*_parse_frame(plaintext), digest)

    def _take(self, kind: int, data: bytes, digest_before: bytes) -> str:
        if kind == _RECEIPT:
            if self._answer_digest is None:
                self._answer_digest = digest_before
                self._decode(b"", final=True)
            self._receipt += data
            return ""
        if kind == _PLACE:
            self._take_place(data)
            return ""
        if data and self._answer_digest is not None:
            raise ProtocolError("text after the receipt has begun")
        return self._decode(data)

    def _take_place(self, data: bytes) -> None:
        if len(data) != 2 or self._answer_digest is not None:
            raise ProtocolError("place is malformed, or comes after the receipt has begun")
        self.place = int.from_bytes(data)

    def _decode(self, data: bytes, *, final: bool = False) -> str:
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError:
            raise ProtocolError("answer is not UTF-8") from None

    def finish(self) -> tuple[bytes, bytes]:
        """
        Give the joined parts of the receipt and the answer digest it has to state.

        Raises:
            ProtocolError: The final frame has not come, or no receipt came before it.
        """
        if not self.finished or self._answer_digest is None:
            raise ProtocolError("answer has no receipt or no final frame")
        return bytes(self._receipt), self._answer_digest


def _parse_frame(plaintext: bytes) -> tuple[int, bytes]:
    if len(plaintext) != FRAME_PLAINTEXT_BYTES:
        raise ProtocolError(f"frame of {len(plaintext)} bytes, expected {FRAME_PLAINTEXT_BYTES}")
    kind, end = plaintext[0], _HEAD_BYTES + int.from_bytes(plaintext[1:_HEAD_BYTES])
    known = kind in {_TEXT, _RECEIPT, _PLACE}
    if not known or end > len(plaintext) or plaintext[end:].strip(b"\0"):
        raise ProtocolError("frame is malformed")
    return kind, plaintext[_HEAD_BYTES:end]


def seal_error(error: AppError, *, answer_secret: bytes, request_digest: bytes) -> bytes:
    """Give the sealed error message for *error*: its code and numbers, never more."""
    block = pad(cbor.encode([wire_code(error), list(error.numbers)]), FRAME_PLAINTEXT_BYTES)
    aead = _error_aead(answer_secret, request_digest)
    return encode_message(Kind.SEALED_ERROR, aead.encrypt(bytes(12), block, request_digest))


def open_error(body: bytes, *, answer_secret: bytes, request_digest: bytes) -> AppError:
    """
    Open the body of a sealed error message and give the error, for the caller to raise.

    Raises:
        EnvelopeError: It does not open.

        ProtocolError: It opens and is not an error.
    """
    aead = _error_aead(answer_secret, request_digest)
    try:
        block = aead.decrypt(bytes(12), body, request_digest)
    except (InvalidTag, ValueError):
        raise EnvelopeError("sealed error does not open") from None
    match cbor.decode(unpad(block)):
        case [str(code), list(numbers)] if code in WIRE_ERRORS:
            counts = tuple(number for number in numbers if isinstance(number, int))
            if len(counts) == len(numbers):
                return WIRE_ERRORS[code](f"the enclave answered {code}", numbers=counts)
    raise ProtocolError("sealed error is malformed")


def _error_aead(answer_secret: bytes, request_digest: bytes) -> AESGCM:
    info = _ERROR_LABEL + request_digest
    return AESGCM(HKDF(SHA256(), DATA_KEY_BYTES, None, info).derive(answer_secret))
