import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from app.protocol.asker.schema import check_schema
from app.protocol.asker.value import find_fault
from tests.schemas import Json, schemas

VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-20, 1000),
        st.sampled_from([0.5, 1.0, 2.5, -0.0, 1e300]),
        st.text("abé1 .\n", max_size=6),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "b", "name", "ab", "x"]), inner, max_size=3),
    ),
    max_leaves=6,
)


@given(schema=schemas(), value=VALUES)
def test_as_an_independent_judge_says(schema: Json, value: object) -> None:
    """What is allowed is what jsonschema allows, for whatever schema is served."""
    check_schema(json.dumps(schema))
    assert (find_fault(schema, value) is None) == Draft202012Validator(schema).is_valid(value)


@pytest.mark.parametrize(
    ("schema", "value", "fault"),
    [
        ({"type": "integer"}, 1.0, None),
        ({"type": "integer"}, True, "#: type"),
        ({"type": "number"}, float("inf"), None),
        ({"type": "integer"}, float("inf"), "#: type"),
        ({"const": 1}, True, "#: const"),
        ({"const": [1.0]}, [1], None),
        ({"enum": [{"a": 0}]}, {"a": False}, "#: enum"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 3, "#: oneOf"),
        ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, 1, None),
        ({"allOf": [{"minimum": 1}, {"maximum": 2}]}, 3, "#: maximum"),
        ({"multipleOf": 3}, 7, "#: multipleOf"),
        ({"maxItems": 1}, [1, 2], "#: maxItems"),
        ({"minProperties": 1}, {}, "#: minProperties"),
        ({"minLength": 2}, "é", "#: minLength"),
        ({"pattern": "^a$"}, "a\n", "#: pattern"),
        ({"patternProperties": {"^x": {"type": "null"}}}, {"xy": 1}, "#/*: type"),
        ({"properties": {"a": False}}, {"a": 1}, "#/a: nothing may be here"),
        ({"properties": {"a/b": {"type": "null"}}}, {"a/b": 1}, "#/a~1b: type"),
        ({"prefixItems": [True], "items": {"type": "null"}}, [1, None, 2], "#/2: type"),
        ({"additionalProperties": False}, {"secret": 1}, "#/*: nothing may be here"),
        ({"$defs": {"a": {"minimum": 1}}, "items": {"$ref": "#/$defs/a"}}, [0], "#/0: minimum"),
        ({"$ref": "#"}, 1, None),
        (False, 1, "#: nothing may be here"),
        (True, 1, None),
    ],
)
def test_faults_have_a_place(schema: Json, value: object, fault: str | None) -> None:
    """The first fault is named by its place and keyword; never by what an answer made up."""
    assert find_fault(schema, value) == fault


def test_schemas_that_multiply_are_judged_once_a_part() -> None:
    """References that double at each step cost what the schema's length does."""
    steps = 40
    schema: Json = {"$ref": "#/$defs/0", "$defs": {str(steps): {"type": "null"}}}
    for step in range(steps):
        following = {"$ref": f"#/$defs/{step + 1}"}
        schema["$defs"][str(step)] = {"allOf": [following, dict(following)]}
    assert find_fault(schema, 1) == "#: type"
    assert find_fault(schema, None) is None


def test_what_is_very_deep_is_a_fault() -> None:
    """Nesting beyond what this machine can follow is no crash."""
    value: object = None
    for _ in range(100_000):
        value = [value]
    assert find_fault({"items": {"$ref": "#"}}, value) == "#: it is deeper than can be read"
    while isinstance(value, list):  # a list at a time, or Python's own clearing would go as deep
        value = value.pop()


@pytest.mark.parametrize("rule", ["^(a+)+$", "(a*)*b", "^(?:a?){9}a{9}$"])
def test_repeats_of_repeats_are_judged(rule: str) -> None:
    """
    Patterns that Python's own library tries in more ways than can be counted have their verdict.
    """
    assert find_fault({"pattern": rule}, "a" * 4000 + "c") == "#: pattern"


def test_patterns_have_a_limit_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    All texts and names of a value together are compared for so long; then it is said what to write.
    """
    monkeypatch.setattr("app.protocol.asker.value._PATTERNS_SECONDS", 0.2)
    rule, text = "^(a|aa)+$", "a" * 64 + "c"
    cases: list[tuple[Json, object]] = [
        ({"items": {"pattern": rule}}, [text, text + "c"]),
        ({"patternProperties": {rule: True}}, {text: 1}),
    ]
    for schema, value in cases:
        assert str(find_fault(schema, value)).startswith("#: its patterns take too long")
    assert find_fault({"pattern": rule}, "a" * 64) is None
