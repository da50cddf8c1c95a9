"""
Tools: functions of a program that the model may call.

The model names one and its arguments; the program runs it, or does not. A call is the model's
word, and text in a question can talk a model into one.
"""

import inspect
import json
from collections.abc import Callable
from functools import cached_property
from typing import cast

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import to_json

from app.protocol.errors import QuestionError
from app.protocol.question import ToolCall


class Tools:
    """
    *functions*, shown to the model by their names, docstrings and annotated parameters.

    Raises:
        QuestionError: Two have one name, or pydantic cannot tell what a parameter takes.
    """

    def __init__(self, *functions: Callable[..., object]) -> None:
        self._functions = {function.__name__: function for function in functions}
        if len(self._functions) < len(functions):
            raise QuestionError("two tools have one name")
        self._adapters = {name: _adapt(each) for name, each in self._functions.items()}

    @cached_property
    def json(self) -> str:
        """What the model is shown, as `Options.tools` takes it."""
        shown = [
            {
                "type": "function",
                "function": {
                    "name": name,
                    "description": inspect.getdoc(function) or "",
                    "parameters": self._adapters[name].json_schema(),
                },
            }
            for name, function in self._functions.items()
        ]
        return json.dumps(shown, ensure_ascii=False)

    def run(self, call: ToolCall) -> str:
        """
        Run what *call* names with its arguments, and give the result as `Session.give` takes it:
        text as it is, all else as JSON.

        A call of what there is not, or with arguments that do not fit, gives a sentence that says
        so to the model. What the function raises is raised.
        """
        adapter = self._adapters.get(call.name)
        if adapter is None:
            return f"error: there is no tool {call.name}"
        try:
            result = adapter.validate_json(call.arguments)
        except ValidationError as error:
            places = {".".join(map(str, each["loc"])) for each in error.errors()}
            return f"error: wrong arguments: {', '.join(sorted(places))}"
        return result if isinstance(result, str) else to_json(result).decode()


def _adapt(function: Callable[..., object]) -> TypeAdapter[object]:
    """Give what calls *function* with arguments in JSON, and knows their schema."""
    try:
        return TypeAdapter(cast("type[object]", function))  # which its types leave out
    except PydanticUserError as error:
        raise QuestionError(f"tool {function.__name__}: {error.message}") from None
