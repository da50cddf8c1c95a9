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

Json = Mapping[str, object]
LINE: Final = "Leave is booked in the staff portal, under Time off."
FORM: Final = {"name": "leave", "days": 3, "paid": True}  # that the clients' programs ask for
TOLD: Final = "The tool said: "
TITLE: Final = '{"title": "Booking leave"}'
_TITLED: Final = re.compile(r"\{ ?\"title\":")  # how Open WebUI asks for a title
ANY: Final[Json] = {"type": "object"}
# What orders a call of the user's choice, or none: CALL write path=note.txt content=leave
_ORDER: Final = re.compile(r"\bCALL (\w+)((?: \w+=[^\s\"]+)*)")
_GIVEN: Final = re.compile(r" (\w+)=([^\s\"]+)")


def script(question: Question) -> Sequence[Piece]:
    """Give the answer to *question*."""
    return [
        piece
        for whole in _answer(question)
        for piece in ([whole] if whole.control else _cut(whole.text))
    ]


def _answer(question: Question) -> Iterator[Piece]:
    options, last = question.options, question.messages[-1]
    call = _choose(question)
    if call is not None:
        yield from _call(call)
    elif options.schema is not None:
        schema: Json = json.loads(options.schema)
        yield Piece(json.dumps(FORM if schema == ANY else instance(schema)))
    elif last.role == "tool":
        yield Piece(TOLD + last.text)
    else:
        yield Piece(TITLE if _TITLED.search(last.text) else LINE)


def _choose(question: Question) -> Json | None:
    """Give the call to make, None for none: what the user ordered, or else the first function."""
    options = question.options
    required = options.tool_choice == "required" or options.tool_choice.startswith("function:")
    functions = _functions(question)
    if not functions or (question.messages[-1].role == "tool" and not required):
        return None
    texts = [message.text for message in question.messages if message.role == "user"]
    for name, given in reversed(_ORDER.findall(texts[-1]) if texts else []):
        if name in functions:
            return {"name": name, "arguments": dict(_GIVEN.findall(given))}
        if not required:
            return None
    name, parameters = next(iter(functions.items()))
    return {"name": name, "arguments": instance(parameters)}


def _functions(question: Question) -> Mapping[str, Json]:
    """Give the parameters of the functions that may be called, by name."""
    chosen = question.options.tool_choice
    tools: list[Json] = json.loads(question.options.tools or "[]") if chosen != "none" else []
    functions = [_mapping(tool["function"]) for tool in tools]
    given = {str(one["name"]): _mapping(one.get("parameters") or ANY) for one in functions}
    name = chosen.removeprefix("function:")
    return {name: given[name]} if name in given else given


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
