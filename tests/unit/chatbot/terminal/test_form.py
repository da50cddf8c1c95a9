import io
import json
import time
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from app.chatbot.console import Terminal
from app.chatbot.errors import FormError, SchemaError, SchemaFileError
from app.chatbot.evidence.advice import exit_code
from app.chatbot.reading.parts import Part, Text
from app.chatbot.session.exchange import Answer, Evidence, Exchange
from app.chatbot.session.session import Session
from app.chatbot.terminal import form
from app.chatbot.terminal.form import ask_form, read_schema
from app.protocol.errors import AppError, UnsupportedError
from app.protocol.question import Options

SCHEMA = json.dumps({
    "type": "object",
    "properties": {"days": {"type": "integer", "maximum": 9}, "who": {"type": "string"}},
    "required": ["days"],
    "additionalProperties": False,
})  # fmt: skip


class Asked:
    """A session whose model says *text*, and what it was asked."""

    def __init__(self, text: str, finish: str = "stop", error: AppError | None = None) -> None:
        self.text, self.finish, self.error = text, finish, error
        self.question, self.options = "", Options()

    def ask(self, question: str, options: Options) -> Answer:
        self.question, self.options = question, options
        exchange = Exchange(time.monotonic())

        def parts() -> Generator[Part]:
            for place in range(0, len(self.text), 5):
                part = Text(self.text[place : place + 5])
                exchange.parts.append(part)
                yield part
            if self.error:
                raise self.error
            evidence = SimpleNamespace(receipt=SimpleNamespace(finish=self.finish))
            exchange.end(cast("Evidence", evidence))

        return Answer(parts(), exchange)


@pytest.fixture(autouse=True)
def without_banner(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was verified is shown beside; here there is nothing."""
    monkeypatch.setattr(form, "show_banner", lambda *_: None)
    monkeypatch.setattr(form, "show_receipt", lambda *_: None)


def fill(asked: Asked, schema: str = SCHEMA) -> str:
    """Give what is printed."""
    printed = io.StringIO()
    terminal = Terminal(io.StringIO(), printed, io.StringIO())
    try:
        ask_form(cast("Session", asked), "How long?", schema, Options(padding="off"), terminal)
    except AppError:
        assert printed.getvalue() == ""
        raise
    return printed.getvalue()


def test_json_alone_is_printed() -> None:
    """The answer as one line, whatever blanks it has; the model sees the schema it is held to."""
    asked = Asked('{"days"\n\t: 3e0,\n \r\n"who": "a  \\"é\\n\\\\" }\n')
    assert fill(asked) == '{"days":3e0,"who":"a  \\"é\\n\\\\"}\n'
    assert asked.question.startswith("How long?\n\n")
    assert '"maximum":9' in asked.question
    assert json.loads(asked.options.schema or "") == json.loads(SCHEMA)
    assert asked.options.padding == "off"


def test_what_could_do_something_at_a_terminal_is_written_as_an_escape() -> None:
    """It is the same JSON, and harmless where it is shown."""
    printed = fill(Asked('{"days": 3,\r\n"who": "\x9b\u202e\x7f"}'))
    assert printed == '{"days":3,"who":"\\u009b\\u202e\\u007f"}\n'
    assert json.loads(printed)["who"] == "\x9b\u202e\x7f"


@pytest.mark.parametrize(
    ("text", "finish", "says"),
    [
        ('{"days": 3', "length", "cut off"),
        ('{"days": 3}', "length", "cut off"),
        ('{"days": 3', "stop", "no JSON"),
        ('{"days": NaN}', "stop", "no JSON"),
        ("[" * 100_000, "stop", "no JSON"),
        ('{"days": 10}', "stop", "#/days: maximum"),
        ('{"days": 1, "x": 1}', "stop", "#/\\*: nothing may be here"),
        ("{}", "stop", "#: required"),
    ],
)
def test_what_is_no_whole_form_is_not_printed(text: str, finish: str, says: str) -> None:
    """A cut-off answer, or one that does not validate, is a failure with nothing printed."""
    with pytest.raises(FormError, match=says) as raised:
        fill(Asked(text, finish))
    assert exit_code(raised.value) == 4


def test_what_the_enclave_refuses_is_the_schema_s_fault() -> None:
    """It names no place, so that what it may be is told; other refusals stay what they are."""
    with pytest.raises(SchemaError, match="oneOf"):
        fill(Asked("", error=UnsupportedError(numbers=(4,))))
    with pytest.raises(UnsupportedError):
        fill(Asked("", error=UnsupportedError(numbers=(5,))))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"type": "object",\n "properties": {a}}', "no JSON from line 2, column 17 on"),
        (b"\xff\xfe", "no JSON in UTF-8"),
        (b"[" * 30_000, "no JSON"),
        (b'"' + b"x" * 33_000 + b'"', "longer than 32,768 bytes"),
        (b'{"properties": {"a": {"not": {}}}}', "schema #/properties/a/not: it is not served"),
        (b'{"items": {"type": "strin"}}', "schema #/items/type: it is none of array"),
        (b'{"$ref": "#/$defs/a"}', "schema #/\\$ref: it leads to no schema"),
        (b"3", "schema # is no schema"),
    ],
)
def test_a_schema_that_will_not_do_is_told_with_its_place(
    tmp_path: Path, text: bytes, says: str
) -> None:
    """What is wrong with the file is named before anything is sent, and ends with 2."""
    (tmp_path / "form.json").write_bytes(text)
    with pytest.raises(SchemaError, match=says) as raised:
        read_schema(tmp_path / "form.json")
    assert exit_code(raised.value) == 2
    with pytest.raises(SchemaFileError, match="cannot be read") as raised:
        read_schema(tmp_path / "none")
    assert exit_code(raised.value) == 2


def test_a_byte_order_mark_is_no_part_of_a_schema(tmp_path: Path) -> None:
    """Editors put one there; the schema is what follows."""
    (tmp_path / "form.json").write_text("\ufeff" + SCHEMA, encoding="utf-8")
    assert read_schema(tmp_path / "form.json") == SCHEMA
