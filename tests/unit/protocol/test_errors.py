import inspect
import re
from pathlib import Path

import pytest

from app.protocol import errors
from app.protocol.errors import WIRE_ERRORS, AppError, TooLongError

ROOT = Path(__file__).parents[3]
CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, AppError)
}


def test_tree() -> None:
    """
    The module's docstring lists every error, under its base.
    """
    lines = re.findall(r"^( *)[*+-] (\w+) ", errors.__doc__ or "", re.MULTILINE)
    assert {name for _, name in lines} == set(CLASSES)
    open_branches: dict[int, str] = {}
    for indent, name in lines:
        open_branches[len(indent)] = name
        base = open_branches.get(len(indent) - 2)
        assert (CLASSES[name].__base__ is CLASSES[base]) if base else name == "AppError"


def test_codes_are_unique() -> None:
    """
    Each error has a code of its own.
    """
    assert len({error.code for error in CLASSES.values()}) == len(CLASSES)


def test_wire_errors_are_the_spec_s() -> None:
    """
    What may cross the wire is the table of SPEC.md section 7, each code once.
    """
    table = (ROOT / "SPEC.md").read_text().partition("## 7. Error codes")[2].partition("\n## ")[0]
    codes = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(codes) == sorted(WIRE_ERRORS)
    assert all(WIRE_ERRORS[code].code == code for code in codes)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_message(name: str) -> None:
    """
    An error without a message says its code, and has no numbers unless given.
    """
    error = CLASSES[name]()
    assert (str(error), error.numbers) == (error.code, ())


def test_numbers() -> None:
    """
    Numbers stay apart from the message.
    """
    assert TooLongError("too long", numbers=(2, 1)).numbers == (2, 1)
