import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.errors import QuestionError, UnsupportedError
from app.protocol.schema import LIMITS, MAX_COUNT, MAX_LEVELS, MAX_WHOLE, read_schema

PERSON = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "$id": "https://example.com/person",
    "title": "Person",
    "type": "object",
    "properties": {
        "not": {"type": "string", "description": "a name like a keyword", "default": "x"},
        "age": {"type": ["integer", "null"], "minimum": 0, "examples": [{"if": 1}]},
        "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}, "uniqueItems": False},
        "site": {"type": "string", "format": "hostname"},
        "odd": {"type": "string", "format": "of-nobody", "x-ours": {"not": 1}},
    },
    "required": ["not"],
    "additionalProperties": False,
    "$defs": {"tag": {"const": None}},
}


def nest(levels: int) -> object:
    made: object = {}
    for _ in range(levels):
        made = {"items": made}
    return made


def test_what_counts() -> None:
    """
    A schema keeps what allows or forbids anything, and loses what does not.
    """
    read = read_schema(json.dumps(PERSON))
    assert read == {
        "type": "object",
        "properties": {
            "not": {"type": "string"},
            "age": {"type": ["integer", "null"], "minimum": 0},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
            "site": {"type": "string", "format": "hostname"},
            "odd": {"type": "string"},
        },
        "required": ["not"],
        "additionalProperties": False,
        "$defs": {"tag": {"const": None}},
    }


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"properties": {"a": {"not": {}}}}, "#/properties/a/not"),
        ({"anyOf": [{}, {"if": True}]}, "#/anyOf/1/if"),
        ({"$defs": {"a/b~c": {"contains": {}}}}, "#/$defs/a~1b~0c/contains"),
        ({"uniqueItems": True}, "#/uniqueItems"),
        ({"unevaluatedItems": False}, "#/unevaluatedItems"),
        ({"items": {"$ref": "https://example.com/x"}}, "#/items/$ref"),
        ({"items": {"$id": "x"}}, "#/items"),
        ({"multipleOf": 0.5}, "#/multipleOf"),
        ({"const": [MAX_WHOLE + 1]}, "#/const"),
        ({"enum": [0.1234567890123456789]}, "#/enum"),
        ({"minProperties": 2, "required": ["a"]}, "#"),
        ({"x": 1, "items": {"minProperties": 3, "required": ["a", "b"]}}, "#/items"),
    ],
)
def test_refused_by_path(schema: object, path: str) -> None:
    """
    What is not served is refused by where it stands, and by the option's number.
    """
    with pytest.raises(UnsupportedError) as caught:
        read_schema(json.dumps(schema))
    assert str(caught.value).startswith(f"schema {path}")
    assert caught.value.numbers == (4,)
    with pytest.raises(UnsupportedError) as caught:
        read_schema(json.dumps(schema), option="tools")
    assert caught.value.numbers == (1,)


@pytest.mark.parametrize(
    ("schema", "larger"),
    [
        (
            {"prefixItems": [{}] * (LIMITS["schemas"] - 1)},
            {"prefixItems": [{}] * LIMITS["schemas"]},
        ),
        ({"anyOf": [{}] * LIMITS["branches"]}, {"anyOf": [{}] * (LIMITS["branches"] + 1)}),
        (
            {"prefixItems": [{"$ref": "#"}] * LIMITS["references"]},
            {"prefixItems": [{"$ref": "#"}] * (LIMITS["references"] + 1)},
        ),
        ({"required": ["a"] * LIMITS["names"]}, {"required": ["a"] * (LIMITS["names"] + 1)}),
        ({"enum": [1] * LIMITS["values"]}, {"enum": [1] * (LIMITS["values"] + 1)}),
        ({"pattern": "a" * 2048}, {"pattern": "a" * 2049}),
        ({"patternProperties": {"a" * 2048: {}}}, {"patternProperties": {"a" * 2049: {}}}),
        (nest(MAX_LEVELS), nest(MAX_LEVELS + 1)),
        ({"maxLength": MAX_COUNT}, {"maxLength": MAX_COUNT + 1}),
        ({"minItems": MAX_COUNT}, {"items": {"minItems": MAX_COUNT + 1}}),
    ],
)
def test_limits(schema: object, larger: object) -> None:
    """
    A schema is counted before anything is compiled: what is at a limit is read, what is over it is
    a bad request.
    """
    assert read_schema(json.dumps(schema)) == schema
    with pytest.raises(QuestionError):
        read_schema(json.dumps(larger))


@pytest.mark.parametrize(
    "text",
    [
        "{", "7", "null", "[]", '{"items": []}', '{"items": 7}', '{"anyOf": 7}', '{"anyOf": [7]}',
        '{"properties": ["a"]}', '{"properties": {"a": 1}}', '{"const": NaN}', '{"const": 1e999}',
        '{"const": "\\ud800"}', '{"\\ud800": 1}', "[" * 9000, '{"items":' * 9000,
        '{"const": %s}' % ("[" * 5000 + "]" * 5000), '{"minimum": 1%s}' % ("0" * 5000),
    ],
)  # fmt: skip
def test_no_schema(text: str) -> None:
    """
    What is no JSON, or no schema, is a bad request.
    """
    with pytest.raises(QuestionError):
        read_schema(text)


KEYWORDS = (
    "type", "properties", "items", "anyOf", "enum", "const", "$ref", "required", "pattern", "x",
    "minItems", "minProperties", "not", "format", "multipleOf", "patternProperties", "allOf",
)  # fmt: skip
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(KEYWORDS),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(value=json_values)
def test_any_json(value: object) -> None:
    """
    Any JSON is read or refused, by one of the two errors.
    """
    with contextlib.suppress(QuestionError, UnsupportedError):
        read = read_schema(json.dumps(value))
        assert read_schema(json.dumps(read)) == read
