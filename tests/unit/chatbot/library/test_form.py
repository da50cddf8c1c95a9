import json
from dataclasses import dataclass
from datetime import date
from types import SimpleNamespace
from typing import Annotated, Literal, cast

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from app.chatbot.errors import FormError
from app.chatbot.library.form import Form
from app.chatbot.session.exchange import Answer
from app.protocol.errors import UnsupportedError
from app.protocol.question import Options


class Leave(BaseModel):
    """A request for leave."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["annual", "sick"]
    first_day: date
    days: Annotated[int, Field(ge=1, le=260)]

    @field_validator("first_day")
    @classmethod
    def require_weekday(cls, day: date) -> date:
        """A rule that no schema can say."""
        if day.weekday() > 4:
            raise ValueError("a weekend")
        return day


@dataclass
class Place:
    """Anything that pydantic reads will do."""

    city: str
    numbers: list[int]


def answer(text: str, finish: str = "stop") -> Answer:
    receipt = SimpleNamespace(finish=finish)
    return cast("Answer", SimpleNamespace(text=text, evidence=SimpleNamespace(receipt=receipt)))


def test_an_answer_becomes_what_it_is_of() -> None:
    """The enclave is given the schema; the answer is read as the type."""
    form = Form(Leave)
    options = form.shape(Options(seed=3))
    assert options.seed == 3
    assert options.schema is not None
    assert json.loads(options.schema)["required"] == ["kind", "first_day", "days"]
    read = form.read(answer('{"kind":"sick","first_day":"2026-11-27","days":2}'))
    assert read == Leave(kind="sick", first_day=date(2026, 11, 27), days=2)


class Open(BaseModel):
    """A type that says for itself that it takes more."""

    model_config = ConfigDict(extra="allow")

    counts: dict[str, int]


def test_an_answer_has_what_its_form_names_and_no_more() -> None:
    """Objects are closed where their type ignores what it does not name, however deep."""
    schema = json.loads(Form(Open).shape(Options()).schema or "")
    assert schema["additionalProperties"] is True
    nested = json.loads(Form(list[Place]).shape(Options()).schema or "")
    assert nested["$defs"]["Place"]["additionalProperties"] is False
    assert schema["properties"]["counts"]["additionalProperties"] == {"type": "integer"}


def test_types_of_other_kinds() -> None:
    """A dataclass, and a list, are forms, too."""
    assert Form(Place).read(answer('{"city":"Bonn","numbers":[1]}')) == Place("Bonn", [1])
    assert Form(list[int]).read(answer("[1,2]")) == [1, 2]


@pytest.mark.parametrize("finish", ["length", "error"])
def test_what_was_cut_off_is_no_form(finish: str) -> None:
    """An answer that its limit ended is refused, even where it could be read."""
    with pytest.raises(FormError, match="max_tokens"):
        Form(list[int]).read(answer("[1,2]", finish))


def test_what_no_schema_can_say_is_checked_here() -> None:
    """A rule of the type's own refuses by its place, and quotes nothing of the answer."""
    with pytest.raises(FormError, match=r"the form: first_day$") as caught:
        Form(Leave).read(answer('{"kind":"sick","first_day":"2026-11-28","days":2}'))
    assert "2026" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_what_cannot_be_asked_for_is_refused_before_it_is_sent() -> None:
    """A type whose schema is not served says where."""
    with pytest.raises(UnsupportedError, match="uniqueItems"):
        Form(set[int])
