"""
A response of the OpenAI API: objects, chunks and errors, in OpenAI's shapes.

One member is of our own: `receipt`, which says which enclave made the answer.
"""

import json
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

from app.chatbot.errors import CertificateError, FullError, LoginError
from app.chatbot.evidence.advice import advise
from app.chatbot.openai.body import RequestError
from app.chatbot.openai.choices import ChatChoice, Choice, TextChoice
from app.chatbot.openai.request import NAMES
from app.chatbot.reading.parts import Part
from app.chatbot.session.exchange import Evidence
from app.protocol.errors import (
    AppError,
    AttestationError,
    BusyError,
    ConfigError,
    DeadlineError,
    DeniedError,
    EnvelopeError,
    KmsError,
    QuestionError,
    ReceiptError,
    TooLongError,
    UnavailableError,
    UnsupportedError,
    VersionError,
)
from app.protocol.question import FIELDS

Json = Mapping[str, object]
Endpoint = Literal["chat", "completion"]
DONE: Final = "data: [DONE]\n\n"
_ID_BYTES: Final = 12
_BAD, _FORBIDDEN = HTTPStatus.BAD_REQUEST, HTTPStatus.FORBIDDEN
# Status, type and code by error; the first that fits. Everything else is a bad gateway.
_ERRORS: Final[tuple[tuple[type[AppError], HTTPStatus, str, str], ...]] = (
    (LoginError, _FORBIDDEN, "permission_error", "login"),
    (ConfigError, HTTPStatus.INTERNAL_SERVER_ERROR, "server_error", "config"),
    (CertificateError, HTTPStatus.BAD_GATEWAY, "server_error", "certificate"),
    (FullError, HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "full"),
    (QuestionError, _BAD, "invalid_request_error", "invalid_value"),
    (TooLongError, _BAD, "invalid_request_error", "context_length_exceeded"),
    (UnsupportedError, _BAD, "invalid_request_error", "unsupported_parameter"),
    (BusyError, HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_error", "busy"),
    (DeniedError, _FORBIDDEN, "permission_error", "denied"),
    (DeadlineError, HTTPStatus.GATEWAY_TIMEOUT, "server_error", "deadline"),
    (KmsError, HTTPStatus.SERVICE_UNAVAILABLE, "server_error", "kms"),
    (UnavailableError, HTTPStatus.SERVICE_UNAVAILABLE, "server_error", "unavailable"),
)
# What a client must not try again by itself: a person has to know first.
_FINAL: Final = (
    *(AttestationError, ReceiptError, EnvelopeError, DeniedError),
    *(ConfigError, CertificateError, VersionError),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as it is answered."""

    status: int
    headers: dict[str, str]
    body: Json

    @property
    def error(self) -> Json:
        """The error object in the body."""
        error = self.body["error"]
        assert isinstance(error, Mapping)  # noqa: S101 - `error_body` made it
        return error


@dataclass(frozen=True, slots=True)
class Limit:
    """
    What a question may be too long for, or ask too much of.

    Attributes:
        parameter: Where the question stands in a request.

        context_tokens: How many tokens the model reads and writes at most.

        names: What options are called in a request, where that is another name.
    """

    parameter: str
    context_tokens: int
    names: Mapping[str, str] = field(default_factory=lambda: NAMES)

    def explain(self, error: TooLongError) -> str:
        """Say it in words by which clients know this error, then in our own."""
        known = f"This model's maximum context length is {self.context_tokens} tokens. "
        return known + advise(error)

    def name_options(self, error: AppError) -> list[str]:
        """Give what a request calls the options that cannot be honoured, which *error* numbers."""
        numbers = error.numbers if isinstance(error, UnsupportedError) else ()
        names = [FIELDS[number] for number in numbers if 0 <= number < len(FIELDS)]
        return [self.parameter if n == "messages" else self.names.get(n, n) for n in names]


def fail(error: AppError | RequestError, limit: Limit) -> Failure:
    """Give what is answered for *error*."""
    if isinstance(error, RequestError):
        body = error_body(str(error), "invalid_request_error", error.code, error.parameter)
        return Failure(_BAD, {}, body)
    kind = "enclave_not_trusted" if isinstance(error, AttestationError) else "server_error"
    known = (entry for entry in _ERRORS if isinstance(error, entry[0]))
    _, status, kind, code = next(known, (None, HTTPStatus.BAD_GATEWAY, kind, error.code))
    headers = {"x-should-retry": "false"} if isinstance(error, _FINAL) else {}
    if status is HTTPStatus.TOO_MANY_REQUESTS:
        headers["retry-after"] = "2"
    words, parameter = advise(error), None
    if isinstance(error, TooLongError):
        words, parameter = limit.explain(error), limit.parameter
    if names := limit.name_options(error):
        parameter = names[0]
        words = words.replace(str(error), f"the enclave cannot honour {', '.join(names)}")
    return Failure(status, headers, error_body(words, kind, code, parameter))


def error_body(message: str, kind: str, code: str | None, parameter: str | None = None) -> Json:
    """Give an error object."""
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def describe_model(name: str, created: int) -> Json:
    """Give a model object."""
    return {"id": name, "object": "model", "created": created, "owned_by": "enclave-llm"}


def event(body: Json) -> str:
    """Give a server-sent event."""
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


class Shape:
    """
    How the answers to one request look, and what they have come to so far.

    Attributes:
        include_usage: A stream ends with a chunk that has the usage.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, limit: Limit, *, include_usage: bool, answers: int
    ) -> None:
        make = ChatChoice if endpoint == "chat" else TextChoice
        self._endpoint = endpoint
        self._limit = limit
        self._include_usage = include_usage
        self._choices: list[Choice] = [make(index) for index in range(answers)]
        self._id = secrets.token_hex(_ID_BYTES)
        self._created = int(time.time())
        self.model = model

    def take(self, part: Part) -> Json | None:
        """Take *part*, and give what a stream tells of it, None where that is nothing."""
        return self._choices[part.index].add(part)

    def add(self, part: Part) -> str:
        """Take *part*, and give the event that tells of it, "" where none does."""
        return self._chunk(self.take(part))

    def whole(self, evidence: Sequence[Evidence]) -> Json:
        """Give the object of answers that are not streamed."""
        choices = [choice.whole(end) for choice, end in self._ends(evidence)]
        kind = "chat.completion" if self._endpoint == "chat" else "text_completion"
        return self._head(kind) | {
            "choices": choices,
            "usage": _usage(evidence),
            **_receipts(evidence),
        }

    def first(self) -> str:
        """Give the events that begin a stream, "" where there are none."""
        return "".join(self._chunk(choice.first()) for choice in self._choices)

    def last(self, evidence: Sequence[Evidence]) -> str:
        """Give the events that end a stream: only whole and verified answers have them."""
        *others, final = [choice.last(end) for choice, end in self._ends(evidence)]
        end = "".join(map(self._chunk, others)) + self._chunk(final, **_receipts(evidence))
        if self._include_usage:
            end += event(self._head(self._chunk_kind) | {"choices": [], "usage": _usage(evidence)})
        return end + DONE

    def failed(self, error: AppError) -> str:
        """Give the event that ends a stream which fails."""
        return event(fail(error, self._limit).body)

    def _ends(self, evidence: Sequence[Evidence]) -> Iterator[tuple[Choice, str]]:
        finishes = [reason for one in evidence for reason in one.receipt.finishes]
        return zip(self._choices, finishes, strict=True)

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self._endpoint == "chat" else "text_completion"

    def _chunk(self, choice: Json | None, **more: object) -> str:
        if choice is None:
            return ""
        usage = {"usage": None} if self._include_usage else {}
        return event(self._head(self._chunk_kind) | {"choices": [choice]} | usage | more)

    def _head(self, kind: str) -> dict[str, object]:
        prefix = "chatcmpl" if self._endpoint == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self._id}",
            "object": kind,
            "created": self._created,
            "model": self.model,
        }


def _usage(evidence: Sequence[Evidence]) -> Json:
    prompt = sum(one.receipt.prompt_tokens for one in evidence)
    completion = sum(one.receipt.completion_tokens for one in evidence)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _receipts(evidence: Sequence[Evidence]) -> dict[str, object]:
    """Give the receipt; where there were several prompts, each has its own."""
    shown = list(map(show_receipt, evidence))
    return {"receipt": shown[0]} | ({"receipts": shown} if len(shown) > 1 else {})


def show_receipt(evidence: Evidence) -> Json:
    """Give what an API tells of an answer's receipt."""
    release = evidence.enclave.release
    return {
        "release": release.name,
        "kit": release.kit,
        "pcr0": release.measurements.pcr0.hex(),
        "weights_sha256": release.weights_sha256.hex(),
        "request": evidence.receipt.request_digest.hex(),
        "answer": evidence.receipt.answer_digest.hex(),
    }
