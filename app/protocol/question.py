"""
A question: the conversation's messages so far and how the asker wants the answer made.

This is the plaintext inside the question envelope; SPEC.md section 5.3 gives its bytes, and the
number of each option. Writing them is `app.protocol.asker.question`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Final, Literal, TypeVar, cast

from app.protocol import cbor
from app.protocol.constants import (
    MAX_ALTERNATIVES,
    MAX_ANSWERS,
    MAX_BIASED_TOKENS,
    MAX_SCHEMA_BYTES,
    MAX_STOP_BYTES,
    MAX_STOP_STRINGS,
    MAX_TOOLS_BYTES,
    MAX_TURNS,
    MOST_TOKENS,
)
from app.protocol.errors import ProtocolError, QuestionError

Role = Literal["system", "user", "assistant", "tool"]
ToolCalls = Literal["many", "one"]
Thinking = Literal["auto", "off", "on", "low", "medium", "high"]
Padding = Literal["constant", "off"]
FinishReason = Literal["stop", "length", "error"]  # the first two as the OpenAI API names them
_Default = TypeVar("_Default")

SCALE: Final = 1_000_000  # fractions travel as millionths: the wire has no floats
_ID: Final = "[!-~]{1,64}"
_MAX_BIAS: Final = 100 * SCALE
_MAX_TOKEN: Final = 2**31 - 1


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


def _option(
    default: _Default, check: Callable[[object], bool], words: str, scale: int = 1
) -> _Default:
    """Give a field of `Options`: what it may be, and how many units on the wire make one."""
    rule = {"check": check, "words": words, "scale": scale}
    return field(default=default, repr=False, metadata=rule)


def _number(default: _Default, least: int, most: int, scale: int = 1) -> _Default:
    words = f"{'over 0' if least % scale else least // scale} to {most // scale}"
    return _option(default, lambda value: _is_number(value, least, most, scale), words, scale)


def _is_number(value: object, least: int, most: int, scale: int = 1) -> bool:
    """Tell whether *value* is a number, a whole one where *scale* is 1, and no boolean."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return least <= value * scale <= most and (scale != 1 or isinstance(value, int))


def _word(default: _Default, pattern: str) -> _Default:
    return _option(default, lambda value: _matches(pattern, value), pattern.replace("|", ", "))


def _json(most: int) -> str | None:
    return _option(None, lambda value: _is_sized(value, 2, most), f"JSON of 2 to {most} bytes")


def _are_stops(value: object) -> bool:
    texts = value if isinstance(value, tuple) else (None,)
    return len(texts) <= MAX_STOP_STRINGS and all(_is_sized(t, 1, MAX_STOP_BYTES) for t in texts)


def _are_biases(value: object) -> bool:
    values = value if isinstance(value, tuple) else (None,)
    tokens = [token for token in values[::2] if _is_number(token, 0, _MAX_TOKEN)]
    biases = [bias for bias in values[1::2] if _is_number(bias, -_MAX_BIAS, _MAX_BIAS)]
    paired = 2 * len(tokens) == 2 * len(biases) == len(values) <= 2 * MAX_BIASED_TOKENS
    return paired and tokens == sorted({*tokens})


@dataclass(frozen=True, slots=True)
class Options:
    """
    How an answer is made and sent, in the order of SPEC.md section 5.3, which has the ranges.

    Attributes:
        tools: What the model may call, JSON text.

        tool_choice: `auto`, `none`, `required`, or `function:` and a tool's name.

        tool_calls: Whether the model may call several at once.

        schema: What the answer has to be, JSON text.

        thinking: `auto` leaves it to the model.

        max_tokens: At most this many tokens are generated, and what the context leaves.

        temperature: 0 (greedy, the default) to 2.

        top_p, min_p: Nucleus mass, and the least probability beside the likeliest token's.

        top_k: Candidates kept, 0 (the default) for all.

        logit_bias: A token, its bias in millionths, the next token; tokens ascend.

        logprobs: How many alternatives are told with each token; None for no log-probabilities.

        n: How many answers.

        seed: Makes sampling reproducible; None for fresh randomness.

        stop: Strings that end the answer and are not part of it.

        padding: `constant` hides length and rhythm; `off` sends frames as tokens come.
    """

    tools: str | None = _json(MAX_TOOLS_BYTES)
    tool_choice: str = _word("auto", f"auto|none|required|function:{_ID}")
    tool_calls: ToolCalls = _word("many", "many|one")
    schema: str | None = _json(MAX_SCHEMA_BYTES)
    thinking: Thinking = _word("auto", "auto|off|on|low|medium|high")
    max_tokens: int = _number(MOST_TOKENS, 1, MOST_TOKENS)
    temperature: float = _number(0.0, 0, 2 * SCALE, SCALE)
    top_p: float = _number(1.0, 1, SCALE, SCALE)
    top_k: int = _number(0, 0, 2**20)
    min_p: float = _number(0.0, 0, SCALE, SCALE)
    presence_penalty: float = _number(0.0, -2 * SCALE, 2 * SCALE, SCALE)
    frequency_penalty: float = _number(0.0, -2 * SCALE, 2 * SCALE, SCALE)
    repetition_penalty: float = _number(1.0, 1, 2 * SCALE, SCALE)
    logit_bias: tuple[int, ...] = _option((), _are_biases, "ascending tokens, each with its bias")
    logprobs: int | None = _number(None, 0, MAX_ALTERNATIVES)
    n: int = _number(1, 1, MAX_ANSWERS)
    seed: int | None = _number(None, 0, 2**63 - 1)
    stop: tuple[str, ...] = _option((), _are_stops, "at most 4 strings of 1 to 256 bytes")
    padding: Padding = _word("constant", "constant|off")

    def __post_init__(self) -> None:
        """
        Check every range.

        Raises:
            QuestionError: A value is outside the range of SPEC.md section 5.3.
        """
        for option in fields(self):
            value, rule = getattr(self, option.name), option.metadata
            allowed = (value is None and option.default is None) or rule["check"](value)
            _require(allowed, f"{option.name} is not {rule['words']}")
        chosen = self.tools is not None or self.tool_choice in {"auto", "none"}
        _require(chosen, "tool_choice asks for a tool, and there are no tools")


FIELDS: Final = ("messages", *(option.name for option in fields(Options)))


@dataclass(frozen=True, slots=True)
class Question:
    """
    The messages so far, the last one to be answered or continued, and options for that.

    Raises:
        QuestionError: There is no message, there are more than `MAX_TURNS` with tool calls
            counted, or the last message leaves nothing to answer.
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
    options = {
        option.name: _parse_option(value[option.name], option.metadata["scale"])
        for option in fields(Options)
    }
    return Question(tuple(map(_parse_message, messages)), Options(**options))  # type: ignore[arg-type] # `Options` checks


def _parse_option(wire: cbor.Cbor, scale: int) -> object:
    """Give what the asker meant by *wire*, whatever that is; `Options` checks it."""
    if isinstance(wire, list):
        return tuple(wire)
    scaled = scale != 1 and isinstance(wire, int) and not isinstance(wire, bool)
    return cast("int", wire) / scale if scaled else wire


def _parse_message(value: cbor.Cbor) -> Message:
    match value:
        case [("system" | "user") as role, str(text), str(name)] if _are_ids(name or "-"):
            return Message(role, text, name)
        case ["assistant", str(text), str(name), str(why), list(calls)] if _are_ids(name or "-"):
            return Message("assistant", text, name, why, tuple(map(_parse_call, calls)))
        case ["tool", str(text), str(name), str(call_id)] if _are_ids(name or "-", call_id):
            return Message("tool", text, name, call_id=call_id)
    raise QuestionError("a message is malformed, or a name or an id in it")


def _parse_call(value: cbor.Cbor) -> ToolCall:
    match value:
        case [str(call_id), str(name), str(arguments)] if _are_ids(call_id, name):
            return ToolCall(call_id, name, arguments)
    raise QuestionError("a tool call is malformed, or a name or an id in it")


def _are_ids(*texts: str) -> bool:
    return all(_matches(_ID, text) for text in texts)


def _matches(pattern: str, text: object) -> bool:
    return isinstance(text, str) and re.fullmatch(pattern, text) is not None


def _is_sized(text: object, least: int, most: int) -> bool:
    try:
        return isinstance(text, str) and least <= len(text.encode()) <= most
    except UnicodeEncodeError:
        raise QuestionError("text is not Unicode: it has half of a surrogate pair") from None


def _require(condition: bool, message: str) -> None:  # noqa: FBT001 - a check reads best so
    if not condition:
        raise QuestionError(message)
