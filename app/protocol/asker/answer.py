"""
The asker's half of an answer: opening its frames, or the error that came instead.

SPEC.md section 6; sealing is in `app.protocol.answer`.
"""

import codecs
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.exceptions import InvalidTag

from app.protocol import cbor
from app.protocol.answer import (
    HEAD_BYTES,
    LEAST_LOGPROB,
    AnswerStream,
    PartKind,
    error_aead,
)
from app.protocol.authorization import unpad
from app.protocol.constants import (
    FRAME_PLAINTEXT_BYTES,
    MAX_ALTERNATIVES,
    MAX_ANSWERS,
    MAX_WRAPPED_KEY_BYTES,
)
from app.protocol.errors import (
    WIRE_ERRORS,
    AppError,
    EnvelopeError,
    ProtocolError,
    UnsupportedError,
)
from app.protocol.messages import Kind, encode_message
from app.protocol.piece import Piece, TokenLogprob
from app.protocol.question import FIELDS, SCALE, Options

_PART_KINDS: Final = frozenset(PartKind)
_MOST: Final = 2**64 - 1  # of what an error counts


def parse_header(body: bytes) -> bytes:
    """
    Parse the body of an answer header into the wrapped answer key.

    Raises:
        ProtocolError: Its length is none that KMS gives.
    """
    if not 1 <= len(body) <= MAX_WRAPPED_KEY_BYTES:
        raise ProtocolError(f"wrapped answer key of {len(body)} bytes")
    return body


@dataclass(frozen=True, slots=True)
class Part:
    """
    Something that a frame holds.

    Attributes:
        index: Which of a question's answers it belongs to.
    """

    kind: PartKind
    data: bytes = field(repr=False)
    index: int


class AnswerOpener(AnswerStream):
    """
    The chatbot's half of one answer; the enclave's arguments, and the question's options.

    `open` frames as they come, then `finish`. What a frame has is given as soon as it has opened:
    it is the enclave's, in order; that it is all of it only `finish` says.

    Attributes:
        place: The answer's place among those that wait, as the last frame that told said; 0
            once it has begun, None before the enclave has told.

        entries: How many log-probabilities have come, of all answers.
    """

    def __init__(
        self,
        header: bytes,
        *,
        data_key: bytes,
        answer_secret: bytes,
        request_digest: bytes,
        options: Options,
    ) -> None:
        super().__init__(
            header, data_key=data_key, answer_secret=answer_secret, request_digest=request_digest
        )
        self._texts: dict[int, _Text] = defaultdict(_Text)
        self._options = options
        self._entries: dict[int, bytearray] = defaultdict(bytearray)
        self._receipt = bytearray()
        self._answer_digest: bytes | None = None
        self.entries = 0
        self.place: int | None = None
        self.finished = False

    def open(self, kind: Kind, body: bytes) -> list[Piece]:
        """
        Open the next frame and give the pieces in it.

        Raises:
            EnvelopeError: It does not open: altered, out of place, or of another answer.

            ProtocolError: It opens and breaks the format, comes after the final frame, or has what
                the question did not ask for.
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
        parts = parse_frame(plaintext)
        if any(part.kind is PartKind.RECEIPT for part in parts):
            self._take_receipt(parts, digest)
            return []
        if parts and self._answer_digest is not None:
            raise ProtocolError("more of the answer after the receipt has begun")
        return [piece for part in parts for piece in self._take(part)]

    def _take_receipt(self, parts: list[Part], digest_before: bytes) -> None:
        if len(parts) != 1 or parts[0].index:
            raise ProtocolError("a piece of the receipt is not alone in its frame")
        if self._answer_digest is None:
            self._answer_digest = digest_before
            for text in self._texts.values():
                text.end()
            if any(self._entries.values()):
                raise ProtocolError("log-probabilities end inside an entry")
        self._receipt += parts[0].data

    def _take(self, part: Part) -> Iterator[Piece]:
        if part.index >= self._options.n:
            raise ProtocolError(f"a part of answer {part.index}, {self._options.n} were asked for")
        match part.kind:
            case PartKind.TEXT:
                if text := self._texts[part.index].decode(part.data):
                    yield Piece(text, part.index)
            case PartKind.CONTROL:
                self._texts[part.index].end()
                yield Piece(_Text().decode(part.data, whole=True), part.index, control=True)
            case PartKind.LOGPROBS:
                yield from self._take_logprobs(part)
            case _:
                self._take_place(part)

    def _take_logprobs(self, part: Part) -> Iterator[Piece]:
        self._entries[part.index] += part.data
        come = tuple(_take_entries(self._entries[part.index]))
        if any(len(told.alternatives) != self._options.logprobs for told in come):
            raise ProtocolError("log-probabilities other than were asked for")
        self.entries += len(come)
        if come:
            yield Piece("", part.index, logprobs=come)

    def _take_place(self, part: Part) -> None:
        if len(part.data) != 2 or part.index:
            raise ProtocolError("place is malformed")
        self.place = int.from_bytes(part.data)

    def finish(self) -> tuple[bytes, bytes]:
        """
        Give the joined parts of the receipt and the answer digest it has to state.

        Raises:
            ProtocolError: The final frame has not come, or no receipt came before it.
        """
        if not self.finished or self._answer_digest is None:
            raise ProtocolError("answer has no receipt or no final frame")
        return bytes(self._receipt), self._answer_digest


class _Text:
    """The text of one answer, whose characters parts may cut."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def decode(self, data: bytes, *, whole: bool = False) -> str:
        try:
            return self._decoder.decode(data, whole)
        except UnicodeDecodeError:
            raise ProtocolError("answer is not UTF-8") from None

    def end(self) -> None:
        """Require that no character is half there."""
        self.decode(b"", whole=True)


def parse_frame(plaintext: bytes) -> list[Part]:
    """
    Parse what a frame held into its parts.

    Raises:
        ProtocolError: It has another size, or is not parts and then zeros.
    """
    if len(plaintext) != FRAME_PLAINTEXT_BYTES:
        raise ProtocolError(f"frame of {len(plaintext)} bytes, expected {FRAME_PLAINTEXT_BYTES}")
    parts, rest = [], plaintext
    while rest.strip(b"\0"):
        end = HEAD_BYTES + int.from_bytes(rest[2:HEAD_BYTES])
        if (
            rest[0] not in _PART_KINDS
            or rest[1] >= MAX_ANSWERS
            or not HEAD_BYTES < end <= len(rest)
        ):
            raise ProtocolError("frame is malformed")
        parts.append(Part(PartKind(rest[0]), rest[HEAD_BYTES:end], rest[1]))
        rest = rest[end:]
    return parts


def _take_entries(buffer: bytearray) -> Iterator[TokenLogprob]:
    """Take whole entries off the front of *buffer*."""
    while len(buffer) >= 2 and len(buffer) >= (end := 2 + int.from_bytes(buffer[:2])):
        entry = bytes(buffer[2:end])
        del buffer[:end]
        match cbor.decode(entry):
            case [token, value, list(alternatives)] if len(alternatives) <= MAX_ALTERNATIVES:
                made = _parse_logprob([token, value])
                others = tuple(map(_parse_logprob, alternatives))
                yield replace(made, alternatives=others)
            case _:
                raise ProtocolError("log-probability is malformed")


def _parse_logprob(item: cbor.Cbor) -> TokenLogprob:
    match item:
        case [bytes(token), value]:
            return TokenLogprob(token, cbor.integer(value, LEAST_LOGPROB, 0) / SCALE)
    raise ProtocolError("log-probability is malformed")


def _describe_error(code: str, numbers: tuple[int, ...]) -> str:
    names = [FIELDS[number] for number in numbers if 0 <= number < len(FIELDS)]
    if code == UnsupportedError.code and names:
        return f"the enclave cannot honour {', '.join(names)}"
    return f"the enclave answered {code}"


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
    if len(block) != FRAME_PLAINTEXT_BYTES:
        raise ProtocolError(f"sealed error of {len(block)} bytes")
    match cbor.decode(unpad(block)):
        case [str(code), list(numbers)] if code in WIRE_ERRORS:
            counts = tuple(cbor.integer(number, -_MOST, _MOST) for number in numbers)
            return WIRE_ERRORS[code](_describe_error(code, counts), numbers=counts)
    raise ProtocolError("sealed error is malformed")
