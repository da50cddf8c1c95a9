"""
A sealed question: one question on its way to one enclave, and what opens its answer.

SPEC.md sections 4 to 6, the chatbot's side. It exists only for a verified enclave.
"""

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

from cryptography.x509 import Certificate

from app.chatbot.session.access import Access
from app.chatbot.session.trust import VerifiedEnclave
from app.protocol.answer import encode_header
from app.protocol.asker.answer import AnswerOpener, open_error, parse_header
from app.protocol.asker.envelope import seal_question
from app.protocol.asker.messages import parse_hint
from app.protocol.asker.receipt import verify_receipt
from app.protocol.asker.sealing import seal_request
from app.protocol.authorization import Authorization, KeyArn
from app.protocol.constants import ANSWER_SECRET_BYTES
from app.protocol.errors import ProtocolError, TruncatedError
from app.protocol.messages import Kind
from app.protocol.question import Options, Question
from app.protocol.receipt import Receipt
from app.protocol.sealing import digest_request


@dataclass(frozen=True, slots=True)
class SealedQuestion:
    """
    What was sent, and what only its asker knows of it.

    Attributes:
        request: The sealed request, as it is posted.

        enclave: The one it was sealed to.
    """

    request: bytes = field(repr=False)
    answer_secret: bytes = field(repr=False)
    enclave: VerifiedEnclave
    conversation: bytes
    key_arn: KeyArn
    options: Options

    @property
    def digest(self) -> bytes:
        """The request digest."""
        return digest_request(self.request)

    def open_header(self, first: tuple[Kind, bytes] | None) -> bytes:
        """
        Give the wrapped answer key in the first message of an answer.

        Raises:
            TruncatedError: There is none.

            ProtocolError: It is another message.

            AppError: What the enclave, or the relay, says instead.
        """
        if first is None:
            raise TruncatedError("the answer ended before it began")
        kind, body = first
        if kind is Kind.SEALED_ERROR:
            secret, digest = self.answer_secret, self.digest
            raise open_error(body, answer_secret=secret, request_digest=digest)
        if kind is Kind.HINT:
            raise parse_hint(body)
        if kind is not Kind.ANSWER_HEADER:
            raise ProtocolError("answer does not begin with its header")
        return parse_header(body)

    def make_opener(self, wrapped_answer_key: bytes, access: Access) -> AnswerOpener:
        """
        Give what opens the frames; KMS is asked for the answer data key.

        Raises:
            DeniedError, KmsError: As they say.
        """
        return AnswerOpener(
            encode_header(wrapped_answer_key),
            data_key=access.open_answer_key(wrapped_answer_key, self.conversation),
            answer_secret=self.answer_secret,
            request_digest=self.digest,
            options=self.options,
        )

    def verify(self, opener: AnswerOpener, root: Certificate) -> Receipt:
        """
        Verify the receipt of the answer that *opener* has opened to its end.

        Raises:
            ProtocolError: There is none, or it breaks the format; or it is of another number of
                answers than were asked for, or of fewer tokens than log-probabilities came for.

            AttestationError: It is not of this answer to this question by this enclave.
        """
        signed, answer_digest = opener.finish()
        receipt, _ = verify_receipt(
            signed,
            root=root,
            now=datetime.now(UTC),
            measurements=self.enclave.release.measurements,
            request_digest=self.digest,
            answer_digest=answer_digest,
            manifest_digest=self.enclave.manifest.digest,
            conversation=self.conversation,
            key_arn=self.key_arn.text,
            padding=self.options.padding,
        )
        _require_asked_for(receipt, self.options, opener)
        return receipt


def _require_asked_for(receipt: Receipt, options: Options, opener: AnswerOpener) -> None:
    if len(receipt.finishes) != options.n:
        raise ProtocolError(f"receipt of {len(receipt.finishes)} answers, asked for {options.n}")
    if opener.entries > receipt.completion_tokens:
        raise ProtocolError("more log-probabilities than tokens were made")


def seal(
    question: Question,
    enclave: VerifiedEnclave,
    access: Access,
    *,
    key_arn: KeyArn,
    conversation: bytes,
    turn: int,
) -> SealedQuestion:
    """
    Seal *question* to *enclave* as that turn of that conversation.

    Raises:
        TooLongError: Question and history exceed a limit; numbers are (size, limit).

        QuestionError: The question cannot be asked.

        DeniedError, KmsError, ConfigError: As they say.
    """
    key = access.question_key(conversation)
    authorization = Authorization(
        credentials=access.credentials_for_enclave(conversation, enclave.release.measurements.pcr0),
        key_arn=key_arn,
        wrapped_question_key=key.wrapped,
        answer_secret=secrets.token_bytes(ANSWER_SECRET_BYTES),
        conversation=conversation,
        turn=turn,
        fips=access.fips,
    )
    envelope = seal_question(
        question, data_key=key.key, key_arn=key_arn, conversation=conversation, turn=turn
    )
    request = seal_request(
        authorization,
        envelope,
        public_key=enclave.public_key,
        manifest_digest=enclave.manifest.digest,
    )
    secret = authorization.answer_secret
    return SealedQuestion(request, secret, enclave, conversation, key_arn, question.options)
