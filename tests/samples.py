"""
One asker's things, for any test: credentials, a key, a conversation, a question.
"""

import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Final

from app.chatbot import errors as chatbot_errors
from app.protocol import errors
from app.protocol.answer import AnswerSealer, encode_header
from app.protocol.asker.answer import AnswerOpener
from app.protocol.authorization import Authorization, Credentials, parse_key_arn
from app.protocol.messages import Kind, parse_message
from app.protocol.question import Message, Options, Question

ARN: Final = "arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555"
OTHER_ARN: Final = ARN.replace("1111-", "9999-")
KEY_ARN: Final = parse_key_arn(ARN)
CREDENTIALS: Final = Credentials("ASIAEXAMPLEEXAMPLE00", "secret", "session-token")
CONVERSATION: Final = b"\xc0" * 16
DATA_KEY: Final = b"\xda" * 32
ANSWER_KEY: Final = b"\xa5" * 32
ANSWER_SECRET: Final = b"\x5e" * 32
REQUEST_DIGEST: Final = b"\x4d" * 32
MANIFEST_DIGEST: Final = b"\x3a" * 32
EVERYTHING: Final = Options(n=16, logprobs=1)  # that an answer may tell
HEADER: Final = encode_header(b"wrapped answer key")
AUTHORIZATION: Final = Authorization(
    credentials=CREDENTIALS,
    key_arn=KEY_ARN,
    wrapped_question_key=b"wrapped question key",
    answer_secret=ANSWER_SECRET,
    conversation=CONVERSATION,
    turn=7,
)


# Everything that is raised on purpose.
ERROR_KINDS: Final = [
    kind
    for module in (errors, chatbot_errors)
    for _, kind in inspect.getmembers(module, inspect.isclass)
    if issubclass(kind, errors.AppError) and kind.__module__ == module.__name__
]


def make_question(text: str = "Who reads this?", options: Options | None = None) -> Question:
    """Make a question of one message."""
    return Question((Message("user", text),), options or Options())


def make_sealer(
    *,
    header: bytes = HEADER,
    data_key: bytes = ANSWER_KEY,
    answer_secret: bytes = ANSWER_SECRET,
    request_digest: bytes = REQUEST_DIGEST,
) -> AnswerSealer:
    """Make the enclave's half of an answer."""
    return AnswerSealer(
        header, data_key=data_key, answer_secret=answer_secret, request_digest=request_digest
    )


def make_opener(
    *,
    header: bytes = HEADER,
    data_key: bytes = ANSWER_KEY,
    answer_secret: bytes = ANSWER_SECRET,
    request_digest: bytes = REQUEST_DIGEST,
    options: Options = EVERYTHING,
) -> AnswerOpener:
    """Make the chatbot's half of an answer; by default the one to `make_sealer`."""
    return AnswerOpener(
        header,
        data_key=data_key,
        answer_secret=answer_secret,
        request_digest=request_digest,
        options=options,
    )


def seal_answer(
    *texts: bytes,
    receipt: tuple[bytes, ...] = (b"a ", b"receipt"),
    sealer: AnswerSealer | None = None,
) -> list[bytes]:
    """Seal a whole answer: a frame a text, a frame a part of the receipt, the last one final."""
    sealer = sealer or make_sealer()
    frames = [sealer.seal_text(text) for text in texts]
    frames += [sealer.seal_receipt(part) for part in receipt[:-1]]
    return [*frames, sealer.seal_receipt(receipt[-1], final=True)]


def open_frames(frames: list[bytes], opener: AnswerOpener | None = None) -> str:
    """Open frame messages to the end of the answer and give the text."""
    opener = opener or make_opener()
    text = "".join(open_text(opener, frame) for frame in frames)
    opener.finish()
    return text


def open_text(opener: AnswerOpener, frame: bytes) -> str:
    """Open one frame message and give its text."""
    return "".join(piece.text for piece in opener.open(*parse_message(frame)))


def flips(data: bytes, *, every_bit_at: tuple[int, ...] = (0,)) -> Iterator[bytes]:
    """Give *data* with each byte altered in turn, and with each bit of some bytes flipped."""
    for position in range(len(data)):
        yield _flip(data, position, 0x41)
    for position in every_bit_at:
        for bit in range(8):
            yield _flip(data, position % len(data), 1 << bit)


def _flip(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


def with_kind(message: bytes, kind: Kind) -> bytes:
    """Give *message* under another kind."""
    return bytes([kind]) + message[1:]


def changed(authorization: Authorization, **fields: object) -> Authorization:
    """Give *authorization* with other fields, checked by nobody."""
    change: Callable[..., Authorization] = replace
    return change(authorization, **fields)
