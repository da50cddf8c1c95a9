"""
The asker's half of an answer: opening its frames, or the error that came instead.

SPEC.md section 6; sealing is in `app.protocol.answer`.
"""

import codecs

from cryptography.exceptions import InvalidTag

from app.protocol import cbor
from app.protocol.answer import HEAD_BYTES, PLACE, RECEIPT, TEXT, AnswerStream, error_aead
from app.protocol.authorization import unpad
from app.protocol.constants import FRAME_PLAINTEXT_BYTES, MAX_WRAPPED_KEY_BYTES
from app.protocol.errors import WIRE_ERRORS, AppError, EnvelopeError, ProtocolError
from app.protocol.messages import Kind, encode_message


def parse_header(body: bytes) -> bytes:
    """
    Parse the body of an answer header into the wrapped answer key.

    Raises:
        ProtocolError: Its length is none that KMS gives.
    """
    if not 1 <= len(body) <= MAX_WRAPPED_KEY_BYTES:
        raise ProtocolError(f"wrapped answer key of {len(body)} bytes")
    return body


class AnswerOpener(AnswerStream):
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
        nonce, aad = self.position(final=kind is Kind.FINAL_FRAME)
        try:
            plaintext = self.aead.decrypt(nonce, body, aad)
        except (InvalidTag, ValueError):
            # Not counted: a frame that was lost can never be passed over.
            raise EnvelopeError(f"frame {self.frames} does not open") from None
        self.count(encode_message(kind, body))
        self.finished = kind is Kind.FINAL_FRAME
        return self._take(*_parse_frame(plaintext), digest)

    def _take(self, kind: int, data: bytes, digest_before: bytes) -> str:
        if kind == RECEIPT:
            if self._answer_digest is None:
                self._answer_digest = digest_before
                self._decode(b"", final=True)
            self._receipt += data
            return ""
        if kind == PLACE:
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
    kind, end = plaintext[0], HEAD_BYTES + int.from_bytes(plaintext[1:HEAD_BYTES])
    known = kind in {TEXT, RECEIPT, PLACE}
    if not known or end > len(plaintext) or plaintext[end:].strip(b"\0"):
        raise ProtocolError("frame is malformed")
    return kind, plaintext[HEAD_BYTES:end]


def open_error(body: bytes, *, answer_secret: bytes, request_digest: bytes) -> AppError:
    """
    Open the body of a sealed error message and give the error, for the caller to raise.

    Raises:
        EnvelopeError: It does not open.

        ProtocolError: It opens and is not an error.
    """
    aead = error_aead(answer_secret, request_digest)
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
