"""
A parent's end of the weights stream, as honest or as false as a test wants it.
"""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from app.protocol.asker.weights import encode_weights_key
from app.protocol.frames import FrameReader, encode_frame
from app.protocol.package import MANIFEST_NAME
from app.protocol.weights import WEIGHTS_PIECE_BYTES, Kind, WeightsKey
from tests.patience import PATIENCE_SECONDS

Messages = Iterator[bytes]


class FakeParent:
    """
    Sends the files of a folder on a socket pair, once `go` is set.

    Args:
        bend: Is given the messages that an honest parent would answer a question with, and gives
            what is sent instead, frame by frame.

    Attributes:
        asked: Released at each question.
    """

    def __init__(
        self,
        folder: Path,
        *,
        key: WeightsKey | None = None,
        bend: Callable[[bytes, list[bytes]], list[bytes]] = lambda _, messages: messages,
    ) -> None:
        files = (path.read_bytes() for path in folder.iterdir() if path.name != MANIFEST_NAME)
        self._files = {sha256(data).digest(): data for data in files}
        self._key = key
        self._bend = bend
        self.asked = threading.Semaphore(0)
        self.go = threading.Event()
        self.ports: list[int] = []
        self.questions: list[bytes] = []

    def connect(self, port: int) -> socket.socket:
        """Give a connected socket, as `Platform.connect` does."""
        self.ports.append(port)
        ours, theirs = socket.socketpair()
        threading.Thread(target=self._converse, args=(ours,), daemon=True).start()
        return theirs

    def _converse(self, stream: socket.socket) -> None:
        with stream, suppress(OSError):
            stream.settimeout(PATIENCE_SECONDS)
            reader = FrameReader()
            while data := stream.recv(65_536):
                for question in reader.feed(data):
                    self.questions.append(question)
                    self.asked.release()
                    self.go.wait(PATIENCE_SECONDS)
                    bent = self._bend(question, list(self._answer(question)))
                    stream.sendall(b"".join(map(encode_frame, bent)))

    def _answer(self, question: bytes) -> Messages:
        if question[0] == Kind.ASK_KEY:
            yield encode_weights_key(self._key)
            return
        data = self._files[question[1:]]
        for start in range(0, len(data), WEIGHTS_PIECE_BYTES):
            yield bytes([Kind.PIECE]) + data[start : start + WEIGHTS_PIECE_BYTES]
        yield bytes([Kind.END])
