"""
A frame: a length and that many bytes of payload, on a stream.

Pure: bytes in, payloads out; sockets are somebody else's file. SPEC.md section 2.1.
"""

from collections.abc import Iterator

from app.protocol.constants import MAX_FRAME_BYTES
from app.protocol.errors import ProtocolError

_LENGTH_BYTES = 4


def encode_frame(payload: bytes) -> bytes:
    """
    Put *payload*, 1 to `MAX_FRAME_BYTES` bytes, into a frame.

    Raises:
        ProtocolError: It is empty or too long.
    """
    _require_length(len(payload))
    return len(payload).to_bytes(_LENGTH_BYTES) + payload


class FrameReader:
    """Bytes of a stream, cut anywhere, become the payloads of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """
        Take in *data* and give each payload that is complete now.

        Raises:
            ProtocolError: A length is 0 or over `MAX_FRAME_BYTES`; the stream is unusable from
                there on.
        """
        self._buffer += data
        while (end := self._end()) is not None and len(self._buffer) >= end:
            payload = bytes(self._buffer[_LENGTH_BYTES:end])
            del self._buffer[:end]
            yield payload

    def _end(self) -> int | None:
        if len(self._buffer) < _LENGTH_BYTES:
            return None
        length = int.from_bytes(self._buffer[:_LENGTH_BYTES])
        _require_length(length)
        return _LENGTH_BYTES + length

    def finish(self) -> None:
        """
        Say that the stream has ended.

        Raises:
            ProtocolError: It ended inside a frame.
        """
        if self._buffer:
            raise ProtocolError(f"stream ended {len(self._buffer)} bytes into a frame")


def _require_length(length: int) -> None:
    if not 1 <= length <= MAX_FRAME_BYTES:
        raise ProtocolError(f"frame of {length} bytes, expected 1 to {MAX_FRAME_BYTES}")
