import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.protocol.constants import MAX_FRAME_BYTES
from app.protocol.errors import ProtocolError
from app.protocol.frames import FrameReader, encode_frame


def read_in_pieces(stream: bytes, cuts: list[int]) -> tuple[list[bytes], bool]:
    """Give the payloads of *stream*, cut into pieces of these sizes, and whether it broke."""
    reader, payloads = FrameReader(), list[bytes]()
    try:
        while stream:
            cut = cuts[len(payloads) % len(cuts)]
            payloads += reader.feed(stream[:cut])
            stream = stream[cut:]
        reader.finish()
    except ProtocolError:
        return payloads, True
    return payloads, False


@given(
    payloads=st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    cuts=st.lists(st.integers(1, 9), min_size=1),
)
def test_round_trip(payloads: list[bytes], cuts: list[int]) -> None:
    """
    However the stream is cut, the payloads come back in order.
    """
    stream = b"".join(map(encode_frame, payloads))
    assert read_in_pieces(stream, cuts) == (payloads, False)


@given(stream=st.binary(max_size=200), cuts=st.lists(st.integers(1, 50), min_size=1))
def test_any_bytes(stream: bytes, cuts: list[int]) -> None:
    """
    Any bytes are frames or a `ProtocolError`, and the cuts make no difference.
    """
    assert read_in_pieces(stream, cuts) == read_in_pieces(stream, [len(stream) or 1])


@given(payload=st.binary(min_size=1, max_size=20), data=st.data())
def test_end_inside_a_frame(payload: bytes, data: st.DataObject) -> None:
    """
    A stream that ends inside a frame, its length included, is refused.
    """
    frame = encode_frame(payload)
    end = data.draw(st.integers(1, len(frame) - 1))
    reader = FrameReader()
    assert list(reader.feed(frame[:end])) == []
    with pytest.raises(ProtocolError, match="into a frame"):
        reader.finish()


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1, 2**32 - 1])
def test_length_out_of_range(length: int) -> None:
    """
    A length of 0 or over the limit is refused as soon as it is read, before any payload.
    """
    with pytest.raises(ProtocolError, match=f"frame of {length} bytes"):
        list(FrameReader().feed(length.to_bytes(4)))


def test_largest_frame() -> None:
    """
    A frame of exactly the limit passes both ways.
    """
    payload = bytes(MAX_FRAME_BYTES)
    assert list(FrameReader().feed(encode_frame(payload))) == [payload]


@pytest.mark.parametrize("length", [0, MAX_FRAME_BYTES + 1])
def test_nothing_else_is_encoded(length: int) -> None:
    """
    Our own side cannot write a frame that the other must refuse.
    """
    with pytest.raises(ProtocolError):
        encode_frame(bytes(length))


def test_frames_before_a_broken_one() -> None:
    """
    What was whole before the stream broke has been given.
    """
    reader = FrameReader()
    payloads = reader.feed(encode_frame(b"whole") + bytes(4))
    assert next(payloads) == b"whole"
    with pytest.raises(ProtocolError):
        next(payloads)
