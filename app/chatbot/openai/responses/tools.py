"""
Function tools of the Responses API, and which of them the model may call.

Other tools run at OpenAI's; none is served, and none could be without telling somebody else.
"""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Discriminator, Field, Tag

from app.chatbot.openai.body import Body, RequestError
from app.chatbot.openai.tools import Function, Word

_TAGS: Final = {"function": "<function>", "allowed_tools": "<allowed>"}


class Tool(Function):
    """A tool that the client's own program runs."""

    neutral: ClassVar = {"allowed_callers": ["direct"], "async": False, "defer_loading": False}

    type: Literal["function"]


def _tag(value: object) -> str | None:
    kind = value.get("type") if isinstance(value, dict) else None
    return "<text>" if isinstance(value, str) else _TAGS.get(str(kind))


GivenTool = Annotated[
    Annotated[Tool, Tag("<function>")],
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
    tools: Annotated[list[Named], Field(fail_fast=True)]


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


def choose(tools: Sequence[Tool], choice: Choice) -> tuple[list[Tool], str]:
    """
    Give the tools to show to the model, and the choice as SPEC.md section 5.3 has it.

    Raises:
        RequestError: A tool is asked for, and there is none, or none of that name.
    """
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise _refusal("tool_choice", "it asks for a tool, and there are no tools")
        return list(tools), choice if tools else "auto"
    named = {choice.name} if isinstance(choice, Named) else {item.name for item in choice.tools}
    if not named or not named <= {tool.name for tool in tools}:
        raise _refusal("tool_choice", "no tool has the name that it gives")
    if isinstance(choice, Named):
        return list(tools), f"function:{choice.name}"
    return [tool for tool in tools if tool.name in named], choice.mode


def _refusal(name: str, words: str) -> RequestError:
    return RequestError(f"{name}: {words}", name, "invalid_value")
