"""
A connection: a hostile peer on a stream, seen as messages in frames. SPEC.md section 2.1.
"""

import select
import socket
import time
from collections import deque
from typing import Final

from app.protocol.constants import MAX_CONNECTION_SECONDS, MAX_WRITE_BYTES
from app.protocol.errors import ProtocolError
from app.protocol.frames import FrameReader, encode_frame

_SEND_SECONDS: Final = 10  # a peer that reads nothing for this long is hung up on
_READ_BYTES: Final = 64 * 1024


class Connection:
    """
    A connected peer.

    Args:
        seconds: After which it is sent nothing more.
    """

    def __init__(self, stream: socket.socket, seconds: float = MAX_CONNECTION_SECONDS) -> None:
        self._stream = stream
        self._end = time.monotonic() + seconds
        self._reader = FrameReader()
        self._received = deque[bytes]()
        stream.settimeout(_SEND_SECONDS)

    def send(self, *messages: bytes) -> None:
        """
        Send *messages* as if they were one, at most `MAX_WRITE_BYTES` a write.

        Raises:
            OSError: The peer has gone, or reads nothing.
        """
        if time.monotonic() > self._end:
            raise TimeoutError  # a peer that reads just fast enough holds its place no longer
        frames = memoryview(b"".join(map(encode_frame, messages)))
        for start in range(0, len(frames), MAX_WRITE_BYTES):
            self._stream.sendall(frames[start : start + MAX_WRITE_BYTES])

    def gone(self) -> bool:
        """Say whether the peer has hung up; after its one request it has nothing to send."""
        poll = select.poll()
        poll.register(self._stream, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self, seconds: float) -> bytes:
        """
        Read the next message, all of it within *seconds*.

        Raises:
            ProtocolError: It is no frame.

            OSError: The peer has gone, or was too slow.
        """
        end = time.monotonic() + seconds
        while not self._received:
            if (left := end - time.monotonic()) <= 0:
                raise TimeoutError
            self._stream.settimeout(left)
            data = self._stream.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError
            self._received += self._reader.feed(data)
        self._stream.settimeout(_SEND_SECONDS)
        return self._received.popleft()

    def require_end(self) -> None:
        """
        Require that nothing has come beyond the messages that were received.

        Raises:
            ProtocolError: Something has.
        """
        if self._received:
            raise ProtocolError("more messages than one")
        self._reader.finish()
