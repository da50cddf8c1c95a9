"""
Deterministic CBOR (RFC 8949): the subset that messages, NSM and documents use.

Why our own: the reader meets hostile bytes before anything is authenticated, and must refuse
what general decoders accept: duplicate keys, trailing bytes, tags, floats, deep nesting.
Integers, byte and text strings, arrays, maps, null and booleans, each in its one encoding. Only
what an NSM made may have other forms: longer integers, and arrays and maps of indefinite length
(what Nitro hardware emits since late 2025).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from app.protocol.errors import ProtocolError

Cbor = int | bytes | str | list["Cbor"] | dict["int | str", "Cbor"] | None  # bool is an int
Encodable = int | bytes | str | Sequence["Encodable"] | Mapping[str, "Encodable"] | None

MAX_DEPTH: Final = 8  # arrays and maps in each other; ours need 5
MAX_ITEMS: Final = 26_000  # a full history is 6 * MAX_TURNS items; a thousand for the options
_INDEFINITE: Final = 31
_BREAK: Final = 0xFF
_CONTAINERS: Final = (4, 5)  # arrays and maps
_SIMPLE: Final = {20: False, 21: True, 22: None}


def decode(data: bytes, *, any_form: bool = False) -> Cbor:
    """
    Parse *data* as exactly one CBOR item.

    Args:
        data: Any bytes; the caller has bounded their length.

        any_form: Take what an NSM may write: integers that are not the shortest, and arrays and
            maps of indefinite length.

    Raises:
        ProtocolError: *data* is not one item of the subset above, nests deeper than
            `MAX_DEPTH`, has more than `MAX_ITEMS` items, repeats a key or goes on after it.

    Source: RFC 8949 section 3; 4.2.1 for the one encoding; 5.6 for duplicate keys.
    """
    reader = _Reader(data, any_form=any_form)
    value = reader.item(depth=0)
    if reader.offset != len(data):
        raise ProtocolError(f"{len(data) - reader.offset} bytes after the CBOR item")
    return value


def decode_map(data: bytes, keys: tuple[str, ...]) -> dict[int | str, Cbor]:
    """
    Parse *data* as one map with exactly *keys*, in their order.

    Raises:
        ProtocolError: It is something else, or not in its one encoding.
    """
    value = decode(data)
    if not isinstance(value, dict) or tuple(value) != keys:
        raise ProtocolError(f"other fields than {', '.join(keys)}")
    return value


def integer(value: Cbor, least: int, most: int) -> int:
    """
    Give *value* if it is an integer from *least* to *most*.

    Raises:
        ProtocolError: It is another integer, or none.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ProtocolError(f"not an integer from {least} to {most}")
    return value


class _Reader:
    """A position in hostile bytes."""

    def __init__(self, data: bytes, *, any_form: bool) -> None:
        self.data = data
        self.any_form = any_form
        self.offset = 0
        self.items = 0

    def take(self, count: int) -> bytes:
        end = self.offset + count
        if end > len(self.data):
            raise ProtocolError("CBOR item is truncated")
        piece = self.data[self.offset : end]
        self.offset = end
        return piece

    def item(self, depth: int) -> Cbor:
        self.items += 1
        major, info = divmod(self.take(1)[0], 32)
        if self.items > MAX_ITEMS or (major in _CONTAINERS and depth == MAX_DEPTH):
            raise ProtocolError("CBOR nests too deep or has too many items")
        if major == 7:
            return self.simple(info)
        if info == _INDEFINITE and major in _CONTAINERS and self.any_form:
            return self.array(None, depth) if major == 4 else self.map(None, depth)
        length = self.argument(info)
        readers: dict[int, Callable[[], Cbor]] = {
            0: lambda: length,
            1: lambda: -1 - length,
            2: lambda: self.take(length),
            3: lambda: self.text(length),
            4: lambda: self.array(length, depth),
            5: lambda: self.map(length, depth),
        }
        if major not in readers:
            raise ProtocolError("CBOR tags are not part of this protocol")
        return readers[major]()

    def argument(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise ProtocolError("CBOR length is indefinite or reserved")
        size = 1 << (info - 24)
        value = int.from_bytes(self.take(size))
        if value < (24 if size == 1 else 1 << 4 * size) and not self.any_form:
            raise ProtocolError("CBOR integer or length is not the shortest")
        return value

    def simple(self, info: int) -> Cbor:
        if info not in _SIMPLE:
            raise ProtocolError("CBOR floats and simple values are not part of this protocol")
        return _SIMPLE[info]

    def text(self, length: int) -> str:
        try:
            return self.take(length).decode()
        except UnicodeDecodeError:
            raise ProtocolError("CBOR text is not UTF-8") from None

    def ended(self, length: int | None, count: int) -> bool:
        if length is not None:
            return count == length
        if self.offset < len(self.data) and self.data[self.offset] == _BREAK:
            self.offset += 1
            return True
        return False

    def array(self, length: int | None, depth: int) -> list[Cbor]:
        values: list[Cbor] = []
        while not self.ended(length, len(values)):
            values.append(self.item(depth + 1))
        return values

    def map(self, length: int | None, depth: int) -> dict[int | str, Cbor]:
        values: dict[int | str, Cbor] = {}
        while not self.ended(length, len(values)):
            key = self.item(depth + 1)
            if not isinstance(key, int | str) or isinstance(key, bool):
                raise ProtocolError("CBOR map key is neither an integer nor text")
            if key in values:
                raise ProtocolError("CBOR map has a key twice")
            values[key] = self.item(depth + 1)
        return values


def encode(value: Encodable) -> bytes:
    """
    Encode *value*; the same value always gives the same bytes.

    Map entries keep their order: callers write them in the order SPEC.md lists.

    Source: RFC 8949 section 4.2.1 for shortest arguments.
    """
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value) if value >= 0 else _head(1, -1 - value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            return _head(3, len(value.encode())) + value.encode()
        case Mapping():
            entries = (encode(key) + encode(item) for key, item in value.items())
            return _head(5, len(value)) + b"".join(entries)
        case _:
            return _head(4, len(value)) + b"".join(map(encode, value))


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    size = next(n for n in range(4) if argument < 1 << (8 << n))
    return bytes([major << 5 | 24 + size]) + argument.to_bytes(1 << size)
