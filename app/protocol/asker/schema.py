"""
A schema as it is sent: checked, and said so that every dialect of patterns means the same.
"""

import json
from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

from app.protocol.asker.pattern import translate_pattern
from app.protocol.errors import QuestionError
from app.protocol.schema import LISTS, MAPS, SCHEMAS, escape, read_schema

_TYPES: Final = ("array", "boolean", "integer", "null", "number", "object", "string")
_Json = dict[str, object]


def check_schema(text: str, *, option: str = "schema") -> str:
    """
    Check the schema *text*, and give it as it is to be sent.

    Raises:
        QuestionError: It is no JSON, no schema, or over a limit; or has a type that there is not,
            or a reference that leads to nothing served.

        UnsupportedError: It has a keyword or a pattern that is not served; the message says where.
    """
    schema = read_schema(text, option=option, pattern=translate_pattern)
    places = {unquote(path) for path, _ in _parts(schema, "#")}
    for path, part in _parts(schema, "#"):
        if isinstance(part, dict):
            _require_sense(part, places, f"{option} {path}")
    return json.dumps(schema, ensure_ascii=False, separators=(",", ":"))


def _parts(schema: object, path: str) -> Iterator[tuple[str, object]]:
    """Give *schema* and each schema in it, with its place."""
    yield path, schema
    for key, value in schema.items() if isinstance(schema, dict) else ():
        place = f"{path}/{escape(key)}"
        for name, inner in _inner(key, value):
            yield from _parts(inner, place + name)


def _inner(key: str, value: object) -> Iterator[tuple[str, object]]:
    """Give the schemas that the keyword *key* has, with their places in it."""
    if key in LISTS and isinstance(value, list):
        yield from ((f"/{number}", inner) for number, inner in enumerate(value))
    elif key in MAPS and isinstance(value, dict):
        yield from ((f"/{escape(name)}", inner) for name, inner in value.items())
    elif key in SCHEMAS:
        yield "", value


def _require_sense(part: _Json, places: set[str], name: str) -> None:
    kinds = part.get("type", [])
    for kind in kinds if isinstance(kinds, list) else [kinds]:
        if kind not in _TYPES:
            raise QuestionError(f"{name}/type: it is none of {', '.join(_TYPES)}")
    if "$ref" in part and unquote(str(part["$ref"])) not in places:
        raise QuestionError(f"{name}/$ref: it leads to no schema that is served")
