"""
Tools: what a model may call, and what an answer has to be because of them, or of a schema.
"""

import json
import re
from dataclasses import dataclass
from typing import Final

from app.enclave.engine.forms import Forms
from app.enclave.engine.grammar import Grammar, write_grammar
from app.protocol.errors import QuestionError, UnsupportedError
from app.protocol.question import FIELDS, Options
from app.protocol.schema import Schema, read_schema

MAX_TOOLS: Final = 128  # as the OpenAI API has it
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_FUNCTION: Final = "function:"
_ANY: Final = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Tools:
    """
    What a question lets the model call.

    Attributes:
        shown: As templates take it.

        parameters: What each one's arguments have to be, by its name.
    """

    shown: list[object]
    parameters: dict[str, object]


def read_tools(options: Options) -> Tools | None:
    """
    Give the tools of *options*; None where the model may call none.

    Raises:
        QuestionError: They are not as the OpenAI API has them, two have one name, or the one that
            has to be called is not among them.

        UnsupportedError: One is no function.
    """
    if options.tools is None or options.tool_choice == "none":
        return None
    try:
        shown = json.loads(options.tools)
    except (ValueError, RecursionError):
        raise QuestionError("tools are no JSON") from None
    if not isinstance(shown, list) or not 1 <= len(shown) <= MAX_TOOLS:
        raise QuestionError(f"tools are no array of 1 to {MAX_TOOLS}")
    parameters = dict(map(_read_function, shown))
    if len(parameters) < len(shown):
        raise QuestionError("two tools have one name")
    named = options.tool_choice.removeprefix(_FUNCTION)
    if named != options.tool_choice:
        if named not in parameters:
            raise QuestionError("there is no tool of the name that has to be called")
        parameters = {named: parameters[named]}
    return Tools(shown, parameters)


def _read_function(tool: object) -> tuple[str, object]:
    match tool:
        case {"type": "function", "function": {"name": str(name), **about}} if _NAME.fullmatch(
            name
        ):
            parameters = about.get("parameters") or {}
            return name, {**_ANY, **parameters} if isinstance(parameters, dict) else parameters
        case {"type": str(kind)} if kind != "function":
            raise UnsupportedError("a tool is no function", numbers=(FIELDS.index("tools"),))
    raise QuestionError("a tool is malformed, or its name")


def is_held(options: Options, tools: Tools | None) -> bool:
    """Tell whether *options* say what an answer has to be; such a one is made without thinking."""
    return options.schema is not None or (tools is not None and options.tool_choice != "auto")


def find_unserved(options: Options, tools: Tools | None, forms: Forms) -> set[str]:
    """Name the options that cannot be honoured together, or not by a model of such *forms*."""
    held = is_held(options, tools)
    must_call = tools is not None and options.tool_choice != "auto"
    shown = tools is None or forms.shows_tools
    known = tools is None or forms.call is not None or not held
    unserved = {
        "tools": not shown or (not known and not must_call),
        "tool_choice": must_call and not (shown and known),
        "schema": must_call and options.schema is not None,
        "thinking": held and options.thinking not in {"auto", "off"},
        "stop": held and options.stop != (),
    }
    return {name for name, refused in unserved.items() if refused}


def find_grammar(options: Options, tools: Tools | None, forms: Forms) -> Grammar | None:
    """
    Give what an answer has to be, None where it may be anything; all of it can be honoured.

    Raises:
        QuestionError: A schema is none, or too large.

        UnsupportedError: A schema is not served.
    """
    if not is_held(options, tools):
        return None
    return write_grammar(
        forms,
        schema=None if options.schema is None else read_schema(options.schema),
        parameters={} if tools is None else _read_parameters(tools),
        many=options.tool_calls == "many",
    )


def _read_parameters(tools: Tools) -> dict[str, Schema]:
    return {
        name: read_schema(json.dumps(schema), option="tools")
        for name, schema in tools.parameters.items()
    }
