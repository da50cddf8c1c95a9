"""
A request of the OpenAI API, chat completion or completion, as far as an enclave can honour it.

What it cannot honour is refused by name. Left out, null, and the value that changes nothing are
all the same.
"""

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from app.chatbot.openai.body import Body, RequestError, Whole, parse
from app.chatbot.openai.messages import GivenMessage, to_messages
from app.chatbot.openai.options import THINKING, Effort, make_options, raise_top_p
from app.chatbot.openai.tools import (
    MOST_TOOLS,
    Choice,
    Format,
    GivenTool,
    encode_choice,
    encode_parallel,
    encode_tools,
    require_held,
)
from app.protocol.constants import MAX_ALTERNATIVES, MAX_TURNS
from app.protocol.question import SCALE, Message, Options, Question, Thinking

MAX_ANSWERS: Final = 4  # to one question
_MAX_PROMPTS: Final = 16
_TOKEN: Final = re.compile("[0-9]{1,10}")
# What has a value that changes nothing, and that value, or those.
_NEUTRAL: Final[dict[str, object]] = {
    "best_of": 1,
    "echo": False,
    "function_call": ("none", "auto"),
    "functions": [],
    "logit_bias": {},
    "logprobs": False,
    "modalities": ["text"],
    "service_tier": ("auto", "default"),
    "suffix": "",
    "verbosity": "medium",
}
# What clients and agents add by themselves, or what means nothing without another parameter: seldom
# what the caller meant, so a refusal names it last.
_COMPANIONS: Final = frozenset(
    {"metadata", "parallel_tool_calls", "service_tier", "store", "stream_options", "tool_choice"}
    | {"top_logprobs", "user"}
)
# What options are called here, where that is another name.
NAMES: Final = {
    "tool_calls": "parallel_tool_calls",
    "schema": "response_format",
    "thinking": "reasoning_effort",
}
_SAME: Final = (
    *("max_tokens", "temperature", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    *("repetition_penalty", "n"),
)


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What a request asks for.

    Attributes:
        questions: A completion may have several; each has as many answers as its `n`.
    """

    model: str
    questions: tuple[Question, ...] = field(repr=False)
    stream: bool
    include_usage: bool


class _StreamOptions(Body):
    include_usage: bool = False
    include_obfuscation: bool = False  # there is none: what is streamed does not leave this machine


class _TemplateOptions(Body):
    enable_thinking: bool | None = None
    thinking: bool | None = None


class _Nowhere(Body):
    """What is taken and goes nowhere: it names the caller to OpenAI, or is for its stores."""

    metadata: dict[str, object] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, object] | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None
    store: bool | None = None
    user: str | None = None


class _Request(_Nowhere):
    neutral: ClassVar = _NEUTRAL
    companions: ClassVar = _COMPANIONS

    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: Annotated[Whole, Field(ge=1, le=MAX_ANSWERS)] | None = None
    seed: Whole | None = None
    stop: str | Annotated[list[str], Field(fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _require_stream(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise RequestError("stream_options needs stream", "stream_options", "invalid_value")
        return self

    def options(self, defaults: Options) -> Options:
        return make_options(defaults, self.given(), NAMES)

    def given(self) -> dict[str, object]:
        """Give options by name, None for what was left out."""
        given: dict[str, object] = {name: getattr(self, name) for name in _SAME}
        if self.top_k == -1:  # how others say that all are kept
            given["top_k"] = 0
        given["top_p"] = raise_top_p(self.top_p)
        if self.seed is not None and self.seed != -1:  # how others say that there is none
            given["seed"] = self.seed % 2**63
        if self.stop is not None:
            stops = [self.stop] if isinstance(self.stop, str) else self.stop
            given["stop"] = tuple(stop for stop in stops if stop)
        given["logit_bias"] = self._biases()
        return given

    def _biases(self) -> tuple[int, ...] | None:
        if self.logit_bias is None:
            return None
        if not all(_TOKEN.fullmatch(token) for token in self.logit_bias):
            words = "logit_bias: its members are not numbers of tokens"
            raise RequestError(words, "logit_bias", "invalid_value")
        if not all(map(isfinite, self.logit_bias.values())):
            words = "logit_bias: a bias is not a number of -100 to 100"
            raise RequestError(words, "logit_bias", "invalid_value")
        biases = sorted((int(token), bias) for token, bias in self.logit_bias.items())
        return tuple(n for token, bias in biases for n in (token, round(bias * SCALE)))

    def asked(self, defaults: Options, *questions: tuple[Message, ...]) -> Asked:
        options, wanted = self.options(defaults), self.stream_options
        return Asked(
            model=self.model,
            questions=tuple(Question(messages, options) for messages in questions),
            stream=self.stream,
            include_usage=wanted is not None and wanted.include_usage,
        )


class _ChatRequest(_Request):
    messages: list[GivenMessage] = Field(min_length=1, max_length=MAX_TURNS)
    max_completion_tokens: Whole | None = None
    tools: list[GivenTool] = Field(default_factory=list, max_length=MOST_TOOLS)
    tool_choice: Choice | None = None
    parallel_tool_calls: bool | None = None
    response_format: Format | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: _TemplateOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[Whole, Field(ge=0, le=MAX_ALTERNATIVES)] | None = None

    @model_validator(mode="after")
    def _join_limits(self) -> Self:
        newer = self.max_completion_tokens
        if newer is not None and self.max_tokens not in {None, newer}:
            raise RequestError(
                "max_completion_tokens and max_tokens differ", "max_tokens", "invalid_value"
            )
        self.max_tokens = self.max_tokens if newer is None else newer
        if self.top_logprobs and not self.logprobs:
            raise RequestError("top_logprobs needs logprobs", "top_logprobs", "invalid_value")
        return self

    def options(self, defaults: Options) -> Options:
        options = super().options(defaults)
        functions = [tool.function for tool in self.tools]
        require_held(options, functions, "tools[{}].function.parameters")
        return options

    def given(self) -> dict[str, object]:
        """Give options by name, None for what was left out."""
        return super().given() | {
            "tools": encode_tools([tool.function for tool in self.tools]),
            "tool_choice": encode_choice(self.tool_choice, self.tools),
            "tool_calls": encode_parallel(self.parallel_tool_calls, self.tools),
            "schema": self.response_format.to_schema() if self.response_format else None,
            "thinking": self._thinking(),
            "logprobs": (self.top_logprobs or 0) if self.logprobs else None,
        }

    def _thinking(self) -> Thinking | None:
        effort = THINKING.get(self.reasoning_effort or "")
        wanted = self.chat_template_kwargs
        switch = None
        if wanted is not None:
            switch = wanted.thinking if wanted.enable_thinking is None else wanted.enable_thinking
        if switch is False:
            return "off"
        return (effort if effort != "off" else None) or "on" if switch else effort


class _CompletionRequest(_Request):
    prompt: str | Annotated[list[str], Field(fail_fast=True)]
    logprobs: Annotated[Whole, Field(ge=0, le=5)] | None = None

    def given(self) -> dict[str, object]:
        """Give options by name, None for what was left out."""
        return super().given() | {"logprobs": self.logprobs}


def parse_chat(body: bytes, defaults: Options) -> Asked:
    """
    Parse the body of a chat completion.

    Raises:
        RequestError: It is malformed, or asks for what an enclave cannot give.
    """
    request = parse(_ChatRequest, body)
    return request.asked(defaults, to_messages(request.messages))


def parse_completion(body: bytes, defaults: Options) -> Asked:
    """
    Parse the body of a completion; each prompt becomes the one message of a conversation.

    Raises:
        RequestError: It is malformed, or asks for what an enclave cannot give.
    """
    request = parse(_CompletionRequest, body)
    prompts = [request.prompt] if isinstance(request.prompt, str) else request.prompt
    if not 1 <= len(prompts) <= _MAX_PROMPTS or not all(prompt.strip() for prompt in prompts):
        words = f"prompt is not one text, or up to {_MAX_PROMPTS}"
        raise RequestError(words, "prompt", "invalid_value")
    return request.asked(defaults, *((Message("user", prompt),) for prompt in prompts))
