"""
A question: the conversation's messages so far and how the asker wants the answer made.

This is the plaintext inside the question envelope; SPEC.md section 5.3 gives its bytes.
"""

from dataclasses import dataclass, field
from typing import Final, Literal, cast, get_args

from app.protocol import cbor
from app.protocol.constants import (
    DEFAULT_MAX_TOKENS,
    MAX_STOP_BYTES,
    MAX_STOP_STRINGS,
    MAX_TURNS,
)
from app.protocol.errors import ProtocolError, QuestionError

Role = Literal["system", "user", "assistant"]
Padding = Literal["constant", "off"]
FinishReason = Literal["stop", "length", "error"]  # the first two as the OpenAI API names them

SCALE: Final = 1_000_000  # temperature and top_p travel as millionths: the wire has no floats
_MAX_SEED: Final = 2**63 - 1
_MAX_TOKENS: Final = 2**20
_MAX_TOP_K: Final = 2**20


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    """
    How an answer is made and sent.

    Attributes:
        max_tokens: At most this many tokens are generated, 1 to 2^20.

        temperature: 0 (greedy, the default) to 2.

        top_p: Nucleus mass, over 0 to 1 (the default: no cut).

        top_k: Candidates kept, 0 (the default) for all.

        seed: Makes sampling reproducible; None for fresh randomness.

        stop: At most 4 strings that end the answer and are not part of it, 1 to 256 UTF-8
            bytes each.

        padding: `constant` hides length and rhythm; `off` sends frames as tokens come.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    padding: Padding = "constant"

    def __post_init__(self) -> None:
        """
        Check every range.

        Raises:
            QuestionError: A value is outside the range its attribute states.
        """
        _require(1 <= self.max_tokens <= _MAX_TOKENS, "max_tokens is not 1 to 1048576")
        _require(0 <= self.temperature <= 2, "temperature is not 0 to 2")
        _require(0 < self.top_p <= 1, "top_p is not over 0 to 1")
        _require(round(self.top_p * SCALE) > 0, "top_p is under one millionth")
        _require(0 <= self.top_k <= _MAX_TOP_K, "top_k is not 0 to 1048576")
        _require(self.seed is None or 0 <= self.seed <= _MAX_SEED, "seed is not 0 to 2^63-1")
        _require(len(self.stop) <= MAX_STOP_STRINGS, f"more than {MAX_STOP_STRINGS} stop strings")
        _require(
            all(1 <= len(utf8(text)) <= MAX_STOP_BYTES for text in self.stop),
            f"a stop string is not 1 to {MAX_STOP_BYTES} bytes",
        )


@dataclass(frozen=True, slots=True)
class Question:
    """
    The messages so far, the last one the asker's, and options for the answer to it.

    Raises:
        QuestionError: There is no message, more than `MAX_TURNS`, or the last one is not a
            `user` message with text in it.
    """

    messages: tuple[Message, ...]
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        _require(1 <= len(self.messages) <= MAX_TURNS, f"messages are not 1 to {MAX_TURNS}")
        last = self.messages[-1]
        _require(last.role == "user" and last.text.strip() != "", "the question is empty")


FIELDS: Final = (
    "messages", "max_tokens", "temperature", "top_p", "top_k", "seed", "stop", "padding",
)  # fmt: skip


def parse_question(data: bytes) -> Question:
    """
    Parse the bytes of SPEC.md section 5.3.

    Raises:
        ProtocolError: They are not exactly such a question.
    """
    value = cbor.decode_map(data, FIELDS)
    messages, stop, seed, padding = (value[k] for k in ("messages", "stop", "seed", "padding"))
    if not isinstance(messages, list) or not isinstance(stop, list):
        raise ProtocolError("question lists are not lists")
    if padding not in get_args(Padding):
        raise ProtocolError("padding is neither constant nor off")
    return Question(
        tuple(map(_parse_message, messages)),
        Options(
            max_tokens=_integer(value["max_tokens"]),
            temperature=_integer(value["temperature"]) / SCALE,
            top_p=_integer(value["top_p"]) / SCALE,
            top_k=_integer(value["top_k"]),
            seed=None if seed is None else _integer(seed),
            stop=tuple(map(_text, stop)),
            padding=cast("Padding", padding),
        ),
    )


def _parse_message(value: cbor.Cbor) -> Message:
    if not isinstance(value, list) or len(value) != 2:
        raise ProtocolError("message is not a role and a text")
    role, text = value
    if role not in get_args(Role):
        raise ProtocolError("message role is none of system, user, assistant")
    return Message(cast("Role", role), _text(text))


def _integer(value: cbor.Cbor) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise ProtocolError("option is not an integer")
    return value


def _text(value: cbor.Cbor) -> str:
    if not isinstance(value, str):
        raise ProtocolError("text is not a text string")
    return value


def utf8(text: str) -> bytes:
    """
    Encode *text*.

    Raises:
        QuestionError: It has half of a surrogate pair, which UTF-8 cannot carry.
    """
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise QuestionError("text is not Unicode: it has half of a surrogate pair") from None


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - a check reads best so
    if not condition:
        raise QuestionError(message)
