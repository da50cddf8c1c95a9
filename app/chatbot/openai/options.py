"""
Options of a question, as parameters of a request give them.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, Literal

from app.chatbot.openai.body import RequestError
from app.protocol.errors import QuestionError
from app.protocol.question import SCALE, Options, Thinking

Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
THINKING: Final[dict[str, Thinking]] = {
    "none": "off",
    "minimal": "low",
    "low": "low",
    "medium": "medium",
    "high": "high",
    "xhigh": "high",
    "max": "high",
}


def make_options(
    defaults: Options, given: Mapping[str, object], names: Mapping[str, str] | None = None
) -> Options:
    """
    Give *defaults* with what is *given* in its place; None is what was left out.

    Args:
        names: What the parameter is called that an option comes from, where that is another name.

    Raises:
        RequestError: A value is out of range.
    """
    chosen = {option: value for option, value in given.items() if value is not None}
    try:
        return replace(defaults, **chosen)  # type: ignore[arg-type] # `Options` checks
    except QuestionError as error:
        option = next((option for option in given if str(error).startswith(option)), "")
        name = (names or {}).get(option, option)
        words = name + str(error).removeprefix(option)
        raise RequestError(words, name or None, "invalid_value") from None


def raise_top_p(given: float | None) -> float | None:
    """Give *given*, or the least there is for 0: either keeps the likeliest token alone."""
    return 1 / SCALE if given == 0 else given
