"""
A request of the Responses API, as far as an enclave can honour it.

What it cannot honour is refused by name; what changes nothing is taken.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from app.chatbot.openai.body import Body, RequestError, Whole, parse
from app.chatbot.openai.options import THINKING, Effort, make_options, raise_top_p
from app.chatbot.openai.responses.items import (
    MOST_ITEMS,
    FunctionCallOutput,
    GivenItem,
    InputMessage,
    Item,
    Json,
    read_files,
    resolve,
    to_messages,
)
from app.chatbot.openai.responses.tools import Choice, GivenTool, choose
from app.chatbot.openai.tools import (
    ANY_OBJECT,
    MOST_TOOLS,
    encode_parallel,
    encode_schema,
    encode_tools,
    require_held,
    to_text,
)
from app.protocol.question import Message, Options, Question

_NEUTRAL: Final[dict[str, object]] = {
    "background": False,
    "context_management": [],
    "truncation": "disabled",
}
_COMPANIONS: Final = frozenset(
    {"include", "metadata", "parallel_tool_calls", "reasoning", "service_tier", "store"}
    | {"stream_options", "tool_choice", "top_logprobs", "truncation", "user"}
)
# What clients call a parameter, by the name of the option that it becomes.
NAMES: Final = {
    "max_tokens": "max_output_tokens",
    "tool_calls": "parallel_tool_calls",
    "schema": "text.format",
    "thinking": "reasoning.effort",
    "logprobs": "top_logprobs",
}
_LOGPROBS: Final = "message.output_text.logprobs"
_Label = Annotated[str, StringConstraints(max_length=512)]
_Includable = Literal[
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "web_search_call.action.sources",
    "web_search_call.results",
]


class _StreamOptions(Body):
    include_obfuscation: bool = False  # there is none: what is streamed does not leave this machine
    include_usage: bool = True  # of the other API; usage always comes


class _CacheOptions(Body):
    neutral: ClassVar = {"mode": "implicit", "prewarm": False, "ttl": "30m"}


class _PlainFormat(Body):
    type: Literal["text", "json_object"]

    def schema_text(self) -> str | None:
        return None if self.type == "text" else to_text(ANY_OBJECT, "text.format")


class _SchemaFormat(Body):
    type: Literal["json_schema"]
    name: str
    schema_: dict[str, object] = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None

    def schema_text(self) -> str | None:
        return encode_schema(self.schema_, "text.format.schema")


def _format_tag(value: object) -> str:
    kind = value.get("type") if isinstance(value, dict) else None
    return "<schema>" if kind == "json_schema" else "<plain>"


class _Text(Body):
    neutral: ClassVar = {"verbosity": "medium"}

    format: Annotated[
        Annotated[_PlainFormat, Tag("<plain>")] | Annotated[_SchemaFormat, Tag("<schema>")],
        Discriminator(_format_tag),
    ] = Field(default_factory=lambda: _PlainFormat(type="text"))


class _Reasoning(Body):
    neutral: ClassVar = {"context": "auto", "mode": "standard"}

    effort: Effort | None = None
    summary: Literal["auto", "detailed"] | None = None
    generate_summary: Literal["auto", "detailed"] | None = None  # its older name

    @property
    def asked_summary(self) -> str | None:
        return self.summary or self.generate_summary


class _Request(Body):
    neutral: ClassVar = _NEUTRAL
    companions: ClassVar = _COMPANIONS

    model: str
    input: Annotated[
        Annotated[str, Tag("<text>")]
        | Annotated[list[GivenItem], Tag("<list>"), Field(max_length=MOST_ITEMS)],
        Discriminator(lambda value: "<list>" if isinstance(value, list) else "<text>"),
    ] = Field(default_factory=list)
    instructions: str | None = None
    previous_response_id: str | None = None
    include: list[_Includable] = Field(default_factory=list, max_length=64)
    max_output_tokens: Whole | None = None
    max_tool_calls: Whole | None = None
    metadata: Annotated[
        dict[Annotated[str, StringConstraints(max_length=64)], _Label], Field(max_length=16)
    ] = Field(default_factory=dict)
    parallel_tool_calls: bool = True
    prompt_cache_key: _Label | None = None
    prompt_cache_options: _CacheOptions | None = None
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    reasoning: _Reasoning = Field(default_factory=_Reasoning)
    safety_identifier: _Label | None = None
    service_tier: Literal["auto", "default"] | None = None
    store: bool = True
    stream: bool = False
    stream_options: _StreamOptions | None = None
    temperature: float | None = None
    text: _Text = Field(default_factory=_Text)
    tool_choice: Choice = "auto"
    tools: list[GivenTool] = Field(default_factory=list, max_length=MOST_TOOLS)
    top_logprobs: Whole | None = None
    top_p: float | None = None
    user: _Label | None = None

    def items(self) -> Sequence[GivenItem]:
        if isinstance(self.input, str):
            return [InputMessage(role="user", content=self.input)]
        return self.input

    def options(self, defaults: Options) -> Options:
        encode_tools(self.tools, "tools[{}].name")  # all have to be right, shown or not
        tools, choice = choose(self.tools, self.tool_choice)
        logprobs = (self.top_logprobs or 0) if self._wants_logprobs() else None
        effort = self.reasoning.effort
        given = {
            "tools": encode_tools(tools, "tools[{}].name"),
            "tool_choice": choice,
            "tool_calls": encode_parallel(self.parallel_tool_calls, tools),
            "schema": self.text.format.schema_text(),
            "thinking": THINKING.get(effort or ""),
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": raise_top_p(self.top_p),
            "logprobs": logprobs,
        }
        options = make_options(defaults, given, NAMES)
        require_held(options, tools, "tools[{}].parameters")
        return options

    def _wants_logprobs(self) -> bool:
        return bool(self.top_logprobs) or _LOGPROBS in self.include

    def echo(self, options: Options) -> Json:
        """Give what a response repeats of its request, each member that the API has."""
        shown = ("type", "name", "description", "parameters", "strict")
        choice = self.tool_choice
        return {
            "background": False,
            "instructions": self.instructions,
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "metadata": self.metadata,
            "parallel_tool_calls": self.parallel_tool_calls,
            "previous_response_id": self.previous_response_id,
            "prompt_cache_key": self.prompt_cache_key,
            "prompt_cache_retention": self.prompt_cache_retention,
            "reasoning": {"effort": self.reasoning.effort, "summary": self.reasoning.asked_summary},
            "safety_identifier": self.safety_identifier,
            "service_tier": "default",
            "store": self.store,
            "temperature": options.temperature,
            "text": {
                "format": self.text.format.model_dump(by_alias=True, exclude_none=True),
                "verbosity": "medium",
            },
            "tool_choice": choice if isinstance(choice, str) else choice.model_dump(),
            "tools": [{name: getattr(tool, name) for name in shown} for tool in self.tools],
            "top_logprobs": self.top_logprobs or 0,
            "top_p": options.top_p,
            "truncation": "disabled",
            "user": self.user,
        }


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What a request asks for.

    Attributes:
        items: The conversation as the API has it, without instructions.

        echo: What the response repeats.
    """

    model: str
    question: Question = field(repr=False)
    items: tuple[Item, ...] = field(repr=False)
    echo: Json = field(repr=False)
    stream: bool
    store: bool
    summarised: bool


@dataclass(frozen=True, slots=True)
class Parsed:
    """A request whose files were read, and of which nothing that is held here was looked up."""

    request: _Request = field(repr=False)
    items: tuple[GivenItem, ...] = field(repr=False)


def parse_body(body: bytes) -> Parsed:
    """
    Parse the body of a response to be made, and read the files in it; for any thread.

    Raises:
        RequestError: It is malformed, or has a file that cannot be read.
    """
    request = parse(_Request, body)
    return Parsed(request, tuple(read_files(request.items())))


def resolve_request(
    parsed: Parsed,
    defaults: Options,
    *,
    find_response: Callable[[str], Sequence[Item] | None],
    find_item: Callable[[str], Item | None],
) -> Asked:
    """
    Give what *parsed* asks for.

    Args:
        find_response: Gives the conversation up to a response that is held, its output included.

        find_item: Gives an item of a response that is held.

    Raises:
        RequestError: It asks for what an enclave cannot give, or goes on from what is not held.
    """
    request = parsed.request
    before = _before(request.previous_response_id, find_response)
    items = (*before, *resolve(parsed.items, find_item, before))
    _require_question(items)
    told = request.instructions
    instructions = (Message("system", told),) if told else ()
    options = request.options(defaults)
    return Asked(
        model=request.model,
        question=Question((*instructions, *to_messages(items)), options),
        items=items,
        echo=request.echo(options),
        stream=request.stream,
        store=request.store,
        summarised=request.reasoning.asked_summary is not None,
    )


def _before(name: str | None, find: Callable[[str], Sequence[Item] | None]) -> Sequence[Item]:
    if name is None:
        return ()
    items = find(name)
    if items is None:
        raise RequestError(
            "previous response not found: it is no longer held here, or was not stored; send the "
            "whole conversation as input",
            "previous_response_id",
            "previous_response_not_found",
        )
    return items


def _require_question(items: Sequence[Item]) -> None:
    if not items:
        raise RequestError("input is missing", "input", "missing_required_parameter")
    last = items[-1]
    if isinstance(last, FunctionCallOutput):
        return
    if isinstance(last, InputMessage) and last.role == "user" and last.to_message().text.strip():
        return
    raise RequestError(
        "input: the last item is neither a user's message with text in it nor a function's output",
        "input",
        "invalid_value",
    )
