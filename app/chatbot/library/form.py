"""
A form: a type of Python's that an answer has to be of.

The enclave holds the answer to its schema, token by token; what comes is validated all the same.
"""

import json
from dataclasses import replace
from typing import Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from app.chatbot.errors import FormError
from app.chatbot.session.exchange import Answer
from app.protocol.asker.schema import check_schema
from app.protocol.question import Options

_Value = TypeVar("_Value")


class Form(Generic[_Value]):
    """
    The form that *kind*, whatever pydantic can read from JSON, makes.

    Raises:
        QuestionError, UnsupportedError: No schema that is served can say it; says where.
    """

    def __init__(self, kind: type[_Value]) -> None:
        self._adapter: TypeAdapter[_Value] = TypeAdapter(kind)
        self._schema = check_schema(json.dumps(_close(self._adapter.json_schema())))

    def shape(self, options: Options) -> Options:
        """Give *options* for an answer of this form."""
        return replace(options, schema=self._schema)

    def read(self, answer: Answer) -> _Value:
        """
        Give the whole *answer* as what it is of.

        Raises:
            FormError: It is not of the form.
        """
        if answer.evidence is None or answer.evidence.receipt.finish != "stop":
            raise FormError("the answer was cut off before the form was full: raise max_tokens")
        try:
            return self._adapter.validate_json(answer.text)
        except ValidationError as error:
            places = (".".join(map(str, each["loc"])) or "all of it" for each in error.errors())
            raise FormError(f"the answer is not of the form: {', '.join(places)}") from None


def _close(schema: object) -> object:
    """Give *schema* without other properties than it names, where it leaves open whether it may."""
    if isinstance(schema, list):
        return [_close(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close(value) for key, value in schema.items()}
    if closed.get("type") == "object" and "properties" in closed:
        closed.setdefault("additionalProperties", False)
    return closed
