"""
An exchange: one question and its answer as they pass, and what may be known of them meanwhile.

Iterating over an `Answer` drives it; `session` has the verifying, sealing and opening.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal

from app.chatbot.reading.parts import Part, Reasoning, Text, collect_calls
from app.chatbot.reading.reading import Reading
from app.chatbot.session.cut_off import Stop
from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.errors import TruncatedError
from app.protocol.messages import Kind
from app.protocol.piece import Piece
from app.protocol.question import Message, Options, ToolCall
from app.protocol.receipt import Receipt
from app.protocol.releases import Release

# `sealing` asks KMS for keys; `sent` until the enclave has opened the question; `waiting` until
# its first word; `thinking` while the model writes for itself.
State = Literal["sealing", "sent", "waiting", "thinking", "answering", "whole"]


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

        reading: Of the answers.

        parts: What has come of them, in order.

        enclave: The one that the question is sealed to; None before it has been verified.

        replaced: As in `Evidence`.
    """

    started: float
    reading: Reading = field(default_factory=lambda: Reading(Options()), repr=False)
    parts: list[Part] = field(default_factory=list, repr=False)
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

    def add(self, piece: Piece) -> Iterator[Part]:
        """Note a piece of the answers, and give what it says."""
        return map(self._note, self.reading.feed(piece))

    def flush(self) -> Iterator[Part]:
        """Give what the answers said last, once all pieces have come."""
        return map(self._note, self.reading.end())

    def _note(self, part: Part) -> Part:
        if not self.parts:
            self.first_text_seconds = self.seconds
        self.state = "thinking" if isinstance(part, Reasoning) else "answering"
        self.parts.append(part)
        return part

    @property
    def text(self) -> str:
        """What the first answer says so far, without reasoning."""
        return "".join(map(_first_text, self.parts))

    def message(self) -> Message:
        """Give the first answer as a message of a conversation."""
        parts = [part for part in self.parts if part.index == 0]
        reasoning = "".join(part.text for part in parts if isinstance(part, Reasoning))
        return Message("assistant", self.text, "", reasoning, collect_calls(parts))

    def end(self, evidence: Evidence) -> None:
        """Note that it is whole."""
        self.state = "whole"
        self.evidence = evidence


def _first_text(part: Part) -> str:
    return part.text if isinstance(part, Text) and part.index == 0 else ""


class Answer(Generator[str]):
    """
    One answer as it comes; made by `Session.ask`. Iterate over it for its text, piece by piece.

    That is the first answer's, where there are several, and neither reasoning nor a call of a tool:
    `parts` gives everything.

    It is whole only when the iterator ends without raising; `evidence` then holds its receipt.
    `close` ends it early, in the thread that iterates; `stop` from any other. What else is here
    may be read by all.

    Attributes:
        seen: What the parent saw of it so far.
    """

    def __init__(self, parts: Generator[Part], exchange: Exchange) -> None:
        self._parts = parts
        self._exchange = exchange
        self.seen = exchange.seen

    def send(self, value: None, /) -> str:
        """Give the next piece of text, as `next` does."""
        while not (text := _first_text(self._parts.send(value))):
            pass
        return text

    def parts(self) -> Iterator[Part]:
        """Give all parts of all answers as they come; it raises what iterating for text does."""
        yield from self._parts

    def throw(
        self,
        kind: type[BaseException] | BaseException,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> str:
        """End the answer by an error; `close` uses it, for the thread that iterates."""
        del value, traceback  # of the form with three arguments, which Python gives up
        part = self._parts.throw(kind if isinstance(kind, BaseException) else kind())
        return _first_text(part)

    def stop(self) -> None:
        """Stop the answer, from any thread: the iterator raises `TruncatedError`, at once."""
        self._exchange.stop.request()

    @property
    def stopped(self) -> bool:
        """Whether `stop` was called."""
        return self._exchange.stop.requested

    @property
    def text(self) -> str:
        """What has come of its text so far."""
        return self._exchange.text

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls of tools that it has made so far."""
        return self._exchange.message().calls

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
