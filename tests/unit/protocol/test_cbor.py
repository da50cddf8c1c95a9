"""
Our CBOR: what it reads and refuses, alone and beside an independent codec.
"""

import math
from typing import Any, cast

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.protocol import cbor
from app.protocol.errors import ProtocolError

scalar = st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.binary() | st.text()


def containers(item: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(item, max_size=30) | st.dictionaries(st.text(), item, max_size=30)


value = st.recursive(scalar, containers, max_leaves=30).filter(
    lambda item: depth(item) <= cbor.MAX_DEPTH
)


def depth(item: object) -> int:
    match item:
        case list():
            return 1 + max(map(depth, item), default=0)
        case dict():
            return 1 + max(map(depth, item.values()), default=0)
    return 0


@given(item=value)
def test_round_trip(item: cbor.Encodable) -> None:
    """
    What is encoded decodes to the same value, and its encoding to the same bytes.
    """
    encoded = cbor.encode(item)
    assert cbor.decode(encoded) == item
    assert cbor.encode(cast("cbor.Encodable", cbor.decode(encoded))) == encoded


@given(item=value)
def test_encoding_agrees_with_cbor2(item: cbor.Encodable) -> None:
    """
    An independent encoder writes the same bytes.
    """
    assert cbor2.dumps(item) == cbor.encode(item)


@given(data=st.binary(max_size=80))
@example(data=b"\xbf\x61a\x01\xff")
@example(data=b"\x9f\x01\xff")
@example(data=b"\x3b" + b"\xff" * 8)
@example(data=b"\x1b" + b"\0" * 8)
def test_any_bytes(data: bytes) -> None:
    """
    Any bytes are refused by the one documented error, or mean what an independent decoder reads.
    """
    try:
        item = cbor.decode(data, any_form=True)
    except ProtocolError:
        return
    assert cbor2.loads(data) == item


@given(data=st.binary(max_size=80))
@example(data=b"\xbf\x61a\x01\xff")
@example(data=b"\x18\x17")
@example(data=b"\x38\x17")
@example(data=b"\x19\x00\xff")
@example(data=b"\x58\x01a")
@example(data=b"\x98\x01\x01")
@example(data=b"\x1a\x00\x00\xff\xff")
@example(data=b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff")
@example(data=bytes.fromhex("9f41614162ff"))
@example(data=bytes.fromhex("8278046275737980"))
def test_one_encoding(data: bytes) -> None:
    """
    What is read is what encoding its value gives: there is no second way to write it.
    """
    try:
        item = cbor.decode(data)
    except ProtocolError:
        return
    assert cbor.encode(cast("cbor.Encodable", item)) == data


@given(item=value, data=st.data())
def test_truncated(item: cbor.Encodable, data: st.DataObject) -> None:
    """
    No beginning of an item is an item.
    """
    encoded = cbor.encode(item)
    with pytest.raises(ProtocolError):
        cbor.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))])


@given(item=value, tail=st.binary(min_size=1))
def test_trailing(item: cbor.Encodable, tail: bytes) -> None:
    """
    Nothing may follow the item.
    """
    with pytest.raises(ProtocolError, match="after the CBOR item"):
        cbor.decode(cbor.encode(item) + tail)


@given(entries=st.dictionaries(st.text(), scalar, min_size=1, max_size=10), data=st.data())
def test_duplicate_key(entries: dict[str, cbor.Encodable], data: st.DataObject) -> None:
    """
    A key that comes back is refused, in maps of either length and however it is encoded.
    """
    key = data.draw(st.sampled_from(sorted(entries)))
    body = cbor.encode(entries)[1:] + cbor.encode(key) + cbor.encode(None)
    for encoded in (bytes([0xA0 + len(entries) + 1]) + body, b"\xbf" + body + b"\xff"):
        with pytest.raises(ProtocolError, match="key twice"):
            cbor.decode(encoded, any_form=True)


def test_duplicate_key_in_another_encoding() -> None:
    """
    The integer 1 in one byte and in two is the same key.
    """
    with pytest.raises(ProtocolError, match="key twice"):
        cbor.decode(b"\xa2\x01\xf6\x18\x01\xf6", any_form=True)


@pytest.mark.parametrize("opening", [b"\x81", b"\x9f", b"\xa1\x61a", b"\xbf\x61a"])
def test_depth(opening: bytes) -> None:
    """
    Arrays and maps nest eight deep, and nine are refused: hostile nesting ends long before Python's
    stack does.
    """
    closing = b"\xff" if opening[0] & 0x1F == 0x1F else b""
    for inside in (b"\xf6", b"\x61a"):
        good = opening * 8 + inside + closing * 8
        assert depth(cbor.decode(good, any_form=True)) == cbor.MAX_DEPTH == 8
    for levels in (9, 100_000):
        for inside in (b"\xf6", b""):
            with pytest.raises(ProtocolError, match="too deep"):
                cbor.decode(opening * levels + inside + closing * levels, any_form=True)
    with pytest.raises(ProtocolError, match="too deep"):
        cbor.decode(b"\x80".join([b"\x81" * 8, b""]))


def test_items() -> None:
    """
    The number of items is bounded, and a length that promises more costs nothing.
    """
    assert cbor.decode(cbor.encode([0] * (cbor.MAX_ITEMS - 1))) == [0] * (cbor.MAX_ITEMS - 1)
    with pytest.raises(ProtocolError, match="too many items"):
        cbor.decode(cbor.encode([0] * cbor.MAX_ITEMS))
    with pytest.raises(ProtocolError, match="truncated"):
        cbor.decode(b"\x9b" + b"\xff" * 8)
    with pytest.raises(ProtocolError, match="truncated"):
        cbor.decode(b"\x5b" + b"\xff" * 8)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xc1\x00", "tags"),
        (b"\xd2\x80", "tags"),
        (cbor2.dumps(1.5), "floats"),
        (cbor2.dumps(math.nan), "floats"),
        (b"\xf7", "simple values"),
        (b"\xf8\x20", "simple values"),
        (b"\xff", "simple values"),
        (b"\x1c", "reserved"),
        (b"\x1f", "reserved"),
        (b"\x5f\x41a\xff", "indefinite"),
        (b"\x7f\x61a\xff", "indefinite"),
        (b"\x62\xc3\x28", "UTF-8"),
        (b"\x63\xed\xa0\x80", "UTF-8"),
        (b"\xa1\x41a\x01", "neither"),
        (b"\xa1\xf5\x01", "neither"),
        (b"\xa1\x80\x01", "neither"),
        (b"\xbf\x61a\xff", "simple values"),
        (b"\x9f\x01", "truncated"),
    ],
)
@pytest.mark.parametrize("any_form", [True, False])
def test_outside_the_subset(data: bytes, message: str, *, any_form: bool) -> None:
    """
    What other decoders accept and ours does not need is refused.
    """
    with pytest.raises(ProtocolError, match=message if any_form else None):
        cbor.decode(data, any_form=any_form)


@pytest.mark.parametrize("value", [True, None, -1, 6, "1", b"2", [1]])
def test_integer(value: cbor.Cbor) -> None:
    """
    An integer is one in its range, and neither a boolean nor anything else.
    """
    assert cbor.integer(5, 0, 5) == 5
    with pytest.raises(ProtocolError, match="integer from 0 to 5"):
        cbor.integer(value, 0, 5)


@pytest.mark.parametrize(
    "item", [{}, {"a": 1}, {"b": 2, "a": 1}, {"a": 1, "b": 2, "c": 3}, [1], None]
)
def test_decode_map(item: cbor.Encodable) -> None:
    """
    A map has exactly the keys asked for, in their order.
    """
    good: dict[str, cbor.Encodable] = {"a": 1, "b": 2}
    assert cbor.decode_map(cbor.encode(good), ("a", "b")) == good
    with pytest.raises(ProtocolError, match="other fields than a, b"):
        cbor.decode_map(cbor.encode(item), ("a", "b"))


def test_booleans_are_not_integers() -> None:
    """
    True and 1 have encodings of their own.
    """
    assert cbor.encode([True, 1, False, 0]) == b"\x84\xf5\x01\xf4\x00"
    decoded = cbor.decode(b"\x82\xf5\x01")
    assert isinstance(decoded, list)
    assert [type(item) for item in decoded] == [bool, int]
