"""
A model that does as it is told: calls the tools it is shown, fills schemas, and else says a line.

It shows what clients make of a model's answers, which no small model gives reliably. It writes
calls as Qwen's models do, and it honours `tools`, `tool_choice` and `schema` as an engine must.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from app.protocol.piece import Piece
from app.protocol.question import Question

LINE: Final = "Leave is booked in the staff portal, under Time off."
FORM: Final = {"name": "leave", "days": 3, "paid": True}  # that the clients' programs ask for
TOLD: Final = "The tool said: "
ORDER: Final = "CALL "  # a line of the user's that begins so is a call to be made, in JSON
Json = Mapping[str, object]


def script(question: Question) -> Sequence[Piece]:
    """Give the answer to *question*."""
    return [
        piece
        for whole in _answer(question)
        for piece in ([whole] if whole.control else _cut(whole.text))
    ]


def _answer(question: Question) -> Iterator[Piece]:
    options, last = question.options, question.messages[-1]
    tools: list[Json] = json.loads(options.tools or "[]")
    functions = [_mapping(tool["function"]) for tool in tools]
    if options.tool_choice.startswith("function:"):
        name = options.tool_choice.removeprefix("function:")
        functions = [item for item in functions if item["name"] == name]
    must = options.tool_choice == "required" or options.tool_choice.startswith("function:")
    if functions and options.tool_choice != "none" and (must or last.role != "tool"):
        yield from _call(_choose(question, functions))
    elif options.schema is not None:
        schema: Json = json.loads(options.schema)
        yield Piece(json.dumps(FORM if schema == {"type": "object"} else instance(schema)))
    elif last.role == "tool":
        yield Piece(TOLD + last.text)
    else:
        yield Piece(LINE)


def _choose(question: Question, functions: Sequence[Json]) -> Json:
    """Give the call that the user has ordered, or else one of the first function."""
    asked = [message.text for message in question.messages if message.role == "user"]
    for line in (line for text in reversed(asked) for line in text.splitlines()):
        if line.startswith(ORDER):
            return _mapping(json.loads(line.removeprefix(ORDER)))
    first = functions[0]
    arguments = instance(_mapping(first.get("parameters") or {"type": "object"}))
    return {"name": first["name"], "arguments": arguments}


def _call(call: Json) -> Iterator[Piece]:
    yield Piece("<tool_call>", control=True)
    yield Piece(f"\n{json.dumps(call)}\n")
    yield Piece("</tool_call>", control=True)


def _cut(text: str) -> Iterator[Piece]:
    """Cut *text* before its blanks, as tokens come."""
    for part in re.findall(r"\s*\S+|\s+", text):
        yield Piece(part)


def instance(schema: Json, root: Json | None = None) -> object:
    """Give the simplest value of *schema*, one of those that clients make of their classes."""
    root = schema if root is None else root
    if "$ref" in schema:
        target: object = root
        for name in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = _mapping(target)[name]
        return instance(_mapping(target), root)
    for name in ("anyOf", "oneOf", "allOf"):
        if name in schema:
            return instance(_mapping(_sequence(schema[name])[0]), root)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return _sequence(schema["enum"])[0]
    return _plain(schema, root)


def _plain(schema: Json, root: Json) -> object:
    match schema.get("type"):
        case "string":
            return "leave"
        case "integer" | "number":
            return 3
        case "boolean":
            return True
        case "array":
            return [instance(_mapping(schema.get("items") or {"type": "string"}), root)]
        case "null":
            return None
    properties = _mapping(schema.get("properties") or {})
    return {name: instance(_mapping(item), root) for name, item in properties.items()}


def _mapping(value: object) -> Json:
    assert isinstance(value, Mapping)
    return value


def _sequence(value: object) -> Sequence[object]:
    assert isinstance(value, Sequence)
    return value
