import json
import socket
from typing import Annotated

import pytest
from pydantic import Field

from app.chatbot.library.tools import Tools
from app.protocol.errors import QuestionError
from app.protocol.question import Options, ToolCall


def find_weather(city: str, days: Annotated[int, Field(ge=1, le=7)] = 1) -> dict[str, object]:
    """Give the weather of a city."""
    return {"city": city, "days": days, "sky": "✓"}


def say(text: str) -> str:
    return text


def fail() -> None:
    """Fail."""
    raise RuntimeError("of the program's own")


TOOLS = Tools(find_weather, say, fail)


def test_the_model_is_shown_what_a_function_says_of_itself() -> None:
    """Name, docstring and annotated parameters; all of it is what a question may carry."""
    shown = {each["function"]["name"]: each["function"] for each in json.loads(TOOLS.json)}
    weather = shown["find_weather"]
    assert weather["description"] == "Give the weather of a city."
    assert weather["parameters"]["required"] == ["city"]
    assert weather["parameters"]["properties"]["days"]["maximum"] == 7
    assert Options(tools=TOOLS.json, tool_choice="function:say").tools == TOOLS.json


def test_a_call_is_run() -> None:
    """Text comes as it is, all else as JSON."""
    result = TOOLS.run(ToolCall("1", "find_weather", '{"city": "Bonn"}'))
    assert json.loads(result) == {"city": "Bonn", "days": 1, "sky": "✓"}
    assert TOOLS.run(ToolCall("2", "say", '{"text": "{}"}')) == "{}"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (ToolCall("1", "buy", "{}"), "error: there is no tool buy"),
        (ToolCall("1", "find_weather", "{}"), "error: wrong arguments: city"),
        (ToolCall("1", "find_weather", '{"city": "x", "days": 9}'), "error: wrong arguments: days"),
        (ToolCall("1", "say", '{"text": "x", "more": 1}'), "error: wrong arguments: more"),
        (ToolCall("1", "say", "["), "error: wrong arguments: "),
    ],
)
def test_a_call_that_does_not_fit_is_told_to_the_model(call: ToolCall, said: str) -> None:
    """Nothing is run, and the model gets a sentence."""
    assert TOOLS.run(call) == said


def test_what_a_function_raises_is_the_programs() -> None:
    """It is raised, not told to the model."""
    with pytest.raises(RuntimeError, match="of the program's own"):
        TOOLS.run(ToolCall("1", "fail", "{}"))


def test_names_are_told_apart() -> None:
    """Two functions of one name, or one whose parameters nobody can tell, are refused."""
    with pytest.raises(QuestionError, match="one name"):
        Tools(say, say)

    def strange(what: socket.socket) -> None:
        del what

    with pytest.raises(QuestionError, match="strange"):
        Tools(strange)
