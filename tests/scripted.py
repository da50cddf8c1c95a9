"""
Scripted parts of an enclave, and an asker to it: a model and a KMS that do as a test says.
"""

import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from app.enclave.answering import Answerer
from app.enclave.engine.cache import PrefixName
from app.enclave.engine.interface import Finish
from app.enclave.key_ring import KeyRing
from app.enclave.kms.client import AnswerKey
from app.enclave.kms.data_keys import DataKeys
from app.enclave.nsm import Nsm
from app.protocol.answer import encode_header
from app.protocol.asker.answer import AnswerOpener, open_error, parse_header
from app.protocol.asker.envelope import seal_question
from app.protocol.asker.receipt import verify_receipt
from app.protocol.asker.sealing import seal_request
from app.protocol.authorization import Authorization
from app.protocol.errors import AppError
from app.protocol.manifest import Manifest
from app.protocol.messages import Kind, encode_message, parse_message
from app.protocol.piece import Piece
from app.protocol.question import FinishReason, Question
from app.protocol.receipt import Receipt
from app.protocol.sealing import digest_request
from tests.samples import ANSWER_KEY, AUTHORIZATION, DATA_KEY, make_question
from tests.support import MEASUREMENTS, WEIGHTS_SHA256, make_nsm_client, twin_root

MANIFEST: Final = Manifest("scripted", "a script", WEIGHTS_SHA256, 2048)


@dataclass
class ScriptedEngine:
    """
    Answers every question with *pieces*, one each *seconds*, then ends with *reason*.

    An answer goes on for ever where *reason* is None, and all answers to a question end the same
    way. Itself an engine as the server wants one.
    """

    pieces: Sequence[str | Piece] = ("Nobody ", "but ", "you.")
    seconds: float = 0.0
    reason: FinishReason | None = "stop"
    refusal: Exception | None = None
    questions: list[Question] = field(default_factory=list)
    prefixes: list[PrefixName | None] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    generations: list["ScriptedGeneration"] = field(default_factory=list)
    closed: bool = False
    alive: bool = True
    keeps_deadline: bool = True
    waits: bool = False  # as a prompt that is to be encoded does

    def start(
        self,
        question: Question,
        *,
        deadline: float,
        prefix: PrefixName | None = None,
        require_wanted: Callable[[], None] = lambda: None,
    ) -> "ScriptedGeneration":
        """Begin, or refuse."""
        if self.waits:
            require_wanted()
        self.questions.append(question)
        self.prefixes.append(prefix)
        if self.refusal is not None:
            raise self.refusal
        generation = ScriptedGeneration(self, question.options.n, deadline)
        self.generations.append(generation)
        return generation

    def is_alive(self) -> bool:
        """Tell what the test wants told."""
        return self.alive

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class ScriptedGeneration:
    """A question's answers, made of time alone: piece n is there after n + 1 times *seconds*."""

    def __init__(self, engine: ScriptedEngine, answers: int, deadline: float) -> None:
        self._engine = engine
        self._answers = answers
        self._started = time.monotonic()
        self._deadline = deadline
        self.taken = 0
        self.cancelled = threading.Event()

    @property
    def finish(self) -> Finish | None:
        """How it ended."""
        script = self._engine
        late = script.keeps_deadline and time.monotonic() > self._deadline
        if late or self.cancelled.is_set():
            return Finish(tuple("error" for _ in range(self._answers)), 12, self.taken)
        if self.taken < len(script.pieces) or script.reason is None:
            return None
        return Finish((script.reason,) * self._answers, 12, self.taken)

    @property
    def place(self) -> int:
        """The next of the places that the test wants told, then 0."""
        return self._engine.places.pop(0) if self._engine.places else 0

    def take(self, timeout_seconds: float) -> list[Piece]:
        """Give the pieces that are due."""
        end = time.monotonic() + timeout_seconds
        while not self._due() and self.finish is None and time.monotonic() < end:
            time.sleep(0.002)
        due = self._due()
        self.taken += len(due)
        return [Piece(piece) if isinstance(piece, str) else piece for piece in due]

    def _due(self) -> Sequence[str | Piece]:
        script = self._engine
        passed = time.monotonic() - self._started
        ready = int(passed / script.seconds) if script.seconds else len(script.pieces)
        return [] if self.cancelled.is_set() else script.pieces[self.taken : ready]

    def wait_until_over(self, timeout_seconds: float) -> None:
        """Wait until no more pieces come."""
        script = self._engine
        last = self._started + script.seconds * len(script.pieces)
        left = max(0, last - time.monotonic()) if script.reason else timeout_seconds
        self.cancelled.wait(min(timeout_seconds, left))

    def cancel(self) -> None:
        """End it."""
        self.cancelled.set()


@dataclass
class ScriptedKms:
    """Gives the samples' data keys, or fails."""

    question_key: bytes = DATA_KEY
    question_failure: AppError | None = None
    answer_failure: AppError | None = None
    calls: list[str] = field(default_factory=list)

    def open_question_key(self, authorization: Authorization) -> bytes:
        """Give the question key."""
        del authorization
        self.calls.append("question")
        if self.question_failure is not None:
            raise self.question_failure
        return self.question_key

    def make_answer_key(self, authorization: Authorization) -> AnswerKey:
        """Give an answer key, wrapped as its own digest."""
        del authorization
        self.calls.append("answer")
        if self.answer_failure is not None:
            raise self.answer_failure
        return AnswerKey(hashlib.sha256(ANSWER_KEY).digest(), ANSWER_KEY)


def make_answerer(engine: ScriptedEngine, kms: ScriptedKms, nsm: Nsm | None = None) -> Answerer:
    """Wire an answerer as `app.enclave.main` does."""
    return Answerer(
        key_ring=KeyRing(manifest_digest=MANIFEST.digest, clock=time.monotonic),
        data_keys=DataKeys(kms),
        engine=engine,
        nsm=nsm or make_nsm_client(),
        manifest_digest=MANIFEST.digest,
    )


class Asker:
    """Seals one question to an attested key, and reads what comes back as the chatbot does."""

    def __init__(
        self,
        public_key: bytes,
        question: Question | None = None,
        *,
        authorization: Authorization = AUTHORIZATION,
        data_key: bytes = DATA_KEY,
    ) -> None:
        question = question or make_question()
        self.options = question.options
        envelope = seal_question(
            question,
            data_key=data_key,
            key_arn=authorization.key_arn,
            conversation=authorization.conversation,
            turn=authorization.turn,
        )
        self.places: list[int] = []
        self.pieces: list[Piece] = []
        self.authorization = authorization
        self.request = seal_request(
            authorization, envelope, public_key=public_key, manifest_digest=MANIFEST.digest
        )

    @property
    def message(self) -> bytes:
        """The chat message to send."""
        return encode_message(Kind.CHAT, self.request)

    def read(self, messages: list[bytes]) -> tuple[str, Receipt]:
        """Open a whole answer; give its text and its verified receipt."""
        (kind, body), *frames = map(parse_message, messages)
        assert kind is Kind.ANSWER_HEADER, kind
        assert parse_header(body) == hashlib.sha256(ANSWER_KEY).digest()
        opener = AnswerOpener(
            encode_header(body),
            data_key=ANSWER_KEY,
            answer_secret=self.authorization.answer_secret,
            request_digest=digest_request(self.request),
            options=self.options,
        )
        for frame in frames:
            self.pieces += opener.open(*frame)
            if opener.place is not None and self.places[-1:] != [opener.place]:
                self.places.append(opener.place)
        signed, answer_digest = opener.finish()
        receipt, _ = verify_receipt(
            signed,
            root=twin_root().certificate,
            now=datetime.now(UTC),
            measurements=MEASUREMENTS,
            request_digest=digest_request(self.request),
            answer_digest=answer_digest,
            manifest_digest=MANIFEST.digest,
            conversation=self.authorization.conversation,
            key_arn=self.authorization.key_arn.text,
            padding=self.options.padding,
        )
        return "".join(piece.text for piece in self.pieces if not piece.control), receipt

    def read_error(self, messages: list[bytes]) -> AppError:
        """Open a sealed error, which comes alone."""
        [message] = messages
        kind, body = parse_message(message)
        assert kind is Kind.SEALED_ERROR, kind
        return open_error(
            body,
            answer_secret=self.authorization.answer_secret,
            request_digest=digest_request(self.request),
        )
