"""
A schema: what an answer, or a call's arguments, have to be. JSON Schema, in part.

The asker's side reads a schema before it is sent, and says where it is refused. The enclave reads
it again, so that what it compiles is small. docs/structured.md has the keywords and the limits.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

from app.protocol.errors import QuestionError, UnsupportedError
from app.protocol.question import FIELDS

Schema = dict[str, object] | bool

LIMITS: Final[Mapping[str, int]] = {  # of a schema, all its parts together
    "schemas": 1024,  # each property, item and branch is one
    "branches": 128,  # of anyOf, oneOf and allOf
    "references": 256,
    "names": 2048,  # of properties, and those that are required
    "values": 1024,  # of enumerations
    "characters of patterns": 2048,
}
MAX_LEVELS: Final = 32  # of a schema in a schema
MAX_COUNT: Final = 65_536  # of characters or items that may be asked for
MAX_WHOLE: Final = 2**53 - 1  # of the whole numbers that every reader of JSON keeps

LISTS: Final = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
MAPS: Final = frozenset(("properties", "patternProperties", "$defs", "definitions"))
SCHEMAS: Final = LISTS.union(MAPS, ("items", "additionalProperties"))
_COUNTS: Final = frozenset((
    "minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties",
))  # fmt: skip
_TALLIES: Final = {"enum": "values", "required": "names", "$ref": "references"}
_PLAIN: Final = _COUNTS.union(_TALLIES, (
    "type", "const", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
))  # fmt: skip
_FORMATS: Final = frozenset((
    "date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri",
))  # fmt: skip
# Any other keyword allows and forbids nothing, and is passed over.
_REFUSED: Final = frozenset((
    "not", "if", "then", "else", "contains", "minContains", "maxContains", "uniqueItems",
    "dependencies", "dependentRequired", "dependentSchemas", "propertyNames", "additionalItems",
    "unevaluatedItems", "unevaluatedProperties", "$anchor", "$dynamicAnchor", "$dynamicRef",
    "$recursiveAnchor", "$recursiveRef",
))  # fmt: skip


def read_schema(
    text: str, *, option: str = "schema", pattern: Callable[[str], str] = str
) -> Schema:
    """
    Give the schema *text*, without what allows and forbids nothing.

    Whether its parts fit together is not looked at.

    Args:
        option: Where in a question it is.

        pattern: Gives what stands for a pattern, or raises a ValueError.

    Raises:
        QuestionError: It is no JSON, no schema, or over a limit.

        UnsupportedError: It has a keyword that is not served; the message says where.
    """
    reader = _Reader(option, pattern)
    try:
        value = json.loads(text)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        return reader.read(value, "#", 0)
    except (ValueError, RecursionError):
        raise QuestionError(f"{option} is no JSON") from None


class _Reader:
    """Reads one schema, and counts what is in it."""

    def __init__(self, option: str, pattern: Callable[[str], str]) -> None:
        self._option = option
        self._translate = pattern
        self._counts: Counter[str] = Counter()

    def read(self, value: object, path: str, level: int) -> Schema:
        """Read the schema *value* at *path*."""
        self._count("schemas", 1)
        if isinstance(value, bool):
            return value
        if not isinstance(value, dict) or level > MAX_LEVELS:
            raise QuestionError(f"{self._option} {path} is no schema, or deeper than {MAX_LEVELS}")
        self._require(path, level == 0 or "$id" not in value, "$id is served at the top alone")
        named, least = value.get("required"), value.get("minProperties", 0)
        fewest = len(named) if isinstance(named, list) else 0
        # Names that are not listed may come twice, and then count once.
        few = not isinstance(least, int) or least <= max(1, fewest)
        self._require(path, few, "minProperties is served up to what is required")
        return {
            key: self._keyword(key, inner, f"{path}/{escape(key)}", level)
            for key, inner in value.items()
            if self._counts_for(key, inner, path)
        }

    def _counts_for(self, key: str, value: object, path: str) -> bool:
        """Tell whether a keyword allows or forbids anything."""
        neutral = key == "uniqueItems" and value is False
        self._require(f"{path}/{key}", neutral or key not in _REFUSED, "it is not served")
        return key in SCHEMAS or key in _PLAIN or (key == "format" and str(value) in _FORMATS)

    def _keyword(self, key: str, value: object, path: str, level: int) -> object:
        """Read what a keyword has."""
        if key in LISTS and isinstance(value, list):
            self._count("branches", len(value) * (key != "prefixItems"))
            return [self.read(v, f"{path}/{n}", level + 1) for n, v in enumerate(value)]
        if key in MAPS and isinstance(value, dict):
            return self._map(key, value, path, level)
        if key in SCHEMAS:
            return self.read(value, path, level + 1)
        return self._plain(key, value, path)

    def _map(self, key: str, value: dict[str, object], path: str, level: int) -> object:
        """Read the schemas that have names."""
        self._count("names", len(value))
        patterns = key == "patternProperties"
        names = {name: self._pattern(name, path) if patterns else name for name in value}
        self._require(path, len({*names.values()}) == len(value), "it has a pattern twice")
        return {
            names[name]: self.read(inner, f"{path}/{escape(name)}", level + 1)
            for name, inner in value.items()
        }

    def _plain(self, key: str, value: object, path: str) -> object:
        """Read what a keyword without schemas in it has."""
        if key == "pattern" and isinstance(value, str):
            return self._pattern(value, path)
        if key in _TALLIES:
            self._count(_TALLIES[key], len(value) if isinstance(value, list) else 1)
        if key in _COUNTS and isinstance(value, int) and value > MAX_COUNT:
            raise QuestionError(f"{self._option} {path} is over {MAX_COUNT}")
        local = key != "$ref" or str(value).startswith("#")
        self._require(path, local, "it is served within the schema alone")
        fraction = key == "multipleOf" and not isinstance(value, int)
        self._require(path, not fraction, "it is served of whole numbers alone")
        self._require(path, _is_exact(value), "not every reader of JSON keeps its numbers")
        return value

    def _pattern(self, pattern: str, path: str) -> str:
        self._count("characters of patterns", len(pattern))
        try:
            return self._translate(pattern)
        except ValueError as error:
            raise self._unsupported(path, str(error)) from None

    def _require(self, path: str, served: bool, why: str) -> None:  # noqa: FBT001 - a check
        if not served:
            raise self._unsupported(path, why)

    def _unsupported(self, path: str, why: str) -> UnsupportedError:
        number = FIELDS.index(self._option)
        return UnsupportedError(f"{self._option} {path}: {why}", numbers=(number,))

    def _count(self, what: str, number: int) -> None:
        self._counts[what] += number
        if self._counts[what] > LIMITS[what]:
            raise QuestionError(f"{self._option} has more than {LIMITS[what]} {what}")


def escape(name: str) -> str:
    """Write *name* as a JSON pointer does."""
    return name.replace("~", "~0").replace("/", "~1")


def _is_exact(value: object) -> bool:
    """Tell whether every reader of JSON gives the numbers in *value* as they are."""
    if isinstance(value, float):
        return float(f"{value:.15g}") == value
    if isinstance(value, int):
        return abs(value) <= MAX_WHOLE
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return all(map(_is_exact, inner))
