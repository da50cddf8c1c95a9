"""
Function tools of the Responses API, and which of them the model may call.

Other tools run at OpenAI's; none is served, and none could be without telling somebody else.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Discriminator, Tag

from app.chatbot.openai.body import Body, RequestError
from app.chatbot.openai.responses.items import Json, Word

_TAGS: Final = {"function": "<function>", "allowed_tools": "<allowed>"}


class Function(Body):
    """A tool that the client's own program runs."""

    neutral: ClassVar = {"allowed_callers": ["direct"], "async": False, "defer_loading": False}

    type: Literal["function"]
    name: Word
    description: str | None = None
    parameters: dict[str, object] | None = None
    strict: bool | None = None

    def to_chat(self) -> Json:
        """Give it as chat completions have it, which is how templates know tools."""
        function = self.model_dump(exclude_none=True, exclude={"type"})
        return {"type": "function", "function": function}


def _tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return "<text>" if isinstance(value, str) else _TAGS.get(str(kind))


GivenTool = Annotated[
    Annotated[Function, Tag("<function>")],
    Discriminator(
        _tag,
        custom_error_type="unsupported",
        custom_error_message=(
            "this tool is not served here; tools of type function are, which your program runs"
        ),
    ),
]


class Named(Body):
    """One function, to be called or among those that may be."""

    type: Literal["function"]
    name: Word


class Allowed(Body):
    """Some functions, which alone may be called."""

    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: list[Named]


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<text>")]
    | Annotated[Named, Tag("<function>")]
    | Annotated[Allowed, Tag("<allowed>")],
    Discriminator(
        _tag,
        custom_error_type="unsupported",
        custom_error_message="this choice is not served here; none, auto, required, a function and "
        "allowed_tools are",
    ),
]


def choose(tools: Sequence[Function], choice: Choice) -> tuple[list[Function], str]:
    """
    Give the tools to show to the model, and the choice as SPEC.md section 5.3 has it.

    Raises:
        RequestError: Two tools have one name, or none has a name that is chosen.
    """
    counts = Counter(tool.name for tool in tools)
    for number, tool in enumerate(tools):
        if counts[tool.name] > 1:
            raise _refusal(f"tools[{number}].name", "another tool has the same name")
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise _refusal("tool_choice", "it asks for a tool, and there are no tools")
        return list(tools), choice
    named = {choice.name} if isinstance(choice, Named) else {item.name for item in choice.tools}
    if not named or not named <= counts.keys():
        raise _refusal("tool_choice", "no tool has the name that it gives")
    if isinstance(choice, Named):
        return list(tools), f"function:{choice.name}"
    return [tool for tool in tools if tool.name in named], choice.mode


def _refusal(name: str, words: str) -> RequestError:
    return RequestError(f"{name}: {words}", name, "invalid_value")
