"""
An exchange: one question and its answer as they pass, and what may be known of them meanwhile.

Iterating over an `Answer` drives it; `session` has the verifying, sealing and opening.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from app.chatbot.session.cut_off import Stop
from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.errors import TruncatedError
from app.protocol.messages import Kind
from app.protocol.piece import Piece
from app.protocol.receipt import Receipt
from app.protocol.releases import Release

# `sealing` asks KMS for keys; `sent` until the enclave has opened the question; `waiting` until
# its first word.
State = Literal["sealing", "sent", "waiting", "answering", "whole"]


@dataclass(frozen=True, slots=True)
class Evidence:
    """
    What an asker can say of one whole, verified answer.

    Attributes:
        sealed_request: The exact bytes that crossed the parent.

        answer_bytes: How many came back, header and frames.

        first_text_seconds, total_seconds: From the call of `ask`.

        replaced: The release that was verified last before this question, if another one than
            the enclave that answered runs; both were approved.
    """

    receipt: Receipt
    enclave: VerifiedEnclave
    sealed_request: bytes = field(repr=False)
    answer_bytes: int
    first_text_seconds: float
    total_seconds: float
    replaced: Release | None = None


@dataclass(frozen=True, slots=True)
class SeenMessage:
    """
    One message of an answer, as it crossed the parent.

    Attributes:
        seconds: Since `ask` was called.

        body: Ciphertext, but for the wrapped answer key of the header, which KMS encrypted.
    """

    seconds: float
    kind: Kind
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Seen:
    """
    One question's traffic.

    Attributes:
        request: The sealed request; empty before it is sent.

        sent_seconds: From the call of `ask` to sending.
    """

    request: bytes = field(default=b"", repr=False)
    sent_seconds: float = 0.0
    messages: list[SeenMessage] = field(default_factory=list, repr=False)

    def send(self, request: bytes, seconds: float) -> None:
        """Begin anew with *request*: one that was refused is no longer part of the exchange."""
        self.request, self.sent_seconds = request, seconds
        self.messages.clear()

    @property
    def answer_bytes(self) -> int:
        """How many bytes of messages came back."""
        return sum(len(message.body) for message in self.messages)


@dataclass(slots=True)
class Exchange:
    """
    What has come of one answer so far; for the session.

    Attributes:
        started: Monotonic seconds.

        enclave: The one that the question is sealed to; None before it has been verified.

        replaced: As in `Evidence`.
    """

    started: float
    pieces: list[Piece] = field(default_factory=list, repr=False)
    seen: Seen = field(default_factory=Seen)
    stop: Stop = field(default_factory=Stop)
    state: State = "sealing"
    place: int | None = None
    first_text_seconds: float | None = None
    evidence: Evidence | None = None
    enclave: VerifiedEnclave | None = None
    replaced: Release | None = None
    _first: Release | None = None

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self.started

    def require_wanted(self) -> None:
        """
        Go on unless the answer was stopped.

        Raises:
            TruncatedError: It was.
        """
        if self.stop.requested:
            raise TruncatedError("it was stopped from here")

    def verify(self, before: VerifiedEnclave, enclave: VerifiedEnclave) -> None:
        """Note that the question goes to *enclave*, and what was verified *before*."""
        self._first = self._first or before.release
        self.enclave = enclave
        self.replaced = self._first if self._first != enclave.release else None

    def send(self, request: bytes) -> None:
        """Note that *request* is on its way."""
        self.state = "sent"
        self.seen.send(request, self.seconds)

    def receive(self, kind: Kind, body: bytes) -> None:
        """Note a message of the answer."""
        if kind is Kind.ANSWER_HEADER:
            self.state = "waiting"
        self.seen.messages.append(SeenMessage(self.seconds, kind, body))

    @property
    def text(self) -> str:
        """What has come of the first answer's text, control tokens left out."""
        return "".join(map(_first_text, self.pieces))

    def add(self, piece: Piece) -> None:
        """Note a piece of the answer."""
        if not self.pieces:
            self.first_text_seconds = self.seconds
        self.state = "answering"
        self.pieces.append(piece)

    def end(self, evidence: Evidence) -> None:
        """Note that it is whole."""
        self.state = "whole"
        self.evidence = evidence


def _first_text(piece: Piece) -> str:
    return piece.text if piece.index == 0 and not piece.control else ""


class Answer(Generator[str]):
    """
    One answer as it comes; made by `Session.ask`. Iterate over it for its text, piece by piece.

    Of several answers to one question that is the first one's, and never a control token; iterate
    over `pieces` for everything.

    It is whole only when the iterator ends without raising; `evidence` then holds its receipt.
    `close` ends it early, in the thread that iterates; `stop` from any other. What else is here
    may be read by all.

    Attributes:
        seen: What the parent saw of it so far.
    """

    def __init__(self, pieces: Generator[Piece], exchange: Exchange) -> None:
        self._pieces = pieces
        self._exchange = exchange
        self.seen = exchange.seen

    def send(self, value: None, /) -> str:
        """Give the next text, as `next` does."""
        while not (text := _first_text(self._pieces.send(value))):
            pass
        return text

    def pieces(self) -> Iterator[Piece]:
        """Give all pieces of all answers as they come; what iterating over it raises, this does."""
        yield from self._pieces

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> str:
        """End the answer by an error; `close` uses it, for the thread that iterates."""
        del value, traceback  # of the form with three arguments, which Python gives up
        piece = self._pieces.throw(kind if isinstance(kind, BaseException) else kind())
        return _first_text(piece)

    def stop(self) -> None:
        """Stop the answer, from any thread: the iterator raises `TruncatedError`, at once."""
        self._exchange.stop.request()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._exchange.stop.requested

    @property
    def text(self) -> str:
        """What has come so far."""
        return self._exchange.text

    @property
    def state(self) -> State:
        """How far it has come; stays where it was when the answer fails."""
        return self._exchange.state

    @property
    def place(self) -> int | None:
        """Its place among those that wait, 0 once it has begun, None where nothing was told."""
        return self._exchange.place

    @property
    def seconds(self) -> float:
        """Since `ask` was called."""
        return self._exchange.seconds

    @property
    def enclave(self) -> VerifiedEnclave | None:
        """The enclave that it is asked of; None before that has been verified."""
        return self._exchange.enclave

    @property
    def evidence(self) -> Evidence | None:
        """What can be said of it once it is whole; None before."""
        return self._exchange.evidence
