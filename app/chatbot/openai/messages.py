"""
Messages of a chat completion, and those of a question that they become.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Discriminator, Field, StringConstraints, Tag

from app.chatbot.openai.body import Body, RequestError, Whole
from app.chatbot.openai.files import GivenFile, require_few, show_files
from app.protocol.question import Message, ToolCall

# Templates of some models take no other ids of calls; that of every call made here is one.
_ID: Final = re.compile("[A-Za-z0-9]{9}")
_Word = Annotated[str, StringConstraints(pattern=r"^[!-~]{1,64}$")]


class _Text(Body):
    type: Literal["text"]
    text: str


class Refusal(Body):
    """A part in which an assistant has said that it does not answer; read as its text."""

    type: Literal["refusal"]
    refusal: str

    @property
    def text(self) -> str:
        """What was said."""
        return self.refusal


class _File(Body):
    type: Literal["file"]
    file: GivenFile

    @property
    def text(self) -> str:
        """Nothing: `GivenMessage.with_files_read` puts what it says in its place."""
        return ""


def by_kind(*texts: str, file: str = "", message: str) -> Discriminator:
    """
    Tell parts of text from refusals and files.

    Args:
        texts: The types that parts of text have.

        file: The type that files have, "" where there are none.

        message: Of the error for any other.
    """
    tags = {file: "<file>", **dict.fromkeys(texts, "<text>"), "refusal": "<refusal>"}

    def tag(value: object) -> str | None:
        kind = value.get("type") if isinstance(value, dict) else None
        return tags.get(str(kind))

    return Discriminator(tag, custom_error_type="unsupported", custom_error_message=message)


BY_SHAPE: Final = Discriminator(lambda value: "<list>" if isinstance(value, list) else "<text>")
_Part = Annotated[
    Annotated[_Text, Tag("<text>")]
    | Annotated[Refusal, Tag("<refusal>")]
    | Annotated[_File, Tag("<file>")],
    by_kind("text", file="file", message="only parts of type text or file are read here"),
]
_Content = Annotated[
    Annotated[str, Tag("<text>")] | Annotated[list[_Part], Field(fail_fast=True), Tag("<list>")],
    BY_SHAPE,
]


class _Function(Body):
    name: _Word
    arguments: str


class _Call(Body):
    id: Annotated[str, StringConstraints(min_length=1)]
    index: Whole | None = None  # as a stream has it, which some clients send back
    type: Literal["function"] = "function"
    function: _Function

    def to_call(self) -> ToolCall:
        arguments = self.function.arguments.strip() or "{}"
        return ToolCall(shorten_id(self.id), self.function.name, arguments)


class GivenMessage(Body):
    """A message of whatever role; what does not fit its role is refused."""

    neutral: ClassVar = {"annotations": []}

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: _Content | None = None
    name: _Word | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[_Call], Field(fail_fast=True)] = Field(default_factory=list)
    tool_call_id: Annotated[str, StringConstraints(min_length=1)] | None = None

    def require_role(self, place: str) -> None:
        """
        Require what the role needs, and nothing that only others have.

        Raises:
            RequestError: Something is missing, or too much.
        """
        if self.role == "tool" and self.tool_call_id is None:
            raise _missing(f"{place}.tool_call_id")
        if self.content is None and self.role != "assistant":
            raise _missing(f"{place}.content")
        for name in ("refusal", "reasoning", "reasoning_content", "tool_calls"):
            if getattr(self, name) and self.role != "assistant":
                raise _misplaced(f"{place}.{name}", "an assistant")
        if self.tool_call_id is not None and self.role != "tool":
            raise _misplaced(f"{place}.tool_call_id", "a tool")

    @property
    def files(self) -> int:
        """How many files it has."""
        return sum(isinstance(part, _File) for part in self._parts)

    @property
    def _parts(self) -> list[_Part]:
        return self.content if isinstance(self.content, list) else []

    def with_files_read(self, place: str) -> Self:
        """
        Give it with the text of each file in the file's place.

        Raises:
            RequestError: One cannot be read, or it is not a user's.
        """
        files = [part.file if isinstance(part, _File) else None for part in self._parts]
        if not any(files):
            return self
        places = [f"{place}.content[{number}].file" for number in range(len(files))]
        if self.role != "user":
            raise _misplaced(
                next(p for p, file in zip(places, files, strict=True) if file), "a user"
            )
        shown = zip(show_files(files, places), self._parts, strict=True)
        read = [part if text is None else _Text(type="text", text=text) for text, part in shown]
        return self.model_copy(update={"content": read})

    def to_message(self) -> Message:
        """Give what it says, as a question has it."""
        name = self.name or ""
        match self.role:
            case "tool":
                return Message(
                    "tool", self._text(), name, call_id=shorten_id(self.tool_call_id or "")
                )
            case "assistant":
                reasoning = self.reasoning_content or self.reasoning or ""
                calls = tuple(call.to_call() for call in self.tool_calls)
                text = self._text() or self.refusal or ""
                return Message("assistant", text, name, reasoning, calls)
            case "user":
                return Message("user", self._text(), name)
        return Message("system", self._text(), name)

    def _text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or ())


def shorten_id(given: str) -> str:
    """Give what stands in a question for *given*, an id of a call; the same for the same."""
    if _ID.fullmatch(given):
        return given
    return hashlib.sha256(given.encode(errors="replace")).hexdigest()[:9]


def to_messages(given: Sequence[GivenMessage]) -> tuple[Message, ...]:
    """
    Give the messages of a question.

    Raises:
        RequestError: One lacks what its role needs, or has a file that cannot be read, or the last
            one asks for no answer.
    """
    for number, message in enumerate(given):
        message.require_role(f"messages[{number}]")
    require_few(sum(message.files for message in given), "messages")
    read = [message.with_files_read(f"messages[{number}]") for number, message in enumerate(given)]
    messages = tuple(message.to_message() for message in read)
    last = messages[-1]
    blank = last.role != "tool" and not last.text.strip()
    if blank or last.role == "system" or last.calls:
        raise RequestError(
            "the last message leaves nothing to answer: it has to be a user's or an assistant's "
            "with text in it, or a tool's",
            "messages",
            "invalid_value",
        )
    return messages


def _missing(name: str) -> RequestError:
    return RequestError(f"{name} is missing", name, "missing_required_parameter")


def _misplaced(name: str, whose: str) -> RequestError:
    words = f"{name} is not supported in a message other than {whose}'s: leave it out"
    return RequestError(words, name, "unsupported_parameter")
