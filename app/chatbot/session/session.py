"""
A session: a verified enclave, and a conversation with it.

`connect` is the only way to get one, and it raises when any check fails: so whoever holds a
session may speak. SPEC.md sections 3 to 6, the chatbot's side.
"""

import secrets
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from app.chatbot.reading.parts import Part
from app.chatbot.reading.reading import Reading
from app.chatbot.session.access import Access
from app.chatbot.session.exchange import Answer, Evidence, Exchange
from app.chatbot.session.sealed import SealedQuestion, seal
from app.chatbot.session.transport import Transport
from app.chatbot.session.trust import Trust, VerifiedEnclave
from app.chatbot.session.verification import Verification
from app.protocol.asker.answer import AnswerOpener
from app.protocol.authorization import parse_key_arn
from app.protocol.constants import CONVERSATION_BYTES
from app.protocol.errors import (
    WIRE_ERRORS,
    AppError,
    AttestationError,
    ConfigError,
    ReceiptError,
    TruncatedError,
    UnknownKeyError,
)
from app.protocol.messages import Kind
from app.protocol.question import Message, Options, Question

_ATTEMPTS: Final = 3  # at sealing, each after a full verification


def connect(transport: Transport, access: Access, *, key_arn: str, trust: Trust) -> "Session":
    """
    Verify the enclave behind *transport* and give a session with it.

    Raises:
        AttestationError: It is not an approved enclave, or that cannot be told.

        UnavailableError: Nobody answers.

        VersionError: What answers is an enclave of another version; says which end to update.

        ProtocolError: What answers is no enclave.
    """
    return Session(transport, access, key_arn=key_arn, trust=trust)


class Session:
    """
    A conversation with a verified enclave; made by `connect`. A context manager, which closes it.

    For one thread at a time, but for `Answer.stop`.

    Attributes:
        history: The conversation so far.

        tools: Shown to the model in it, JSON text; for whoever has several sessions to choose from.

        evidence: Of the last answer; None before one has come whole.
    """

    def __init__(self, transport: Transport, access: Access, *, key_arn: str, trust: Trust) -> None:
        self._transport = transport
        self._access = access
        self._key_arn = parse_key_arn(key_arn)
        self._verification = Verification(transport, trust)
        self._closed = False
        self.evidence: Evidence | None = None
        self.new_conversation()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def new_conversation(self, history: tuple[Message, ...] = ()) -> None:
        """Forget the conversation so far and begin another, after *history*, with its own keys."""
        self.conversation = secrets.token_bytes(CONVERSATION_BYTES)
        self.turn = 0
        self.history = history
        self.tools: str | None = None

    def ask(self, text: str, options: Options | None = None) -> Answer:
        """
        Ask *text* and give the answer piece by piece, as its frames open.

        The answer is whole, and in the history, only when the iterator ends without raising;
        `evidence` then holds its receipt. Nothing is sent before the iterator is asked for its
        first piece, and all that follows is raised by it.

        Raises:
            QuestionError: The question is empty, or an option is out of range.

            ProtocolError: The answer breaks the format.

            UnsupportedError: The question asks for what this enclave cannot honour; numbers say
                for what, by `app.protocol.question.FIELDS`.

            ConfigError: The session was closed, or the list of approved releases is gone or
                malformed; nothing was sent.

            TooLongError: Question and history exceed a limit; numbers are (size, limit).

            AttestationError: The enclave changed and is not trusted now. Nothing was sent, or,
                where `sent` is set, only a copy sealed to the enclave verified before.

            ReceiptError: The answer's receipt does not verify.

            EnvelopeError: A frame was altered, moved or is another answer's.

            TruncatedError: The answer ended before its final frame, or was stopped.

            DeniedError, KmsError, BusyError, DeadlineError, UnavailableError: As they say.

        Those that end an answer that had begun have `incomplete` set.
        """
        return self._begin(lambda: (*self.history, Message("user", text)), options or Options())

    def ask_question(self, question: Question) -> Answer:
        """
        Ask *question*, which has all of its conversation; the history is then that and the answer.

        Otherwise as `ask`. Where *question* ends with an assistant's message, the answer goes on
        from there, and both are one message of the history.
        """
        return self._begin(lambda: question.messages, question.options)

    def _begin(self, messages: Callable[[], tuple[Message, ...]], options: Options) -> Answer:
        exchange = Exchange(time.monotonic(), Reading(options))
        return Answer(self._ask(messages, options, exchange), exchange)

    def doubt(self) -> None:
        """Have the enclave verified again before anything more is sent."""
        self._verification.doubt()

    @property
    def enclave(self) -> VerifiedEnclave:
        """The enclave as it was last verified."""
        return self._verification.enclave

    @property
    def root_name(self) -> str:
        """The name of the root that documents are verified under."""
        return self._verification.trust.root_name

    @property
    def is_demo(self) -> bool:
        """Whether something else than AWS's hardware signs for its enclave."""
        return self._verification.trust.is_demo

    @property
    def doubted(self) -> bool:
        """Whether the enclave has to be verified again before anything more is sent."""
        return self._verification.doubted

    def close(self) -> None:
        """Close the connections; whoever asks afterwards gets an error, and sends nothing."""
        self._closed = True
        self._transport.close()
        self._access.close()

    def _ask(
        self, messages: Callable[[], tuple[Message, ...]], options: Options, exchange: Exchange
    ) -> Generator[Part]:
        question = Question(messages(), options)
        self.evidence = None
        try:
            yield from self._answer(question, exchange)
        except AppError as error:
            error.sent = bool(exchange.seen.request)
            if not exchange.stop.requested:
                raise
            stopped = TruncatedError("it was stopped from here")
            stopped.incomplete, stopped.sent = error.incomplete, error.sent
            raise stopped from None
        self.evidence = exchange.evidence
        self.history = _add(question.messages, exchange.message())

    def _answer(self, question: Question, exchange: Exchange) -> Iterator[Part]:
        """Send the question until an enclave knows the key it is sealed to."""
        for attempt in range(_ATTEMPTS):
            if self._closed:
                raise ConfigError("this session is closed: connect again")
            exchange.verify(self.enclave, self._verification.renew(anew=attempt > 0))
            exchange.require_wanted()
            sealed = self._seal(question)
            exchange.send(sealed.request)
            with closing(self._transport.post_chat(sealed.request, exchange.stop)) as messages:
                try:
                    header = sealed.open_header(next(messages, None))
                except UnknownKeyError:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    continue
                with _whole_or_incomplete():
                    yield from self._open(header, messages, sealed, exchange)
                return

    def _seal(self, question: Question) -> SealedQuestion:
        sealed = seal(
            question,
            self.enclave,
            self._access,
            key_arn=self._key_arn,
            conversation=self.conversation,
            turn=self.turn,
        )
        self.turn += 1
        return sealed

    def _open(
        self,
        header: bytes,
        messages: Iterator[tuple[Kind, bytes]],
        sealed: SealedQuestion,
        exchange: Exchange,
    ) -> Iterator[Part]:
        """Open frames as they come, then verify the receipt."""
        opener = sealed.make_opener(header, self._access)
        exchange.receive(Kind.ANSWER_HEADER, header)
        for kind, body in messages:
            exchange.require_wanted()
            exchange.receive(kind, body)
            pieces = opener.open(kind, body)
            exchange.place = opener.place
            for piece in pieces:
                yield from exchange.add(piece)
        if not opener.finished:
            raise TruncatedError("the answer ended before its final frame")
        yield from exchange.flush()
        exchange.end(self._check(opener, sealed, exchange))

    def _check(self, opener: AnswerOpener, sealed: SealedQuestion, exchange: Exchange) -> Evidence:
        try:
            receipt = sealed.verify(opener, self._verification.trust.root)
        except AttestationError as error:  # of another image or root: nothing more goes there
            self.doubt()
            raise ReceiptError(str(error)) from None
        if receipt.finish == "error":
            kind = WIRE_ERRORS.get(receipt.code or "", AppError)
            raise kind("the answer is incomplete: the enclave could not finish it")
        total = exchange.seconds
        first = exchange.first_text_seconds or total
        received = exchange.seen.answer_bytes
        return Evidence(
            receipt, sealed.enclave, sealed.request, received, first, total, exchange.replaced
        )


def _add(messages: tuple[Message, ...], answer: Message) -> tuple[Message, ...]:
    """Give *messages* and *answer*, which goes on where they end with an assistant's."""
    *before, last = messages
    if last.role != "assistant":
        return (*messages, answer)
    return (*before, replace(answer, name=last.name, text=last.text + answer.text))


@contextmanager
def _whole_or_incomplete() -> Iterator[None]:
    """Mark what goes wrong from the header on: whatever was shown is not a whole answer."""
    try:
        yield
    except AppError as error:
        error.incomplete = True
        raise
