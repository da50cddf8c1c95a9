"""
The asker's half of a question: writing its bytes.

SPEC.md section 5.3; `app.protocol.question` says what a question is, and parses.
"""

from app.protocol import cbor
from app.protocol.constants import MAX_QUESTION_BYTES
from app.protocol.errors import TooLongError
from app.protocol.question import SCALE, Question, utf8


def encode_question(question: Question) -> bytes:
    """
    Give the bytes of SPEC.md section 5.3.

    Raises:
        TooLongError: They exceed `MAX_QUESTION_BYTES`; numbers are (size, limit).

        QuestionError: A text has half of a surrogate pair, which UTF-8 cannot carry.
    """
    for message in question.messages:
        utf8(message.text)
    encoded = _encode(question)
    if len(encoded) > MAX_QUESTION_BYTES:
        raise TooLongError(
            f"question and history are {len(encoded)} bytes, the limit is {MAX_QUESTION_BYTES}",
            numbers=(len(encoded), MAX_QUESTION_BYTES),
        )
    return encoded


def _encode(question: Question) -> bytes:
    options = question.options
    return cbor.encode(
        {
            "messages": [[message.role, message.text] for message in question.messages],
            "max_tokens": options.max_tokens,
            "temperature": round(options.temperature * SCALE),
            "top_p": round(options.top_p * SCALE),
            "top_k": options.top_k,
            "seed": options.seed,
            "stop": list(options.stop),
            "padding": options.padding,
        }
    )
