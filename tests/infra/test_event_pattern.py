import pytest

from tests.infra.deployment import Json
from tests.infra.event_pattern import matches

# EventBridge's own examples, and what they leave open about absent fields.
CASES: list[tuple[Json, Json, bool]] = [
    ({"a": ["x"]}, {"a": "x"}, True),
    ({"a": ["x"]}, {"a": "y"}, False),
    ({"a": ["x"]}, {}, False),
    ({"a": ["x", "y"]}, {"a": "y", "b": 1}, True),
    ({"a": ["x"], "b": [1]}, {"a": "x", "b": 2}, False),
    ({"a": [1]}, {"a": True}, False),
    ({"a": [None]}, {"a": None}, True),
    ({"a": ["x"]}, {"a": ["z", "x"]}, True),
    ({"a": {"b": ["x"]}}, {"a": {"b": "x"}}, True),
    ({"a": {"b": ["x"]}}, {"a": None}, False),
    ({"a": [{"exists": False}]}, {}, True),
    ({"a": [{"exists": False}]}, {"a": None}, False),
    ({"a": {"b": {"c": [{"exists": False}]}}}, {"a": None}, True),
    ({"a": {"b": {"c": [{"exists": False}]}}}, {"a": {"b": {"c": 1}}}, False),
    ({"a": [{"exists": True}]}, {"a": ""}, True),
    ({"a": [{"exists": True}]}, {"a": {"b": 1}}, False),
    ({"a": [{"prefix": "ab"}]}, {"a": "abc"}, True),
    ({"a": [{"prefix": "ab"}]}, {"a": "cab"}, False),
    ({"a": [{"anything-but": "x"}]}, {"a": "y"}, True),
    ({"a": [{"anything-but": "x"}]}, {"a": "x"}, False),
    ({"a": [{"anything-but": "x"}]}, {}, False),
    ({"a": [{"anything-but": ["x", "y"]}]}, {"a": "y"}, False),
    ({"a": [{"anything-but": {"prefix": "ab"}}]}, {"a": "ba"}, True),
    ({"a": [{"anything-but": {"prefix": "ab"}}]}, {"a": "ab"}, False),
    ({"a": [{"wildcard": "*/b*"}]}, {"a": "a/b/c"}, True),
    ({"a": [{"wildcard": "*/b*"}]}, {"a": "a/c"}, False),
    ({"a": [{"wildcard": "a.c"}]}, {"a": "abc"}, False),
    ({"a": [1], "$or": [{"b": [2]}, {"c": [3]}]}, {"a": 1, "c": 3}, True),
    ({"a": [1], "$or": [{"b": [2]}, {"c": [3]}]}, {"a": 1, "c": 4}, False),
    ({"a": [1], "$or": [{"b": [2]}, {"c": [3]}]}, {"b": 2}, False),
    ({"a": {"$or": [{"b": [2]}, {"c": [3]}]}}, {"a": {"b": 2}}, True),
    # Fields of one object of an array belong together.
    ({"a": {"b": [1], "c": [2]}}, {"a": [{"b": 1, "c": 2}]}, True),
    ({"a": {"b": [1], "c": [2]}}, {"a": [{"b": 1, "c": 3}, {"b": 4, "c": 2}]}, False),
]


@pytest.mark.parametrize(("pattern", "event", "expected"), CASES)
def test_a_pattern_matches_as_in_eventbridge(pattern: Json, event: Json, *, expected: bool) -> None:
    """
    A pattern matches what EventBridge's documentation says it does.
    """
    assert matches(pattern, event) is expected


def test_an_unknown_operator_is_an_error() -> None:
    """
    A pattern that is not understood matches nothing silently.
    """
    with pytest.raises(KeyError):
        matches({"a": [{"numeric": ["=", 1]}]}, {"a": 1})
