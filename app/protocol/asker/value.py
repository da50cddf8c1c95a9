"""
A value held against a schema: whether it is what was asked for, looked at once more. Pure, but for
a clock.

The enclave holds answers to their schemas as they are written; this reads the whole. `format` is
left to the enclave, as JSON Schema leaves it to whoever wants it.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final
from urllib.parse import unquote

from app.protocol.asker.pattern import matches
from app.protocol.schema import Schema, escape

_PATTERNS_SECONDS: Final = 2.0  # all patterns of a value together may take as long
_LEAST_SECONDS: Final = 0.01

_Json = dict[str, object]
_Fault = tuple[str, str]  # the place in the value, and the keyword that it breaks


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return (isinstance(value, float) and value.is_integer()) or (
        isinstance(value, int) and not isinstance(value, bool)
    )


_TYPES: Final[Mapping[str, Callable[[object], bool]]] = {
    "array": lambda value: isinstance(value, list),
    "boolean": lambda value: isinstance(value, bool),
    "integer": _is_whole,
    "null": lambda value: value is None,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}
_BOUNDS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "minimum": lambda value, bound: value >= bound,
    "maximum": lambda value, bound: value <= bound,
    "exclusiveMinimum": lambda value, bound: value > bound,
    "exclusiveMaximum": lambda value, bound: value < bound,
    "multipleOf": lambda value, bound: bound != 0 and value % bound == 0,
}


def find_fault(schema: Schema, value: object) -> str | None:
    """
    Give the place in *value* that *schema*, which is checked, does not allow; None where there is
    none.
    """
    try:
        fault = _Judge(schema).judge(schema, value)
    except RecursionError:
        return "#: it is deeper than can be read"
    except TimeoutError:
        return "#: its patterns take too long to compare: put no choice in a repeat, as in (a|aa)+"
    return None if fault is None else f"#{fault[0]}: {fault[1]}"


class _Judge:
    """Judges one value; each part of it is held against each schema once."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._end = time.monotonic() + _PATTERNS_SECONDS
        self._judged: dict[tuple[int, int], _Fault | None] = {}

    def judge(self, schema: object, value: object) -> _Fault | None:
        """Give the first fault of *value*, its place seen from there."""
        if not isinstance(schema, dict):
            return None if schema else ("", "nothing may be here")
        key = (id(schema), id(value))
        if key not in self._judged:
            self._judged[key] = None  # what refers to itself alone forbids nothing by that
            self._judged[key] = next(self._faults(schema, value), None)
        return self._judged[key]

    def _faults(self, schema: _Json, value: object) -> Iterator[_Fault]:
        yield from (("", key) for key in schema if not _allows(key, schema[key], value))
        pattern = schema.get("pattern")
        if (
            isinstance(pattern, str)
            and isinstance(value, str)
            and not self._matches(pattern, value)
        ):
            yield "", "pattern"
        yield from self._combined(schema, value)
        if isinstance(value, dict):
            yield from self._members(schema, value)
        if isinstance(value, list):
            yield from self._items(schema, value)

    def _combined(self, schema: _Json, value: object) -> Iterator[_Fault]:
        if "$ref" in schema:
            yield from self._all([self._find(str(schema["$ref"]))], value)
        yield from self._all(_list(schema, "allOf"), value)
        for key in ("anyOf", "oneOf"):
            allowing = [b for b in _list(schema, key) if self.judge(b, value) is None]
            if key in schema and (not allowing or (key == "oneOf" and len(allowing) > 1)):
                yield "", key

    def _all(self, schemas: list[object], value: object) -> Iterator[_Fault]:
        yield from filter(None, (self.judge(schema, value) for schema in schemas))

    def _members(self, schema: _Json, value: _Json) -> Iterator[_Fault]:
        properties, patterns = _dict(schema, "properties"), _dict(schema, "patternProperties")
        for name, inner in value.items():
            rules = [properties[name]] if name in properties else []
            rules += [patterns[p] for p in patterns if self._matches(p, name)]
            rules = rules or [schema.get("additionalProperties", True)]
            shown = name if name in properties else "*"  # other names are the answer's own
            yield from _within(shown, self._all(rules, inner))

    def _items(self, schema: _Json, value: list[object]) -> Iterator[_Fault]:
        first, others = _list(schema, "prefixItems"), schema.get("items", True)
        for number, inner in enumerate(value):
            rule = first[number] if number < len(first) else others
            yield from _within(str(number), self._all([rule], inner))

    def _matches(self, pattern: str, text: str) -> bool:
        left = self._end - time.monotonic()
        return matches(pattern, text, seconds=max(_LEAST_SECONDS, left))

    def _find(self, reference: str) -> object:
        """Give the schema that *reference* leads to; that it does was checked."""
        found: object = self._root
        for word in unquote(reference).split("/")[1:]:
            name = word.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list):
                found = found[int(name)]
            elif isinstance(found, dict):
                found = found[name]
        return found


def _allows(key: str, rule: object, value: object) -> bool:
    """Tell whether the keyword *key*, which has no schemas in it, allows *value*."""
    match key:
        case "type":
            kinds = rule if isinstance(rule, list) else [rule]
            return any(_TYPES[str(kind)](value) for kind in kinds)
        case "enum" if isinstance(rule, list):
            return any(_equal(value, one) for one in rule)
        case "const":
            return _equal(value, rule)
        case "required" if isinstance(rule, list):
            return not isinstance(value, dict) or set(rule) <= set(value)
    return _allows_number(key, rule, value)


def _allows_number(key: str, rule: object, value: object) -> bool:
    if not isinstance(rule, int | float):
        return True
    if key in _BOUNDS:
        return not _is_number(value) or _BOUNDS[key](value, rule)  # type: ignore[arg-type]
    size = _size(key[3:], value)
    if size is None:
        return True
    return size >= rule if key.startswith("min") else size <= rule


def _size(unit: str, value: object) -> int | None:
    """Give how many of *unit* there are in a value that has any."""
    match unit, value:
        case ("Items", list(items)):
            return len(items)
        case ("Length", str(text)):
            return len(text)
        case ("Properties", dict(members)):
            return len(members)
    return None


def _equal(one: object, other: object) -> bool:
    """Tell whether two values are the same JSON: true is not 1, but 1.0 is."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _within(name: str, faults: Iterator[_Fault]) -> Iterator[_Fault]:
    for place, keyword in faults:
        yield f"/{escape(name)}{place}", keyword


def _list(schema: _Json, key: str) -> list[object]:
    found = schema.get(key)
    return found if isinstance(found, list) else []


def _dict(schema: _Json, key: str) -> _Json:
    found = schema.get(key)
    return found if isinstance(found, dict) else {}
