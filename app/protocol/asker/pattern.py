"""
A pattern: a regular expression of a schema, in the part of ECMA-262 that all dialects share. Pure.
"""

import functools
import re
from typing import Final

import regex

_ESCAPE: Final = (
    r"\\(?:[dDwWsSnrtfv]|x[\da-fA-F]{2}|u(?![dD][89a-fA-F])[\da-fA-F]{4}|[!-/:-@\[-`{-~])"
)
_MEMBER: Final = rf"(?:{_ESCAPE}|(?!&&|--|~~)[^\\\[\]])"
_REPEAT: Final = r"(?:[*+?]|\{(?P<least>\d{1,5})(?:,(?P<most>\d{0,5}))?\})\??(?![*+?{])"
_PART: Final = re.compile(
    rf"{_ESCAPE}|\[\^?{_MEMBER}+\]|\((?:\?:|(?!\?))|[)|^$.]|{_REPEAT}|[^\\\[\](){{}}*+?]"
)
_ATOM: Final = re.compile(rf"{_ESCAPE}|.", re.DOTALL)
# Dialects differ in what these hold: here is what all of them agree upon.
_SPACES: Final = r"\t-\r \u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_CLASSES: Final = {
    r"\d": "[0-9]",
    r"\D": r"[^\p{Nd}]",
    r"\w": "[0-9A-Za-z_]",
    r"\W": r"[^\p{L}\p{M}\p{N}\p{Pc}]",
    r"\s": f"[{_SPACES}]",
    r"\S": rf"[^{_SPACES}\u001c-\u001f\u0085\ufeff]",
}


_MOST_REPEATS: Final = 256


def translate_pattern(pattern: str) -> str:
    """
    Give *pattern* so that what matches it matches *pattern* in any dialect.

    Raises:
        ValueError: It has what dialects do not share, such as looking ahead, or repeats a part more
            than 256 times.
    """
    made: list[str] = []
    at = 0
    while at < len(pattern):
        part = _PART.match(pattern, at)
        if part is None or max(int(part["least"] or 0), int(part["most"] or 0)) > _MOST_REPEATS:
            raise ValueError(f"its pattern is not served from character {at + 1} on")
        made.append(_translate(part[0]))
        at = part.end()
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"its pattern is none from character {(error.pos or 0) + 1} on") from error
    return "".join(made)


def matches(pattern: str, text: str, *, seconds: float) -> bool:
    """
    Tell whether *pattern*, which `translate_pattern` takes, is somewhere in *text*.

    Raises:
        TimeoutError: That takes longer than *seconds*, as `^(a|aa)+$` may.
    """
    return bool(_compile(pattern).search(text, timeout=seconds))


@functools.lru_cache(maxsize=256)
def _compile(pattern: str) -> "regex.Pattern[str]":
    """Compile *pattern* so that it ends where ECMA-262 says."""
    parts = (part[0] for part in _PART.finditer(pattern))
    return regex.compile("".join(r"\Z" if part == "$" else part for part in parts))


def _translate(part: str) -> str:
    if part == ".":
        return r"[^\n\r\u2028\u2029]"
    if part[0] not in "\\[":
        return part
    return _ATOM.sub(lambda atom: _translate_atom(atom[0]), part)


def _translate_atom(atom: str) -> str:
    quoted = len(atom) == 2 and not atom[1].isalnum()
    return f"\\x{ord(atom[1]):02x}" if quoted else _CLASSES.get(atom, atom)
