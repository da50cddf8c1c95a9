import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.asker.pattern import translate_pattern
from app.protocol.asker.schema import check_schema
from app.protocol.errors import QuestionError, UnsupportedError
from app.protocol.schema import read_schema
from tests.schemas import Json, schemas


@given(schema=schemas())
def test_what_is_sent(schema: Json) -> None:
    """
    What is sent of a schema is read by the enclave as it is, and is no longer.
    """
    sent = check_schema(json.dumps(schema))
    assert read_schema(sent) == json.loads(sent)


@pytest.mark.parametrize(
    ("pattern", "sent"),
    [
        ("^[a-z]+$", "^[a-z]+$"),
        (r"^\d{3}-\d{4}$", r"^[0-9]{3}-[0-9]{4}$"),
        (r"[\w.-]@", r"[[0-9A-Za-z_].-]@"),
        (r"a\.b\/c", r"a\x2eb\x2fc"),
        ("^(?:a|b)*?$", "^(?:a|b)*?$"),
        ("é{2,}|🙂", "é{2,}|🙂"),
        (r"\u00e9\x41\n", r"\u00e9\x41\n"),
        ("", ""),
    ],
)
def test_patterns(pattern: str, sent: str) -> None:
    """
    A pattern is sent so that no dialect takes it for another one.
    """
    assert translate_pattern(pattern) == sent


@pytest.mark.parametrize(
    "pattern",
    [
        "(?=a)b", "(?!a)b", "(?<=a)b", "(?i)a", "(?P<a>b)", r"(a)\1", r"\bword", r"\p{L}", r"a\Z",
        "[[:alpha:]]", "[a&&b]", "[a--b]", "[a~~b]", "[]a]", "a++", "a{2}{3}", "a{257}",
        "a{1,9999}",        "(", "[", "{", "}", "*", r"\ud800", "\\", "a**", "a{99999999}",
    ],
)  # fmt: skip
def test_patterns_that_are_not_served(pattern: str) -> None:
    """
    What dialects do not share is refused where it stands.
    """
    schema = json.dumps({"properties": {"a": {"pattern": pattern}}})
    with pytest.raises(UnsupportedError, match=r"#/properties/a/pattern: .* character \d+ on"):
        check_schema(schema)


@given(pattern=st.text("ab1[]()^$.*+?{},|\\dwsDWS-&~", max_size=10))
def test_any_pattern(pattern: str) -> None:
    """
    Any text is translated or refused; what is translated is a pattern for Python, too.
    """
    try:
        translated = translate_pattern(pattern)
    except ValueError:
        return
    assert "\\d" not in translated
    re.compile(pattern)


def test_twice() -> None:
    """
    Two patterns for names of properties that come to one are refused, since one would be lost.
    """
    with pytest.raises(UnsupportedError, match="twice"):
        check_schema(r'{"patternProperties": {"\\d": {}, "[0-9]": {"type": "null"}}}')


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "strng"}, "#/type"),
        ({"type": ["string", "nil"]}, "#/type"),
        ({"type": None}, "#/type"),
        ({"properties": {"a/b": {"items": {"type": {}}}}}, "#/properties/a~1b/items/type"),
        ({"anyOf": [{}, {"$ref": "#/$defs/a"}]}, "#/anyOf/1/$ref"),
        ({"examples": [{}], "items": {"$ref": "#/examples/0"}}, "#/items/$ref"),
        ({"items": {"$ref": "#node"}}, "#/items/$ref"),
    ],
)
def test_what_makes_no_sense(schema: Json, place: str) -> None:
    """
    A type that there is not, and a reference to nothing, are refused where they stand.
    """
    with pytest.raises(QuestionError, match=re.escape(f"schema {place}: ")):
        check_schema(json.dumps(schema))


def test_what_makes_sense() -> None:
    """
    References lead to a schema's own parts, however they are written; values may look like types.
    """
    parts = {"a/b c": {"type": ["null", "array"], "items": {"$ref": "#"}}, "yes": True}
    for reference in ("#", "#/$defs/a~1b%20c", "#/$defs/a~1b c/items", "#/$defs/yes"):
        schema = {"$defs": parts, "properties": {"type": {"$ref": reference}}}
        assert json.loads(check_schema(json.dumps(schema))) == schema
    schema = {"const": {"type": "x", "$ref": "#/y"}, "enum": [{"type": "x"}]}
    assert json.loads(check_schema(json.dumps(schema))) == schema
