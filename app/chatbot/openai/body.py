"""
The body of a request: a JSON object of which everything is honoured, or refused by name.

Left out, null, and the value that changes nothing are all the same. One refusal names all that is
refused.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, model_validator
from pydantic_core import from_json

_MOST_NAMED: Final = 8  # parameters in one refusal, and the length of each name
_MAX_NAME: Final = 64
_MOST_LISTED: Final = 10_000
_TAG: Final = re.compile(r"str|list\[.*\]|<[a-z_]+>")  # of an alternative, by pydantic or by us


class RequestError(Exception):
    """
    A request cannot be honoured; never quotes what it says.

    Attributes:
        parameter: The name of what is wrong, None where it is the whole.

        code: For programs, as the OpenAI API has it.
    """

    def __init__(self, message: str, parameter: str | None, code: str) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.code = code


class Body(BaseModel):
    """
    An object of a request, or the whole of it.

    Attributes:
        neutral: What has a value that changes nothing, and that value; a tuple has several.

        companions: What a refusal names last: what clients add by themselves, or what means
            nothing without another parameter, is seldom what the caller meant.
    """

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)
    neutral: ClassVar[Mapping[str, object]] = {}
    companions: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_neutral(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {name: item for name, item in value.items() if not cls._is_neutral(name, item)}

    @classmethod
    def _is_neutral(cls, name: str, value: object) -> bool:
        """Tell whether *value* changes nothing; 0.0 is 0 here, and false is not."""
        return value is None or any(
            value == neutral and isinstance(value, bool) == isinstance(neutral, bool)
            for neutral in cls.neutral_values(name)
        )

    @classmethod
    def neutral_values(cls, name: str) -> tuple[object, ...]:
        """Give the values of the member *name* that change nothing, null aside."""
        value = cls.neutral.get(name, ())
        return value if isinstance(value, tuple) else (value,)


def _to_whole(value: object) -> object:
    """Give the integer that a number such as 8.0 is, and anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_to_whole)]
_Parsed = TypeVar("_Parsed", bound=Body)
_Place = tuple[str | int, ...]


def parse(kind: type[_Parsed], body: bytes) -> _Parsed:
    """
    Parse *body*.

    Raises:
        RequestError: It is malformed, or says what *kind* does not honour.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        if error.error_count() > _MOST_LISTED:  # listing them takes longer than finding them
            words = f"the body has {error.error_count()} members that are not served"
            raise RequestError(words, None, "invalid_value") from None
        errors = error.errors(include_url=False, include_input=False, include_context=False)
        found = [(item["type"], item["msg"], item["loc"]) for item in errors]
        raise _refuse(kind, body, found) from None


def _refuse(
    kind: type[Body], body: bytes, found: Sequence[tuple[str, str, _Place]]
) -> RequestError:
    """Give the one refusal of all that was *found*, in the order that the caller wrote it in."""
    # Of a union, each alternative has an error; the one that got farthest is what was meant.
    named = {_named(place): (flaw, message) for flaw, message, place in found}
    outer = {place[:depth] for place in named for depth in range(len(place))}
    meant = [item for item in named if item not in outer]
    if () in meant:  # no JSON, or no object: nothing has a name
        return _refusal(kind, *named[()], ())
    places = _names(body)
    meant.sort(key=lambda item: (item[0] in kind.companions, places.get(str(item[0]), len(places))))
    shown = [_refusal(kind, *named[item], item) for item in meant[:_MOST_NAMED]]
    return _join(shown, len(meant) - len(shown))


def _named(place: _Place) -> _Place:
    """Give *place* without which alternative of a union was tried, which is no part of a name."""
    return tuple(item for item in place if not (isinstance(item, str) and _TAG.fullmatch(item)))


def _names(body: bytes) -> dict[str, int]:
    """Give the names in *body*, a JSON object, each with its place there."""
    return {name: number for number, name in enumerate(from_json(body))}


def _join(refusals: Sequence[RequestError], more: int) -> RequestError:
    """Give one error with the words of all of *refusals*; the first is what it is about."""
    words = "; ".join([str(item) for item in refusals] + ([f"and {more} more"] if more else []))
    return RequestError(words, refusals[0].parameter, refusals[0].code)


def _show(value: object) -> str:
    """Write *value* as JSON has it, but texts in quotes that JSON need not escape."""
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _refusal(kind: type[Body], flaw: str, message: str, place: _Place) -> RequestError:
    if not place:
        return RequestError(f"the body is no request: {message}", None, "invalid_json")
    name = "".join(f"[{item}]" if isinstance(item, int) else f".{item}" for item in place)[1:]
    name = name[:_MAX_NAME]
    if flaw == "extra_forbidden":
        values = " or ".join(map(_show, kind.neutral_values(name)))
        neutral = f", other than {values}" if values else ""
        return RequestError(
            f"{name} is not supported{neutral}: leave it out", name, "unsupported_parameter"
        )
    if flaw == "missing":
        return RequestError(f"{name} is missing", name, "missing_required_parameter")
    code = "unsupported_value" if flaw == "unsupported" else "invalid_value"
    return RequestError(f"{name}: {message}", name, code)
