"""
A question: the conversation's messages so far and how the asker wants the answer made.

This is the plaintext inside the question envelope; SPEC.md section 5.3 gives its bytes, and the
number of each option. Writing them is `app.protocol.asker.question`.
"""

import re
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from app.protocol import cbor
from app.protocol.constants import (
    DEFAULT_MAX_TOKENS,
    MAX_ALTERNATIVES,
    MAX_ANSWERS,
    MAX_BIASED_TOKENS,
    MAX_SCHEMA_BYTES,
    MAX_STOP_BYTES,
    MAX_STOP_STRINGS,
    MAX_TOOLS_BYTES,
    MAX_TURNS,
)
from app.protocol.errors import ProtocolError, QuestionError

Role = Literal["system", "user", "assistant", "tool"]
ToolCalls = Literal["many", "one"]
Thinking = Literal["auto", "off", "on", "low", "medium", "high"]
Padding = Literal["constant", "off"]
FinishReason = Literal["stop", "length", "error"]  # the first two as the OpenAI API names them

SCALE: Final = 1_000_000  # fractions travel as millionths: the wire has no floats
FIELDS: Final = (
    "messages", "tools", "tool_choice", "tool_calls", "schema", "thinking", "max_tokens",
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "logprobs", "n", "seed", "stop", "padding",
)  # fmt: skip
# Least and most on the wire, and how many of it make one of the attribute.
NUMBERS: Final = {
    "max_tokens": (1, 2**20, 1),
    "temperature": (0, 2 * SCALE, SCALE),
    "top_p": (1, SCALE, SCALE),
    "top_k": (0, 2**20, 1),
    "min_p": (0, SCALE, SCALE),
    "presence_penalty": (-2 * SCALE, 2 * SCALE, SCALE),
    "frequency_penalty": (-2 * SCALE, 2 * SCALE, SCALE),
    "repetition_penalty": (1, 2 * SCALE, SCALE),
    "logprobs": (0, MAX_ALTERNATIVES, 1),
    "n": (1, MAX_ANSWERS, 1),
    "seed": (0, 2**63 - 1, 1),
}
_JSON_BYTES: Final = {"tools": MAX_TOOLS_BYTES, "schema": MAX_SCHEMA_BYTES}
_OR_NONE: Final = {"tools", "schema", "logprobs", "seed"}
_WORDS: Final = {
    "tool_calls": get_args(ToolCalls),
    "thinking": get_args(Thinking),
    "padding": get_args(Padding),
}
_MAX_TOKEN: Final = 2**31 - 1
_MAX_BIAS: Final = 100
_ID: Final = re.compile(r"[!-~]{1,64}", re.ASCII)
_TOOL_CHOICE: Final = re.compile(r"auto|none|required|function:[!-~]{1,64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that a model called: the call's id, the tool's name, its arguments as JSON text."""

    id: str
    name: str
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Message:
    """
    One message of a conversation.

    Attributes:
        name: Of who speaks, or of the tool; "" where none is given.

        reasoning: What an assistant thought before it wrote *text*.

        call_id: Of the call whose result a tool's message is.
    """

    role: Role
    text: str = field(repr=False)
    name: str = ""
    reasoning: str = field(default="", repr=False)
    calls: tuple[ToolCall, ...] = ()
    call_id: str = ""

    def __post_init__(self) -> None:
        """
        Check names and ids, and that nothing is there which the role does not have.

        Raises:
            QuestionError: One is malformed or missing, or the role has no such thing.
        """
        ids = [id_ for call in self.calls for id_ in (call.id, call.name)]
        ids += [self.name] * (self.name != "") + [self.call_id] * (self.role == "tool")
        _require(all(map(_ID.fullmatch, ids)), "a name or id is not 1 to 64 printable characters")
        _require(
            (self.role == "assistant" or (self.reasoning, self.calls) == ("", ()))
            and (self.role == "tool" or self.call_id == ""),
            f"a message of {self.role} has what only another role has",
        )


@dataclass(frozen=True, slots=True)
class Options:
    """
    How an answer is made and sent. SPEC.md section 5.3 has the ranges.

    Attributes:
        tools: What the model may call, JSON text.

        tool_choice: `auto`, `none`, `required`, or `function:` and a tool's name.

        tool_calls: Whether the model may call several at once.

        schema: What the answer has to be, JSON text.

        thinking: `auto` leaves it to the model.

        max_tokens: At most this many tokens are generated.

        temperature: 0 (greedy, the default) to 2.

        top_p, min_p: Nucleus mass, and the least probability beside the likeliest token's.

        top_k: Candidates kept, 0 (the default) for all.

        logit_bias: (token, bias) by ascending token.

        logprobs: How many alternatives are told with each token; None for no log-probabilities.

        n: How many answers.

        seed: Makes sampling reproducible; None for fresh randomness.

        stop: Strings that end the answer and are not part of it.

        padding: `constant` hides length and rhythm; `off` sends frames as tokens come.
    """

    max_tokens: int = DEFAULT_MAX_TOKENS
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = field(default=(), repr=False)
    padding: Padding = "constant"
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: tuple[tuple[int, float], ...] = field(default=(), repr=False)
    logprobs: int | None = None
    n: int = 1
    tools: str | None = field(default=None, repr=False)
    tool_choice: str = field(default="auto", repr=False)
    tool_calls: ToolCalls = "many"
    schema: str | None = field(default=None, repr=False)
    thinking: Thinking = "auto"

    def __post_init__(self) -> None:
        """
        Check every range.

        Raises:
            QuestionError: A value is outside the range of SPEC.md section 5.3.
        """
        _require_numbers(self)
        _require_texts(self)
        tokens = [token for token, _ in self.logit_bias]
        _require(len(tokens) <= MAX_BIASED_TOKENS, f"more than {MAX_BIASED_TOKENS} biased tokens")
        _require(tokens == sorted({*tokens}), "biased tokens are not ascending")
        _require(
            all(0 <= t <= _MAX_TOKEN and -_MAX_BIAS <= b <= _MAX_BIAS for t, b in self.logit_bias),
            f"logit_bias is not -{_MAX_BIAS} to {_MAX_BIAS} a token",
        )


def _require_numbers(options: Options) -> None:
    for name, (least, most, scale) in NUMBERS.items():
        value = getattr(options, name)
        low = "over 0" if least % scale else least // scale
        _require(
            (value is None and name in _OR_NONE) or least / scale <= value <= most / scale,
            f"{name} is not {low} to {most // scale}",
        )


def _require_texts(options: Options) -> None:
    for name, most in _JSON_BYTES.items():
        text = getattr(options, name)
        _require(text is None or 2 <= len(utf8(text)) <= most, f"{name} is not 2 to {most} bytes")
    for name, words in _WORDS.items():
        _require(getattr(options, name) in words, f"{name} is none of {', '.join(words)}")
    _require(_TOOL_CHOICE.fullmatch(options.tool_choice) is not None, "tool_choice is malformed")
    _require(
        options.tools is not None or options.tool_choice in {"auto", "none"},
        "tool_choice asks for a tool, and there are no tools",
    )
    _require(len(options.stop) <= MAX_STOP_STRINGS, f"more than {MAX_STOP_STRINGS} stop strings")
    _require(
        all(1 <= len(utf8(text)) <= MAX_STOP_BYTES for text in options.stop),
        f"a stop string is not 1 to {MAX_STOP_BYTES} bytes",
    )


@dataclass(frozen=True, slots=True)
class Question:
    """
    The messages so far, the last one to be answered or continued, and options for that.

    Raises:
        QuestionError: There is no message, there are more than `MAX_TURNS` with tool calls
            counted, an id is malformed, or the last message leaves nothing to answer.
    """

    messages: tuple[Message, ...]
    options: Options = field(default_factory=Options)

    def __post_init__(self) -> None:
        count = len(self.messages) + sum(len(message.calls) for message in self.messages)
        _require(self.messages != () and count <= MAX_TURNS, f"messages are not 1 to {MAX_TURNS}")
        last = self.messages[-1]
        _require(last.role == "tool" or last.text.strip() != "", "the question is empty")
        _require(last.role != "system" and last.calls == (), "the last message asks for no answer")


def parse_question(data: bytes) -> Question:
    """
    Parse the bytes of SPEC.md section 5.3.

    Raises:
        ProtocolError: They are not exactly such a question.
    """
    value = cbor.decode_map(data, FIELDS)
    messages = value["messages"]
    if not isinstance(messages, list):
        raise ProtocolError("messages are not an array")
    options = {name: _parse_option(name, value[name]) for name in FIELDS[1:]}
    return Question(tuple(map(_parse_message, messages)), Options(**options))  # type: ignore[arg-type] # as `_parse_option` says


def _parse_option(name: str, value: cbor.Cbor) -> object:
    if value is None and name in _OR_NONE:
        return None
    if name in NUMBERS:
        least, most, scale = NUMBERS[name]
        number = cbor.integer(value, least, most)
        return number if scale == 1 else number / scale
    match name, value:
        case "stop", list(items):
            return tuple(map(_text, items))
        case "logit_bias", list(items):
            return tuple(map(_parse_bias, items))
    return _text(value)


def _parse_bias(value: cbor.Cbor) -> tuple[int, float]:
    most = _MAX_BIAS * SCALE
    match value:
        case [token, bias]:
            return cbor.integer(token, 0, _MAX_TOKEN), cbor.integer(bias, -most, most) / SCALE
    raise ProtocolError("bias is not a token and a number")


def _parse_message(value: cbor.Cbor) -> Message:
    match value:
        case [("system" | "user") as role, str(text), str(name)]:
            return Message(role, text, name)
        case ["assistant", str(text), str(name), str(reasoning), list(calls)]:
            made = tuple(map(_parse_call, calls))
            return Message("assistant", text, name, reasoning=reasoning, calls=made)
        case ["tool", str(text), str(name), str(call_id)]:
            return Message("tool", text, name, call_id=call_id)
    raise ProtocolError("message is malformed")


def _parse_call(value: cbor.Cbor) -> ToolCall:
    match value:
        case [str(id_), str(name), str(arguments)]:
            return ToolCall(id_, name, arguments)
    raise ProtocolError("tool call is malformed")


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
