"""
A request of the OpenAI API, as far as an enclave can honour it.

What it cannot honour is refused by name. Left out, null, and the value that changes nothing are
all the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import from_json

from app.protocol.errors import QuestionError
from app.protocol.question import Message, Options

# What has a value that changes nothing, and that value.
_NEUTRAL: Final[dict[str, object]] = {
    "n": 1,
    "best_of": 1,
    "echo": False,
    "frequency_penalty": 0,
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "presence_penalty": 0,
    "response_format": {"type": "text"},
    "store": False,
    "tool_choice": "none",
}
# What clients and agents add by themselves, or what means nothing without another parameter: seldom
# what the caller meant, so a refusal names it last.
_COMPANIONS: Final = frozenset(
    {"metadata", "parallel_tool_calls", "service_tier", "store", "stream_options", "tool_choice"}
    | {"top_logprobs", "user"}
)
_MOST_NAMED: Final = 8  # parameters in one refusal, and the length of each name
_MAX_NAME: Final = 64
_OPTIONS: Final = ("max_tokens", "temperature", "top_p", "seed", "stop")


class RequestError(Exception):
    """
    A request cannot be honoured; never quotes what it says.

    Attributes:
        parameter: The name of what is wrong, None where it is the whole.

        code: For programs, as the OpenAI API has it.
    """

    def __init__(self, message: str, parameter: str | None, code: str) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.code = code


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What a request asks for.

    Attributes:
        unused: Names of what was accepted and is not part of the prompt.
    """

    model: str
    history: tuple[Message, ...] = field(repr=False)
    text: str = field(repr=False)
    options: Options
    stream: bool
    include_usage: bool
    unused: tuple[str, ...] = ()


def _is_neutral(name: str, value: object) -> bool:
    """Tell whether *value* changes nothing; 0.0 is 0 here, and false is not."""
    neutral = _NEUTRAL.get(name)
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _to_whole(value: object) -> object:
    """Give the integer that a number such as 8.0 is, and anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_Whole = Annotated[int, BeforeValidator(_to_whole)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _drop_null(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if item is not None}


class _StreamOptions(_Body):
    include_usage: bool = False


class _Part(_Body):
    type: Literal["text"]
    text: str


class _Message(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | list[_Part] | None, Field(union_mode="smart")] = None
    name: str | None = None

    def to_message(self) -> Message:
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text or ())
        return Message("system" if self.role == "developer" else self.role, text)


class _Request(_Body):
    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: _Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: _Whole | None = None
    stop: str | list[str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if not _is_neutral(name, item)}

    @model_validator(mode="after")
    def _require_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options needs stream", "stream_options", "invalid_value")
        return self

    def options(self, defaults: Options) -> Options:
        given = {name: getattr(self, name) for name in _OPTIONS}
        if given["stop"] is not None:
            stop = given["stop"]
            given["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
        try:
            return replace(
                defaults, **{name: value for name, value in given.items() if value is not None}
            )
        except QuestionError as error:
            named = next((name for name in _OPTIONS if name in str(error)), None)
            raise RequestError(str(error), named, "invalid_value") from None


class _ChatRequest(_Request):
    messages: list[_Message] = Field(min_length=1)
    max_completion_tokens: _Whole | None = None

    @model_validator(mode="after")
    def _join_limits(self) -> Self:
        newer = self.max_completion_tokens
        if newer is not None and self.max_tokens not in {None, newer}:
            raise RequestError(
                "max_completion_tokens and max_tokens differ", "max_tokens", "invalid_value"
            )
        self.max_tokens = self.max_tokens if newer is None else newer
        return self


class _CompletionRequest(_Request):
    prompt: str | list[str]


def parse_chat(body: bytes, defaults: Options) -> Asked:
    """
    Parse the body of a chat completion.

    Raises:
        RequestError: It is malformed, or asks for what an enclave cannot give.
    """
    request = _parse(_ChatRequest, body)
    for number, message in enumerate(request.messages):
        if message.content is None and message.role != "assistant":
            raise _refusal("missing", "", ("messages", number, "content"))
    *history, last = (message.to_message() for message in request.messages)
    if last.role != "user" or not last.text.strip():
        raise RequestError(
            "the last message is not a user's with text in it", "messages", "invalid_value"
        )
    asked = _asked(request, tuple(history), last.text, defaults)
    named = any(message.name is not None for message in request.messages)
    return replace(asked, unused=("messages.name",) if named else ())


def parse_completion(body: bytes, defaults: Options) -> Asked:
    """
    Parse the body of a completion; its prompt becomes the one message of a conversation.

    Raises:
        RequestError: It is malformed, or asks for what an enclave cannot give.
    """
    request = _parse(_CompletionRequest, body)
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    if len(prompts) != 1 or not prompts[0].strip():
        raise RequestError("prompt is not one text", "prompt", "invalid_value")
    return _asked(request, (), prompts[0], defaults)


def _asked(request: _Request, history: tuple[Message, ...], text: str, defaults: Options) -> Asked:
    wanted = request.stream_options
    return Asked(
        model=request.model,
        history=history,
        text=text,
        options=request.options(defaults),
        stream=request.stream,
        include_usage=wanted is not None and wanted.include_usage,
    )


_Parsed = TypeVar("_Parsed", bound=_Request)


def _parse(kind: type[_Parsed], body: bytes) -> _Parsed:
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        found = [(item["type"], item["msg"], item["loc"]) for item in errors]
        raise _refuse(body, found) from None


_Place = tuple[str | int, ...]


def _refuse(body: bytes, found: Sequence[tuple[str, str, _Place]]) -> RequestError:
    """Give the one refusal of all that was *found*, in the order that the caller wrote it in."""
    # Of a union, each alternative has an error; the one that got farthest is what was meant.
    named = {_named(place): (kind, message) for kind, message, place in found}
    meant = [item for item in named if not any(_is_within(other, item) for other in named)]
    if () in meant:  # no JSON, or no object: nothing has a name
        return _refusal(*named[()], ())
    places = _names(body)
    meant.sort(key=lambda item: (item[0] in _COMPANIONS, places.get(str(item[0]), len(places))))
    return _join([_refusal(*named[item], item) for item in meant])


def _named(place: _Place) -> _Place:
    """Give *place* without which alternative of a union was tried, which is no part of a name."""
    return tuple(item for item in place if item not in {"str", "list[str]", "list[_Part]"})


def _is_within(place: _Place, other: _Place) -> bool:
    return len(place) > len(other) and place[: len(other)] == other


def _names(body: bytes) -> dict[str, int]:
    """Give the names in *body*, a JSON object, each with its place there."""
    return {name: number for number, name in enumerate(from_json(body))}


def _join(refusals: Sequence[RequestError]) -> RequestError:
    """Give one error with the words of all of *refusals*; the first is what it is about."""
    shown, more = refusals[:_MOST_NAMED], len(refusals) - _MOST_NAMED
    words = "; ".join([str(item) for item in shown] + ([f"and {more} more"] if more > 0 else []))
    return RequestError(words, refusals[0].parameter, refusals[0].code)


def _refusal(kind: str, message: str, place: _Place) -> RequestError:
    if not place:
        return RequestError(f"the body is no request: {message}", None, "invalid_json")
    name = "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in place)[1:]
    name = name[:_MAX_NAME]
    if kind == "extra_forbidden":
        neutral = f", other than {_NEUTRAL[name]!r}" if name in _NEUTRAL else ""
        return RequestError(
            f"{name} is not supported{neutral}: leave it out", name, "unsupported_parameter"
        )
    if kind == "missing":
        return RequestError(f"{name} is missing", name, "missing_required_parameter")
    return RequestError(f"{name}: {message}", name, "invalid_value")
