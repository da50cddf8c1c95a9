"""
Calls of tools, as models write them: JSON of one shape or another.

A call has the tool's name and its arguments, an object. What is anything else is none.
"""

import json
import re
import secrets
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NoReturn

from app.protocol.question import ToolCall

# What may be called: the JSON schema of its parameters by its name.
Tools = Mapping[str, Mapping[str, object]]

_NAME: Final = re.compile("[!-~]{1,64}")  # SPEC.md section 5.3
_ALPHABET: Final = string.ascii_letters + string.digits
_ID_CHARACTERS: Final = 9  # Mistral's templates take no other ids; all others take any
_BETWEEN: Final = re.compile(r"[\s;,]*")  # what models write between calls
_MAX_CALLS: Final = 128
_FUNCTION: Final = re.compile(r"\s*<function=([^<>\s]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER: Final = re.compile(r"<parameter=([^<>\s]+)>\n?(.*?)\n?</parameter>", re.DOTALL)
# What DeepSeek writes after the word "function": the name, and arguments as a block of code.
_FENCED: Final = re.compile(r"(\S+)\n```json\n(.*)\n```\s*", re.DOTALL)
# How a call begins that no control token begins, blanks left out.
_PLAIN: Final = ('{"name":"', '{"type":"function",')
_LONGEST_START: Final = 200  # characters, blanks and all
_PLAIN_NAME: Final = re.compile(r'\{\s*"name"\s*:\s*"([^"]*)"')


def make_id() -> str:
    """Give a fresh id for a call."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_ID_CHARACTERS))


def parse_calls(parts: Sequence[str], tools: Tools) -> tuple[ToolCall, ...]:
    """
    Give the calls that *parts* say, none where they are malformed.

    Args:
        parts: What stood between control tokens: JSON alone, or a name and then, last, arguments.
    """
    try:
        if len(parts) > 1:
            return (_parse_parts(parts[0].strip(), parts[-1]),)
        if found := _FUNCTION.fullmatch(parts[0]):
            return (_make(found[1], _parse_parameters(found[2], tools.get(found[1]))),)
        return tuple(map(_parse_call, _split(parts[0])))
    except (ValueError, RecursionError):
        return ()


def may_be_plain(text: str, tools: Tools) -> bool:
    """Tell whether *text*, which begins an answer, may begin a call that no token begins."""
    squeezed = "".join(text[:_LONGEST_START].split())
    begun = any(squeezed.startswith(start) for start in _PLAIN)
    begins = len(text) < _LONGEST_START and any(start.startswith(squeezed) for start in _PLAIN)
    if not (begun or begins):
        return False
    named = _PLAIN_NAME.match(text)
    return named is None or named[1] in tools


def parse_plain(text: str, tools: Tools) -> tuple[ToolCall, ...]:
    """Give the calls that *text*, a whole answer, says: all of tools there are, or none."""
    calls = parse_calls([text], tools)
    return calls if all(call.name in tools for call in calls) else ()


def find_calls(text: str, tools: Tools) -> tuple[ToolCall, ...]:
    """
    Give the calls in *text*, an answer that has to be calls, however it writes them.

    Each is an object, which either is a call or stands after the name of a tool that there is.
    """
    calls: list[ToolCall] = []
    told = 0
    for start, end, value in _find_objects(text):
        try:
            calls.append(_parse_call(value))
        except ValueError:
            names = [(text.rfind(name, told, start), len(name), name) for name in tools]
            at, _, name = max(names, default=(-1, 0, ""))
            calls += [_make(name, value)] if at >= 0 else []
        told = end
    return tuple(call for call in calls if call.name in tools)


def _find_objects(text: str) -> Iterator[tuple[int, int, object]]:
    """Give where the objects in *text* begin and end, and what they are."""
    at = text.find("{")
    for _ in range(_MAX_CALLS):
        if at < 0:
            return
        try:
            value, end = _DECODER.raw_decode(text, at)
            yield at, end, value
        except (ValueError, RecursionError):
            end = at + 1
        at = text.find("{", end)


def _split(text: str) -> Iterator[object]:
    """Give the calls in *text*: one object, several one after the other, or a list of them."""
    at, count = _skip(text, 0), 0
    if at == len(text):
        raise ValueError("nothing")
    while at < len(text):
        value, at = _DECODER.raw_decode(text, at)
        for item in value if isinstance(value, list) else [value]:
            count += 1
            if count > _MAX_CALLS:
                raise ValueError("more calls than anybody makes")
            yield item
        at = _skip(text, at)


def _skip(text: str, at: int) -> int:
    found = _BETWEEN.match(text, at)
    return found.end() if found else at


def _parse_parts(name: str, arguments: str) -> ToolCall:
    if fenced := _FENCED.fullmatch(arguments):
        name, arguments = fenced[1], fenced[2]
    return _make(name, _parse_json(arguments))


def _parse_call(value: object) -> ToolCall:
    match value:
        case {"type": "function", "function": dict(function)}:
            return _parse_call(function)
        case {"type": "function", "function": str(name), "parameters": arguments}:
            return _make(name, arguments)
        case {"name": str(name), "arguments": arguments} | {
            "name": str(name),
            "parameters": arguments,
        }:
            return _make(name, arguments)
        case {"name": str(name), **rest} if rest.keys() <= {"type", "id"}:
            return _make(name, {})
    raise ValueError("no call")


def _make(name: str, arguments: object) -> ToolCall:
    if isinstance(arguments, str):
        arguments = _parse_json(arguments)
    if not isinstance(arguments, dict) or not _NAME.fullmatch(name):
        raise ValueError("no call")
    text = json.dumps(arguments, ensure_ascii=False, allow_nan=False)
    text.encode()  # half of a surrogate pair, which JSON can spell, could never be sent back
    return ToolCall(make_id(), name, text)


def _parse_parameters(text: str, schema: Mapping[str, object] | None) -> dict[str, object]:
    """Give parameters that stand as text, each as JSON where *schema* does not say it is text."""
    if text.count("<parameter=") > _MAX_CALLS or _PARAMETER.sub("", text).strip():
        raise ValueError("more than parameters")
    properties = (schema or {}).get("properties")
    types = properties if isinstance(properties, dict) else {}
    return {name: _guess(value, types.get(name)) for name, value in _PARAMETER.findall(text)}


def _guess(text: str, schema: object) -> object:
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    try:
        return _parse_json(text)
    except ValueError:
        return text


def _parse_json(text: str) -> object:
    return json.loads(text, parse_constant=_refuse)


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse)
