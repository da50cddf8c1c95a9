"""
EventBridge's event patterns, as far as this project uses them: does an event match?

An unknown operator is an error, so that no test passes by a pattern that is only half understood.
Source: EventBridge user guide, "Comparison operators for use in event patterns".
"""

import re
from collections.abc import Callable, Mapping
from itertools import product
from typing import Final

from tests.infra.deployment import Json


def matches(pattern: Json, event: Json) -> bool:
    """Say whether *event* matches *pattern*."""
    # An array of objects matches as one of them, the same one for all its fields.
    return any(_matches_object(pattern, flat) for flat in _without_arrays(event))


def _matches_object(pattern: Mapping[str, Json], event: Mapping[str, Json]) -> bool:
    return all(_matches_field(name, wanted, event) for name, wanted in pattern.items())


def _matches_field(name: str, wanted: Json, event: Mapping[str, Json]) -> bool:
    if name == "$or":
        return any(_matches_object(alternative, event) for alternative in wanted)
    if isinstance(wanted, dict):
        inside = event.get(name)
        return _matches_object(wanted, inside if isinstance(inside, dict) else {})
    values = event.get(name, _MISSING)
    if isinstance(values, dict):
        values = _MISSING  # only leaves have a value
    return any(_matches_value(item, values) for item in wanted)


def _matches_value(wanted: Json, values: Json) -> bool:
    """Match one alternative with a leaf: any of its items where it is an array."""
    if wanted == {"exists": False}:
        return values is _MISSING
    if values is _MISSING:
        return False
    if wanted == {"exists": True}:
        return True
    return any(_is(wanted, value) for value in (values if isinstance(values, list) else [values]))


def _is(wanted: Json, value: Json) -> bool:
    if not isinstance(wanted, dict):
        return bool(type(wanted) is type(value) and wanted == value)
    ((operator, operand),) = wanted.items()
    return _OPERATORS[operator](operand, value)


def _anything_but(operand: Json, value: Json) -> bool:
    if isinstance(operand, dict):
        return not _is(operand, value)
    return value not in (operand if isinstance(operand, list) else [operand])


def _prefix(operand: Json, value: Json) -> bool:
    return isinstance(value, str) and value.startswith(operand)


def _wildcard(operand: Json, value: Json) -> bool:
    expression = ".*".join(map(re.escape, operand.split("*")))
    return isinstance(value, str) and re.fullmatch(expression, value, re.DOTALL) is not None


_MISSING: Final = object()
_OPERATORS: Final[Mapping[str, Callable[[Json, Json], bool]]] = {
    "anything-but": _anything_but,
    "prefix": _prefix,
    "wildcard": _wildcard,
}


def _without_arrays(event: Mapping[str, Json]) -> list[dict[str, Json]]:
    """Give *event* once for each choice of an object out of its arrays of objects."""
    choices = [[(name, choice) for choice in _choose(value)] for name, value in event.items()]
    return [dict(combination) for combination in product(*choices)]


def _choose(value: Json) -> list[Json]:
    if isinstance(value, dict):
        return list(_without_arrays(value))
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return [choice for item in value for choice in _without_arrays(item)]
    return [value]
