"""
The asker's half of a question: writing its bytes.

SPEC.md section 5.3; `app.protocol.question` says what a question is, and parses.
"""

from app.protocol import cbor
from app.protocol.constants import MAX_QUESTION_BYTES
from app.protocol.errors import QuestionError, TooLongError
from app.protocol.question import FIELDS, NUMBERS, SCALE, Message, Options, Question


def encode_question(question: Question) -> bytes:
    """
    Give the bytes of SPEC.md section 5.3.

    Raises:
        TooLongError: They exceed `MAX_QUESTION_BYTES`; numbers are (size, limit).

        QuestionError: A text has half of a surrogate pair, which UTF-8 cannot carry.
    """
    fields = {name: _encode_option(question.options, name) for name in FIELDS[1:]}
    messages = [_encode_message(message) for message in question.messages]
    try:
        encoded = cbor.encode({FIELDS[0]: messages, **fields})
    except UnicodeEncodeError:
        raise QuestionError("text is not Unicode: it has half of a surrogate pair") from None
    if len(encoded) > MAX_QUESTION_BYTES:
        raise TooLongError(
            f"question and history are {len(encoded)} bytes, the limit is {MAX_QUESTION_BYTES}",
            numbers=(len(encoded), MAX_QUESTION_BYTES),
        )
    return encoded


def _encode_message(message: Message) -> list[cbor.Encodable]:
    common: list[cbor.Encodable] = [message.role, message.text, message.name]
    match message.role:
        case "assistant":
            calls = [[call.id, call.name, call.arguments] for call in message.calls]
            return [*common, message.reasoning, calls]
        case "tool":
            return [*common, message.call_id]
    return common


def _encode_option(options: Options, name: str) -> cbor.Encodable:
    value: cbor.Encodable | float = getattr(options, name)
    if name == "logit_bias":
        return [[token, round(bias * SCALE)] for token, bias in options.logit_bias]
    if name in NUMBERS and NUMBERS[name][2] == SCALE:
        assert isinstance(value, int | float)  # noqa: S101 - `Options` requires it
        return round(value * SCALE)
    assert not isinstance(value, float)  # noqa: S101 - all others are whole
    return value
