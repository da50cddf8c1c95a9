"""
A response of the OpenAI API: objects, chunks and errors, in OpenAI's shapes.

One member is of our own: `receipt`, which says which enclave made the answer.
"""

import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Literal

from app.chatbot.errors import CertificateError, FullError, LoginError
from app.chatbot.evidence.advice import advise
from app.chatbot.openai.body import RequestError
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


@dataclass(frozen=True, slots=True)
class Limit:
    """
    What a question may be too long for.

    Attributes:
        parameter: Where the question stands in a request.

        context_tokens: How many tokens the model reads and writes at most.
    """

    parameter: str
    context_tokens: int

    def explain(self, error: TooLongError) -> str:
        """Say it in words by which clients know this error, then in our own."""
        known = f"This model's maximum context length is {self.context_tokens} tokens. "
        return known + advise(error)


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
    if isinstance(error, TooLongError):
        body = error_body(limit.explain(error), kind, code, limit.parameter)
        return Failure(status, headers, body)
    return Failure(status, headers, error_body(advise(error), kind, code))


def error_body(message: str, kind: str, code: str | None, parameter: str | None = None) -> Json:
    """Give an error object."""
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def describe_model(name: str, created: int) -> Json:
    """Give a model object."""
    return {"id": name, "object": "model", "created": created, "owned_by": "enclave-llm"}


def event(body: Json) -> str:
    """Give a server-sent event."""
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


@dataclass(frozen=True, slots=True)
class Shape:
    """
    How the answers of one request look.

    Attributes:
        include_usage: A stream ends with a chunk that has the usage.
    """

    endpoint: Endpoint
    model: str
    limit: Limit
    include_usage: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(_ID_BYTES))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, evidence: Evidence) -> Json:
        """Give the object of an answer that is not streamed."""
        content: Json = {"text": text}
        if self.endpoint == "chat":
            content = {"message": {"role": "assistant", "content": text, "refusal": None}}
        kind = "chat.completion" if self.endpoint == "chat" else "text_completion"
        choice = self._choice(content, evidence.receipt.finish)
        return self._head(kind) | {
            "choices": [choice],
            "usage": _usage(evidence),
            "receipt": _receipt(evidence),
        }

    def first(self) -> str:
        """Give the event that begins a stream, "" where there is none."""
        if self.endpoint == "completion":
            return ""
        return self._chunk({"delta": {"role": "assistant", "content": ""}})

    def piece(self, text: str) -> str:
        """Give the event of a piece of text."""
        if self.endpoint == "completion":
            return self._chunk({"text": text})
        return self._chunk({"delta": {"content": text}})

    def last(self, evidence: Evidence) -> str:
        """Give the events that end a stream: only a whole and verified answer has them."""
        content: Json = {"text": ""} if self.endpoint == "completion" else {"delta": {}}
        end = self._chunk(content, evidence.receipt.finish, receipt=_receipt(evidence))
        if self.include_usage:
            end += event(self._head(self._chunk_kind) | {"choices": [], "usage": _usage(evidence)})
        return end + DONE

    def failed(self, error: AppError) -> str:
        """Give the event that ends a stream which fails."""
        return event(fail(error, self.limit).body)

    @property
    def _chunk_kind(self) -> str:
        return "chat.completion.chunk" if self.endpoint == "chat" else "text_completion"

    def _chunk(self, content: Json, finish: str | None = None, **more: Json) -> str:
        usage = {"usage": None} if self.include_usage else {}
        choices = {"choices": [self._choice(content, finish)]}
        return event(self._head(self._chunk_kind) | choices | usage | more)

    def _choice(self, content: Json, finish: str | None) -> Json:
        return {"index": 0, **content, "logprobs": None, "finish_reason": finish}

    def _head(self, kind: str) -> dict[str, object]:
        prefix = "chatcmpl" if self.endpoint == "chat" else "cmpl"
        return {
            "id": f"{prefix}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.model,
        }


def _usage(evidence: Evidence) -> Json:
    prompt, completion = evidence.receipt.prompt_tokens, evidence.receipt.completion_tokens
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


def _receipt(evidence: Evidence) -> Json:
    release = evidence.enclave.release
    return {
        "release": release.name,
        "kit": release.kit,
        "pcr0": release.measurements.pcr0.hex(),
        "weights_sha256": release.weights_sha256.hex(),
        "request": evidence.receipt.request_digest.hex(),
        "answer": evidence.receipt.answer_digest.hex(),
    }
