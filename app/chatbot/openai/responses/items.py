"""
Items: what a conversation of the Responses API consists of, and the messages that they make.

What a response gave as its output may be given back as input, by value or by its id.
"""

import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag, TypeAdapter

from app.chatbot.openai.body import Body, RequestError
from app.chatbot.openai.files import GivenFile, require_few, show_files
from app.chatbot.openai.messages import BY_SHAPE, Refusal, by_kind, shorten_id
from app.chatbot.openai.tools import Word
from app.protocol.constants import MAX_TURNS
from app.protocol.question import Message, ToolCall

Json = Mapping[str, object]

MOST_ITEMS: Final = 2 * MAX_TURNS  # a message and its reasoning are two items
_ID_BYTES: Final = 24
_ECHOED: Final = {"caller": {"type": "direct"}, "async": False, "annotations": [], "logprobs": []}
_CallId = Annotated[str, StringConstraints(min_length=1)]


def make_id(kind: str) -> str:
    """Give a fresh id that nobody can guess, such as `resp_…`."""
    return f"{kind}_{secrets.token_hex(_ID_BYTES)}"


class _Item(Body):
    neutral: ClassVar = _ECHOED
    prefix: ClassVar[str]

    id: str | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None

    def to_json(self) -> Json:
        """Give it as the API shows it."""
        shown = self.model_dump(exclude_none=True)
        return shown | {"id": self.id or make_id(self.prefix), "status": "completed"}


class _Text(Body):
    neutral: ClassVar = _ECHOED

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[object] = Field(default_factory=list)
    logprobs: list[object] = Field(default_factory=list)


class _File(GivenFile):
    type: Literal["input_file"]

    @property
    def text(self) -> str:
        """Nothing: `read_files` puts what it says in its place."""
        return ""


_Part = Annotated[
    Annotated[_Text, Tag("<text>")] | Annotated[Refusal, Tag("<refusal>")],
    by_kind(
        "input_text",
        "output_text",
        message="only text is read here, in parts of type input_text or output_text",
    ),
]
_PartOrFile = Annotated[
    Annotated[_Text, Tag("<text>")]
    | Annotated[Refusal, Tag("<refusal>")]
    | Annotated[_File, Tag("<file>")],
    by_kind(
        "input_text",
        "output_text",
        file="input_file",
        message="only parts of type input_text, output_text or input_file are read here",
    ),
]
_Texts = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[_Part], Field(fail_fast=True), Tag("<list>")],
    BY_SHAPE,
]
_Content = Annotated[
    Annotated[str, Tag("<text>")]
    | Annotated[list[_PartOrFile], Field(fail_fast=True), Tag("<list>")],
    BY_SHAPE,
]


def _join(content: str | Sequence[_Text | Refusal | _File]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)


class InputMessage(_Item):
    """Something that was said."""

    prefix: ClassVar = "msg"

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: _Content

    def to_json(self) -> Json:
        """Give it as the API shows it; what it says is one part."""
        kind = "output_text" if self.role == "assistant" else "input_text"
        more: Json = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
        return {
            **super().to_json(),
            "content": [{"type": kind, "text": _join(self.content), **more}],
        }

    def to_message(self) -> Message:
        """Give the message that it is."""
        return Message("system" if self.role == "developer" else self.role, _join(self.content))

    @property
    def files(self) -> int:
        """How many files it has."""
        return sum(isinstance(part, _File) for part in self._parts)

    @property
    def _parts(self) -> list[_PartOrFile]:
        return self.content if isinstance(self.content, list) else []

    def with_files_read(self, place: str) -> Self:
        """
        Give it with the text of each file in the file's place.

        Raises:
            RequestError: One cannot be read, or it is not a user's.
        """
        files = [part if isinstance(part, _File) else None for part in self._parts]
        if not any(files):
            return self
        places = [f"{place}.content[{number}]" for number in range(len(files))]
        if self.role != "user":
            words = f"{place}.content: files are not supported in a message other than a user's"
            raise RequestError(words, f"{place}.content", "unsupported_parameter")
        shown = zip(show_files(files, places), self._parts, strict=True)
        read = [
            part if text is None else _Text(type="input_text", text=text) for text, part in shown
        ]
        return self.model_copy(update={"content": read})


class FunctionCall(_Item):
    """A tool that the model called."""

    prefix: ClassVar = "fc"

    type: Literal["function_call"]
    call_id: _CallId
    name: Word
    arguments: str

    def to_message(self) -> Message:
        """Give the message that it is part of."""
        arguments = self.arguments.strip() or "{}"
        call = ToolCall(shorten_id(self.call_id), self.name, arguments)
        return Message("assistant", "", calls=(call,))


class FunctionCallOutput(_Item):
    """What a tool gave."""

    prefix: ClassVar = "fco"

    type: Literal["function_call_output"]
    call_id: _CallId
    output: _Texts

    def to_json(self) -> Json:
        """Give it as the API shows it."""
        return {**super().to_json(), "output": _join(self.output)}

    def to_message(self) -> Message:
        """Give the message that it is, without the tool's name."""
        return Message("tool", _join(self.output), call_id=shorten_id(self.call_id))


class _ReasoningText(Body):
    type: Literal["reasoning_text", "summary_text"]
    text: str


class Reasoning(_Item):
    """What the model thought; its summary stands for it where there is nothing else."""

    prefix: ClassVar = "rs"

    type: Literal["reasoning"]
    summary: Annotated[list[_ReasoningText], Field(fail_fast=True)] = Field(default_factory=list)
    content: Annotated[list[_ReasoningText], Field(fail_fast=True)] = Field(default_factory=list)

    def to_message(self) -> Message:
        """Give the message that it is part of."""
        texts = [part.text for part in self.content or self.summary]
        return Message("assistant", "", reasoning="".join(texts))


class ItemReference(Body):
    """Another item, by its id."""

    type: Literal["item_reference"] = "item_reference"
    id: str


_TAGS: Final = {
    kind: f"<{kind}>"
    for kind in ("message", "function_call", "function_call_output", "reasoning", "item_reference")
}


def _item_tag(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    untyped = "message" if "role" in value else "item_reference" if "id" in value else None
    return _TAGS.get(str(value.get("type") or untyped))


Item = InputMessage | FunctionCall | FunctionCallOutput | Reasoning
GivenItem = Annotated[
    Annotated[InputMessage, Tag("<message>")]
    | Annotated[FunctionCall, Tag("<function_call>")]
    | Annotated[FunctionCallOutput, Tag("<function_call_output>")]
    | Annotated[Reasoning, Tag("<reasoning>")]
    | Annotated[ItemReference, Tag("<item_reference>")],
    Discriminator(
        _item_tag,
        custom_error_type="unsupported",
        custom_error_message=f"this item is not read here; those of type {', '.join(_TAGS)} are",
    ),
]
_ITEMS: Final = TypeAdapter(list[GivenItem])


def read_files(items: Sequence[GivenItem]) -> list[GivenItem]:
    """
    Give *items* with the text of each file in the file's place.

    Raises:
        RequestError: One cannot be read, or there are too many.
    """
    require_few(sum(item.files for item in items if isinstance(item, InputMessage)), "input")
    return [
        item.with_files_read(f"input[{number}]") if isinstance(item, InputMessage) else item
        for number, item in enumerate(items)
    ]


def parse_held(items: bytes) -> list[Item]:
    """Give the items of a JSON list that was made here."""
    parsed = _ITEMS.validate_json(items)
    return [item for item in parsed if not isinstance(item, ItemReference)]  # there is none


def resolve(
    items: Iterable[GivenItem], find: Callable[[str], Item | None], before: Iterable[Item]
) -> list[Item]:
    """
    Give *items* with what each reference names in its place, as *find* has it.

    Args:
        before: What the conversation has already.

    Raises:
        RequestError: There is no such item, or the conversation has it twice.
    """
    found: list[Item] = []
    known = {item.id for item in before}
    for number, item in enumerate(items):
        if not isinstance(item, ItemReference):
            found.append(item)
            continue
        named = None if item.id in known else find(item.id)
        if named is None:
            raise _refuse_reference(f"input[{number}].id", twice=item.id in known)
        known.add(item.id)
        found.append(named)
    return found


def _refuse_reference(name: str, *, twice: bool) -> RequestError:
    if twice:
        words = f"{name}: the conversation has this item already"
        return RequestError(words, name, "invalid_value")
    words = (
        f"{name}: this item is not found: it is no longer held here, or was not stored; send the "
        "item itself, as clients do with store: false"
    )
    return RequestError(words, name, "item_not_found")


def to_messages(items: Sequence[Item]) -> tuple[Message, ...]:
    """
    Give the messages that *items* make.

    Reasoning, a text after it, and calls after that are one message of the assistant's.

    Raises:
        RequestError: A tool's output answers no call.
    """
    messages: list[Message] = []
    names: dict[str, str] = {}
    for item in items:
        message = item.to_message()
        if isinstance(item, FunctionCall):
            names[item.call_id] = item.name
        if isinstance(item, FunctionCallOutput):
            message = replace(message, name=_name_of(item, names))
        if messages and _goes_on(messages[-1], message):
            messages[-1] = _merge(messages[-1], message)
        else:
            messages.append(message)
    return tuple(message for message in messages if not _is_reasoning_alone(message))


def _name_of(output: FunctionCallOutput, names: Mapping[str, str]) -> str:
    if output.call_id not in names:
        raise RequestError(
            "input: a function_call_output answers no function_call before it: give both, or "
            "previous_response_id",
            "input",
            "invalid_value",
        )
    return names[output.call_id]


def _goes_on(last: Message, new: Message) -> bool:
    """Tell whether *new* is more of the assistant's turn that *last* is, and not another one."""
    if last.role != "assistant" or new.role != "assistant":
        return False
    return new.calls != () or (last.calls == () and last.text == "")


def _merge(last: Message, new: Message) -> Message:
    return replace(
        last,
        text=last.text + new.text,
        reasoning=last.reasoning + new.reasoning,
        calls=last.calls + new.calls,
    )


def _is_reasoning_alone(message: Message) -> bool:
    return message.reasoning != "" and message.text == "" and message.calls == ()
