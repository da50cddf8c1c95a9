"""
Values of parameters: numbers, flags, lists and networks, parsed from text. Pure.
"""

import re
from collections.abc import Mapping
from ipaddress import IPv4Network

from app.protocol.errors import ConfigError


def parse_list(text: str) -> tuple[str, ...]:
    """Give the items of *text* between commas, each once."""
    return tuple(dict.fromkeys(item.strip() for item in text.split(",") if item.strip()))


def parse_number(values: Mapping[str, str], name: str, least: int, most: int) -> int:
    """
    Parse the number *name* of *values*.

    Raises:
        ConfigError: It is none, or not from *least* to *most*.
    """
    text = values[name]
    if not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise ConfigError(f"{name} is {text!r}, expected a number from {least:,} to {most:,}")
    return int(text)


def parse_flag(values: Mapping[str, str], name: str) -> bool:
    """
    Parse *name* of *values*, true or false.

    Raises:
        ConfigError: It is neither.
    """
    text = values[name].lower()
    if text not in {"true", "false"}:
        raise ConfigError(f"{name} is {values[name]!r}, expected true or false")
    return text == "true"


def parse_network(name: str, text: str) -> IPv4Network:
    """
    Parse *text*, a network of parameter *name*.

    Raises:
        ConfigError: It is none.
    """
    try:
        return IPv4Network(text)
    except ValueError as error:
        raise ConfigError(f"{name} has {text!r}: {error}, expected such as 10.0.0.0/8") from None
