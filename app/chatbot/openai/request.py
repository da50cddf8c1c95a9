"""
A request of the OpenAI API, as far as an enclave can honour it.

What it cannot honour is refused by name. Left out, null, and the value that changes nothing are
all the same.
"""

from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from app.chatbot.openai.body import Body, RequestError, Whole, parse
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
_OPTIONS: Final = ("max_tokens", "temperature", "top_p", "seed", "stop")


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


class _StreamOptions(Body):
    include_usage: bool = False


class _Part(Body):
    type: Literal["text"]
    text: str


class _Message(Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str | list[_Part] | None, Field(union_mode="smart")] = None
    name: str | None = None

    def to_message(self) -> Message:
        text = self.content
        if not isinstance(text, str):
            text = "".join(part.text for part in text or ())
        return Message("system" if self.role == "developer" else self.role, text)


class _Request(Body):
    neutral: ClassVar = _NEUTRAL
    companions: ClassVar = _COMPANIONS

    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: Whole | None = None
    stop: str | list[str] | None = None

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
    max_completion_tokens: Whole | None = None

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
    request = parse(_ChatRequest, body)
    for number, message in enumerate(request.messages):
        if message.content is None and message.role != "assistant":
            name = f"messages[{number}].content"
            raise RequestError(f"{name} is missing", name, "missing_required_parameter")
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
    request = parse(_CompletionRequest, body)
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
