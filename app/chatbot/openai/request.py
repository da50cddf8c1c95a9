"""
A request of the OpenAI API, as far as an enclave can honour it.

What it cannot honour is refused by name. Left out, null, and the value that changes nothing are
all the same.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, Final, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

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
    """What a request asks for."""

    model: str
    history: tuple[Message, ...] = field(repr=False)
    text: str = field(repr=False)
    options: Options
    stream: bool
    include_usage: bool


def _is_neutral(name: str, value: object) -> bool:
    """Tell whether *value* changes nothing; 0.0 is 0 here, and false is not."""
    neutral = _NEUTRAL.get(name)
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


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

    def to_message(self) -> Message:
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text or ())
        return Message("system" if self.role == "developer" else self.role, text)


class _Request(_Body):
    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None
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
    max_completion_tokens: int | None = None

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
    return _asked(request, tuple(history), last.text, defaults)


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
        # Of a union, each alternative has an error; the one that got farthest is what was meant.
        worst = max(errors, key=lambda item: len(item["loc"]))
        raise _refusal(worst["type"], worst["msg"], worst["loc"]) from None


def _refusal(kind: str, message: str, place: tuple[str | int, ...]) -> RequestError:
    if not place:
        return RequestError(f"the body is no request: {message}", None, "invalid_json")
    # Which alternative of a union was tried is no part of a name.
    named = [item for item in place if item not in {"str", "list[str]", "list[_Part]"}]
    name = "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in named)[1:]
    if kind == "extra_forbidden":
        neutral = f", other than {_NEUTRAL[name]!r}" if name in _NEUTRAL else ""
        return RequestError(
            f"{name} is not supported{neutral}: leave it out", name, "unsupported_parameter"
        )
    if kind == "missing":
        return RequestError(f"{name} is missing", name, "missing_required_parameter")
    return RequestError(f"{name}: {message}", name, "invalid_value")
