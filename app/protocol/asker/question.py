"""
The asker's half of a question: writing its bytes.

SPEC.md section 5.3; `app.protocol.question` says what a question is, and parses.
"""

from dataclasses import fields

from app.protocol import cbor
from app.protocol.constants import MAX_QUESTION_BYTES
from app.protocol.errors import QuestionError, TooLongError
from app.protocol.question import Message, Question, parse_question


def encode_question(question: Question) -> bytes:
    """
    Give the bytes of SPEC.md section 5.3.

    Raises:
        TooLongError: They exceed `MAX_QUESTION_BYTES`; numbers are (size, limit).

        QuestionError: A text has half of a surrogate pair, which UTF-8 cannot carry.
    """
    try:
        encoded = _encode(question)
    except UnicodeEncodeError:
        raise QuestionError("text is not Unicode: it has half of a surrogate pair") from None
    if len(encoded) > MAX_QUESTION_BYTES:
        raise TooLongError(
            f"question and history are {len(encoded)} bytes, the limit is {MAX_QUESTION_BYTES}",
            numbers=(len(encoded), MAX_QUESTION_BYTES),
        )
    parse_question(encoded)  # what the enclave would not take is not sent
    return encoded


def _encode(question: Question) -> bytes:
    options: dict[str, cbor.Encodable] = {
        option.name: _scale(getattr(question.options, option.name), option.metadata["scale"])
        for option in fields(question.options)
    }
    return cbor.encode({"messages": list(map(_encode_message, question.messages)), **options})


def _scale(value: cbor.Encodable | float, scale: int) -> cbor.Encodable:
    """Give an option as it travels."""
    return round(value * scale) if isinstance(value, int | float) else value


def _encode_message(message: Message) -> list[cbor.Encodable]:
    common: list[cbor.Encodable] = [message.role, message.text, message.name]
    match message.role:
        case "assistant":
            calls = [[call.id, call.name, call.arguments] for call in message.calls]
            return [*common, message.reasoning, calls]
        case "tool":
            return [*common, message.call_id]
    return common
