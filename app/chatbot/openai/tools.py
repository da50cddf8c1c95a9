"""
Tools of a chat completion, which its client runs; and what its answer has to be.
"""

import json
from collections.abc import Sequence
from typing import Annotated, Final, Literal

from pydantic import Discriminator, Field, StringConstraints, Tag

from app.chatbot.openai.body import Body, RequestError
from app.protocol.asker.schema import check_schema
from app.protocol.errors import AppError, QuestionError, UnsupportedError
from app.protocol.question import Options, ToolCalls

Json = dict[str, object]
_MOST_WORDS: Final = 500  # characters of a refusal; names in a schema may be long
MOST_TOOLS: Final = 128  # as the enclave takes
ANY_OBJECT: Final[Json] = {"type": "object"}
_NO_PARAMETERS: Final[Json] = {"type": "object", "properties": {}, "additionalProperties": False}
Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Function(Body):
    """What a function is for, and which arguments it takes."""

    name: Word
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None

    @property
    def arguments(self) -> Json:
        """What its arguments have to be."""
        return self.parameters or _NO_PARAMETERS

    def to_json(self) -> Json:
        """Give it as a model is shown it."""
        told = {"description": self.description} if self.description is not None else {}
        return {"name": self.name, **told, "parameters": self.arguments}


class Tool(Body):
    """A function of the client's."""

    type: Literal["function"]
    function: Function


GivenTool = Annotated[
    Annotated[Tool, Tag("<function>")],
    Discriminator(
        lambda value: "<function>" if _kind_of(value) == "function" else None,
        custom_error_type="unsupported",
        custom_error_message="only tools of type function are served, which your program runs",
    ),
]


def _kind_of(value: object) -> object:
    return value.get("type") if isinstance(value, dict) else None


class _Name(Body):
    name: Word


class _Named(Body):
    type: Literal["function"]
    function: _Name


Choice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("<text>")]
    | Annotated[_Named, Tag("<function>")],
    Discriminator(
        lambda value: "<text>" if isinstance(value, str) else f"<{_kind_of(value)}>",
        custom_error_type="unsupported",
        custom_error_message="only none, auto, required and a function are served",
    ),
]


class _Schema(Body):
    name: str | None = None
    description: str | None = None
    schema_: Json | None = Field(None, alias="schema")
    strict: bool | None = None


class Format(Body):
    """What an answer has to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: _Schema | None = None

    def to_schema(self) -> str | None:
        """
        Give the schema that an answer has to be of, None where it may be any text.

        Raises:
            RequestError: There is none where there has to be one.
        """
        if self.type == "text":
            return None
        if self.type == "json_object":
            return to_text(ANY_OBJECT, "response_format")
        if self.json_schema is None:
            name = "response_format.json_schema"
            raise RequestError(f"{name} is missing", name, "missing_required_parameter")
        schema = self.json_schema.schema_
        given = ANY_OBJECT if schema is None else schema
        return encode_schema(given, "response_format.json_schema.schema")


def encode_schema(schema: Json, place: str) -> str:
    """
    Give *schema* as it is sent.

    Args:
        place: Where it stands.

    Raises:
        RequestError: It is no schema, over a limit, or has what is not served; says where in it.
    """
    try:
        return check_schema(to_text(schema, place))
    except QuestionError as error:
        raise _refuse_schema(error, place, "invalid_value") from None
    except UnsupportedError as error:
        raise _refuse_schema(error, place, "unsupported_value") from None


def require_held(options: Options, functions: Sequence[Function], place: str) -> None:
    """
    Require that calls can be held to the parameters of *functions*, where *options* have them held.

    Args:
        place: Where the parameters of each stand.

    Raises:
        RequestError: As `encode_schema`.
    """
    held = options.tool_choice != "auto" or options.schema is not None
    for number, function in enumerate(functions if held else ()):
        if options.tool_choice in {"auto", "required", f"function:{function.name}"}:
            encode_schema(function.arguments, place.format(number))


def _refuse_schema(error: AppError, place: str, code: str) -> RequestError:
    words = str(error).removeprefix("schema")[:_MOST_WORDS]
    return RequestError(f"{place}{words}", place, code)


def encode_tools(
    functions: Sequence[Function], place: str = "tools[{}].function.name"
) -> str | None:
    """
    Give *functions* as a question has them, None where there are none.

    Args:
        place: Where the name of each stands.

    Raises:
        RequestError: Two have one name.
    """
    names: set[str] = set()
    for number, function in enumerate(functions):
        if function.name in names:
            name = place.format(number)
            raise RequestError(f"{name}: another tool has it, too", name, "invalid_value")
        names.add(function.name)
    shown = [{"type": "function", "function": function.to_json()} for function in functions]
    return to_text(shown, "tools") if shown else None


def encode_choice(choice: Choice | None, tools: Sequence[Tool]) -> str | None:
    """
    Give *choice* as a question has it, None where it changes nothing.

    Raises:
        RequestError: It asks for a tool that there is not.
    """
    if choice is None or (not tools and choice in ("auto", "none")):
        return None
    if isinstance(choice, str):
        if not tools:
            raise _refusal("it asks for a tool, and there are no tools")
        return choice
    if choice.function.name not in [tool.function.name for tool in tools]:
        raise _refusal("no tool has the name that it gives")
    return f"function:{choice.function.name}"


def encode_parallel(parallel: bool | None, tools: Sequence[object]) -> ToolCalls | None:  # noqa: FBT001 - as the API has it
    """Give how many calls may come at once, None where nothing was said of it."""
    return "one" if tools and parallel is False else None


def to_text(value: object, name: str) -> str:
    """
    Give *value* as JSON.

    Args:
        name: Of the parameter that it comes from.

    Raises:
        RequestError: It has what JSON has not, such as infinity.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        words = f"{name}: a number in it is none that JSON has"
        raise RequestError(words, name, "invalid_value") from None


def _refusal(words: str) -> RequestError:
    return RequestError(f"tool_choice: {words}", "tool_choice", "invalid_value")
